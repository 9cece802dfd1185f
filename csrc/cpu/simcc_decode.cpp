// From SimCC logits to keypoints: softmax, flip test, peak, score and affine map in one pass per joint.
#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "common/mirror.h"
#include "common/row_softmax.h"
#include "cpu/tensors.h"

namespace cdkd {

enum class Score { kMin, kMax, kMean };

// The logits of one axis, and those of the mirrored image if its data is not null.
struct Axis {
  Rows logits;
  Rows mirrored;
};

template <class A>
struct SimccDecode {
  Axis x;
  Axis y;
  int64_t mirror_sum;          // of an x bin and its mirror image
  const int64_t* permutation;  // (J,) the joint that takes a joint's place in the mirrored image
  int64_t joints;
  A split_ratio;
  Rows to_image;  // (B, 6) or null data
  Score score;
  A* keypoints;  // (B, J, 2)
  A* scores;     // (B, J)
};

template <class A>
struct Peak {
  int32_t bin;
  A probability;
};

template <class A>
CDKD_INLINE Peak<A> peak_of(const A* logits, int64_t bins) {
  const A max = row_max(logits, bins);
  const A sum = row_exp_sum(logits, bins, max);
  return {row_find(logits, static_cast<int32_t>(bins), max), 1 / sum};
}

// Peak of the mean of two distributions: bin i of the first meets bin sum - i of the second if that is
// reversed, else bin i. A bin that meets none keeps half of its own probability.
template <bool reversed, class A>
CDKD_INLINE Peak<A> mean_peak(const A* logits, const A* mirrored, int64_t bins, int64_t sum, A* p, A* q) {
  const A own = A(0.5) / row_exp(logits, bins, row_max(logits, bins), A(1), p);
  const A other = A(0.5) / row_exp(mirrored, bins, row_max(mirrored, bins), A(1), q);
  const int64_t first = reversed ? std::max<int64_t>(0, sum - bins + 1) : 0;
  const int64_t last = reversed ? std::min<int64_t>(bins, sum + 1) : bins;
  for (int64_t i = 0; i < first; ++i) p[i] *= own;
  for (int64_t i = std::max(first, last); i < bins; ++i) p[i] *= own;
#pragma omp simd
  for (int64_t i = first; i < last; ++i) p[i] = p[i] * own + q[reversed ? sum - i : i] * other;
  const A max = row_max(p, bins);
  // a NaN row has NaN factors; the maximum may have skipped it
  return {row_find(p, static_cast<int32_t>(bins), max), own + other == own + other ? max : own + other};
}

template <class A>
CDKD_INLINE void simcc_decode_joints_of(const SimccDecode<A>& call, int64_t begin, int64_t end) {
  const int64_t bins = std::max(call.x.logits.length, call.y.logits.length);
  Scratch<A> scratch(4 * bins);
  A* own_buffer = scratch.take(bins);
  A* mirrored_buffer = scratch.take(bins);
  A* p = scratch.take(bins);
  A* q = scratch.take(bins);

  for (int64_t i = begin; i < end; ++i) {
    Peak<A> x;
    Peak<A> y;
    if (call.permutation) {
      const int64_t mirror = i / call.joints * call.joints + call.permutation[i % call.joints];
      x = mean_peak<true>(call.x.logits.read(i, own_buffer), call.x.mirrored.read(mirror, mirrored_buffer),
                          call.x.logits.length, call.mirror_sum, p, q);
      y = mean_peak<false>(call.y.logits.read(i, own_buffer), call.y.mirrored.read(mirror, mirrored_buffer),
                           call.y.logits.length, 0, p, q);
    } else {
      x = peak_of(call.x.logits.read(i, own_buffer), call.x.logits.length);
      y = peak_of(call.y.logits.read(i, own_buffer), call.y.logits.length);
    }
    // a NaN in either axis makes the whole joint unknown
    const A unknown = x.probability + y.probability;
    const bool known = unknown == unknown;
    const A low = std::min(x.probability, y.probability);
    const A high = std::max(x.probability, y.probability);
    const A score = call.score == Score::kMin ? low : call.score == Score::kMax ? high : (low + high) / 2;
    A crop_x = static_cast<A>(x.bin) / call.split_ratio;
    A crop_y = static_cast<A>(y.bin) / call.split_ratio;
    if (call.to_image.data) {
      A buffer[6];
      const A* affine = call.to_image.read(i / call.joints, buffer);
      const A image_x = affine[0] * crop_x + affine[1] * crop_y + affine[2];
      crop_y = affine[3] * crop_x + affine[4] * crop_y + affine[5];
      crop_x = image_x;
    }
    call.keypoints[2 * i] = known ? crop_x : unknown;
    call.keypoints[2 * i + 1] = known ? crop_y : unknown;
    call.scores[i] = known ? score : unknown;
  }
}

CDKD_CLONES void simcc_decode_joints(const SimccDecode<float>& call, int64_t begin, int64_t end) {
  simcc_decode_joints_of(call, begin, end);
}

void simcc_decode_joints(const SimccDecode<double>& call, int64_t begin, int64_t end) {
  simcc_decode_joints_of(call, begin, end);
}

namespace {

Score score_of(const std::string& name) {
  check(name == "min" || name == "max" || name == "mean", "score", "one of 'min', 'max', 'mean'",
        "'" + name + "'");
  return name == "min" ? Score::kMin : name == "max" ? Score::kMax : Score::kMean;
}

void check_permutation(const Tensor& permutation, int64_t joints) {
  check_cpu("flipped[2]", permutation);
  check(permutation.scalar_type() == ScalarType::Long, "flipped[2]", "int64",
        toString(permutation.scalar_type()));
  check_shape(permutation.dim() == 1 && permutation.size(0) == joints, "flipped[2]", text("(", joints, ")"),
              permutation);
  std::vector<bool> seen(joints);
  const int64_t* joint = permutation.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < joints; ++i) {
    check(joint[i] >= 0 && joint[i] < joints && !seen[joint[i]], "flipped[2]",
          text("a permutation of 0 to ", joints - 1), text(joint[i], " at position ", i));
    seen[joint[i]] = true;
  }
}

bool same_shape(const Tensor& a, const Tensor& b) {
  return a.dim() == b.dim() && std::equal(a.sizes().begin(), a.sizes().end(), b.sizes().begin());
}

std::tuple<Tensor, Tensor> simcc_decode(const Tensor& logits_x, const Tensor& logits_y, double split_ratio,
                                        const std::optional<std::vector<Tensor>>& flipped,
                                        const std::optional<Tensor>& to_image, const std::string& score) {
  check_shape(logits_x.dim() == 3 && logits_x.size(2) > 0, "logits_x", "(B, J, bins)", logits_x);
  check_shape(logits_y.dim() == 3 && logits_y.size(2) > 0 && logits_y.size(0) == logits_x.size(0) &&
                  logits_y.size(1) == logits_x.size(1),
              "logits_y", text("(", logits_x.size(0), ", ", logits_x.size(1), ", bins)"), logits_y);
  check(split_ratio > 0 && std::isfinite(split_ratio), "split_ratio", "a positive finite number",
        split_ratio);
  const int64_t batch = logits_x.size(0);
  const int64_t joints = logits_x.size(1);

  // tensors live as long as the pointers into them
  std::vector<Tensor> kept;
  const auto rows = [&](const char* argument, const Tensor& tensor) {
    const Format format = check_floating(argument, tensor);
    kept.push_back(packed(tensor));
    return rows_of(kept.back(), format);
  };
  Axis x{rows("logits_x", logits_x), {}};
  Axis y{rows("logits_y", logits_y), {}};
  const bool wide = x.logits.format == Format::kFloat64 || y.logits.format == Format::kFloat64;
  const int64_t* permutation = nullptr;
  if (flipped) {
    check(flipped->size() == 3, "flipped", "logits_x, logits_y and permutation",
          text(flipped->size(), " tensors"));
    const Tensor& mirrored_x = (*flipped)[0];
    const Tensor& mirrored_y = (*flipped)[1];
    check_shape(same_shape(mirrored_x, logits_x), "flipped[0]", shape_text(logits_x), mirrored_x);
    check_shape(same_shape(mirrored_y, logits_y), "flipped[1]", shape_text(logits_y), mirrored_y);
    x.mirrored = rows("flipped[0]", mirrored_x);
    y.mirrored = rows("flipped[1]", mirrored_y);
    kept.push_back(packed((*flipped)[2]));
    check_permutation(kept.back(), joints);
    permutation = kept.back().const_data_ptr<int64_t>();
  }
  Rows affine{};
  if (to_image) {
    check_shape(to_image->dim() == 3 && to_image->size(0) == batch && to_image->size(1) == 2 &&
                    to_image->size(2) == 3,
                "to_image", text("(", batch, ", 2, 3)"), *to_image);
    affine = rows("to_image", *to_image);
    affine.length = 6;
  }

  const int64_t keypoints_shape[] = {batch, joints, 2};
  const Tensor keypoints = allocate(logits_x, Sizes(keypoints_shape, 3), accumulator_type(wide));
  const Tensor scores = allocate(logits_x, Sizes(keypoints_shape, 2), accumulator_type(wide));
  with_accumulator(wide, [&](auto zero) {
    using A = decltype(zero);
    const SimccDecode<A> call{x,
                              y,
                              mirror_sum(x.logits.length, split_ratio),
                              permutation,
                              joints,
                              static_cast<A>(split_ratio),
                              affine,
                              score_of(score),
                              static_cast<A*>(keypoints.mutable_data_ptr()),
                              static_cast<A*>(scores.mutable_data_ptr())};
    for_rows(batch * joints, x.logits.length + y.logits.length,
             [&](int64_t begin, int64_t end) { simcc_decode_joints(call, begin, end); });
  });
  return {keypoints, scores};
}

}  // namespace
}  // namespace cdkd

STABLE_TORCH_LIBRARY_IMPL(cdkd, CPU, m) { m.impl("simcc_decode", TORCH_BOX(&cdkd::simcc_decode)); }
