// SimCC logits to keypoints: the call, its checks, and the operator on tensors of any device. The arguments
// are those of cdkd_ext.ops.simcc_decode.
#pragma once
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "common/arguments.h"
#include "mirror.h"

namespace cdkd {

enum class Score : int32_t { kMin, kMax, kMean };

// The logits of one axis, and those of the mirrored image if there are some.
struct DecodeAxis {
  Rows logits;    // (B·J, N)
  Rows mirrored;  // (B·J, N) or null
};

// Numbers called wide are double if `wide`, else float.
struct SimccDecode {
  DecodeAxis x;
  DecodeAxis y;
  int64_t mirror_sum;  // of an x bin and its mirror image
  const int64_t*
      permutation;  // (J,) the joint that takes a joint's place in the mirrored image; null without
  int64_t batch;
  int64_t joints;
  double split_ratio;
  Rows to_image;  // (B, 6) or null
  Score score;
  bool wide;
  void* keypoints;  // (B, J, 2) wide
  void* scores;     // (B, J) wide
};

inline SimccDecode check_simcc_decode(const Argument& x, const Argument& y, double split_ratio,
                                      const std::string& score) {
  check_bins(x);
  check_shape(x, {"B", "J", "bins"});
  check_place(y, x);
  check_bins(y);
  check_shape(y, {x.sizes[0], x.sizes[1], "bins"});
  check_positive("split_ratio", split_ratio);
  SimccDecode call{};
  call.x.logits = rows_of(x);
  call.y.logits = rows_of(y);
  call.batch = x.sizes[0], call.joints = x.sizes[1];
  call.split_ratio = split_ratio;
  call.score = static_cast<Score>(check_option("score", score, {"min", "max", "mean"}));
  call.wide = x.wide() || y.wide();
  return call;
}

// What the permutation holds is looked at where that needs no waiting.
inline void check_permutation(const Argument& permutation, int64_t joints) {
  check_dtype(permutation, "int64");
  check_shape(permutation, {joints});
  if (permutation.place.kind != Place::kCpu) return;
  const int64_t* const joint = static_cast<const int64_t*>(permutation.data);
  std::vector<bool> seen(joints);
  for (int64_t i = 0; i < joints; ++i) {
    if (joint[i] < 0 || joint[i] >= joints || seen[joint[i]])
      fail(permutation.label(), text("a permutation of 0 to ", joints - 1),
           text(joint[i], " at position ", i));
    seen[joint[i]] = true;
  }
}

inline void check_mirrored(SimccDecode& call, const Argument& x, const Argument& y,
                           const Argument& mirrored_x, const Argument& mirrored_y,
                           const Argument& permutation) {
  check_place(mirrored_x, x);
  check_floating(mirrored_x);
  check_same_shape(mirrored_x, x);
  check_place(mirrored_y, x);
  check_floating(mirrored_y);
  check_same_shape(mirrored_y, y);
  check_place(permutation, x);
  check_permutation(permutation, call.joints);
  call.x.mirrored = rows_of(mirrored_x);
  call.y.mirrored = rows_of(mirrored_y);
  call.permutation = static_cast<const int64_t*>(permutation.data);
  call.mirror_sum = mirror_sum(call.x.logits.length, call.split_ratio);
}

inline void check_to_image(SimccDecode& call, const Argument& x, const Argument& to_image) {
  check_place(to_image, x);
  check_floating(to_image);
  check_shape(to_image, {call.batch, 2, 3});
  call.to_image = {to_image.data, 6, to_image.format};
}

template <class Device>
struct SimccDecodeOperators {
  using Tensor = typename Device::Tensor;
  using Input = typename Device::Input;

  static std::tuple<Tensor, Tensor> run(const Tensor& logits_x, const Tensor& logits_y, double split_ratio,
                                        const std::optional<std::vector<Tensor>>& flipped,
                                        const std::optional<Tensor>& to_image, const std::string& score) {
    const Input x("logits_x", logits_x), y("logits_y", logits_y);
    SimccDecode call = check_simcc_decode(x, y, split_ratio, score);
    std::vector<Input> kept;  // as long as the call names their memory
    if (flipped) {
      if (flipped->size() != 3)
        fail("flipped", "(logits_x, logits_y, permutation)", text(flipped->size(), " values"));
      for (int32_t i = 0; i < 3; ++i) {
        const Tensor& tensor = (*flipped)[i];
        // kernels that compute in float read no float64
        kept.emplace_back("flipped", i < 2 && !call.wide ? Device::narrowed(tensor) : tensor, i);
      }
      check_mirrored(call, x, y, kept[0], kept[1], kept[2]);
    }
    if (to_image) {
      kept.emplace_back("to_image", *to_image);
      check_to_image(call, x, kept.back());
    }
    const Device device(x);
    const Format format = accumulator(call.wide);
    const Tensor keypoints = device.allocate({call.batch, call.joints, 2}, format);
    const Tensor scores = device.allocate({call.batch, call.joints}, format);
    call.keypoints = keypoints.mutable_data_ptr();
    call.scores = scores.mutable_data_ptr();
    compute(device, call);
    return {keypoints, scores};
  }
};

}  // namespace cdkd
