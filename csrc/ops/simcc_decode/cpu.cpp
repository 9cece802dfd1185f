// From SimCC logits to keypoints: softmax, flip test, peak, score and affine map in one pass per joint.
#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "ops/simcc_decode/mirror.h"
#include "cpu/isa.h"
#include "cpu/row_passes.h"
#include "cpu/tensors.h"

namespace cdkd::cpu {

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
  int64_t bin;
  A probability;
};

// Peak of the mean of two distributions: bin i of the first meets bin sum - i of the second if that is
// reversed, else bin i. A bin that meets none keeps half of its own probability.
template <int bytes, bool reversed, class A>
CDKD_INLINE Peak<A> mean_peak(const A* logits, const A* mirrored, int64_t bins, int64_t padded, int64_t sum,
                              A* p, A* q) {
  const A own = A(0.5) / row_exp<bytes, true>(logits, padded, row_max<bytes>(logits, padded), A(1), p);
  const A other = A(0.5) / row_exp<bytes, true>(mirrored, padded, row_max<bytes>(mirrored, padded), A(1), q);
  const int64_t first = reversed ? std::max<int64_t>(0, sum - bins + 1) : 0;
  const int64_t last = reversed ? std::min<int64_t>(bins, sum + 1) : bins;
  for (int64_t i = 0; i < first; ++i) p[i] *= own;
  for (int64_t i = std::max(first, last); i < bins; ++i) p[i] *= own;
#pragma omp simd
  for (int64_t i = first; i < last; ++i) p[i] = p[i] * own + q[reversed ? sum - i : i] * other;
  const A max = row_max<bytes>(p, padded);
  // a NaN row has NaN factors; the maximum may have skipped it
  return {row_find<bytes>(p, padded, max), own + other == own + other ? max : own + other};
}

struct SimccDecodeJoints {
  template <int bytes, class A>
  CDKD_INLINE static void run(const SimccDecode<A>& call, int64_t begin, int64_t end) {
    constexpr int lanes = VectorOf<A, bytes>::lanes;
    const int64_t bins_x = call.x.logits.length, bins_y = call.y.logits.length;
    const int64_t padded_x = round_up(bins_x, lanes), padded_y = round_up(bins_y, lanes);
    const int64_t longest = std::max(padded_x, padded_y);
    Scratch<A> scratch(4, longest);
    A* own_buffer = scratch.take(longest);
    A* mirrored_buffer = scratch.take(longest);
    A* p = scratch.take(longest);
    A* q = scratch.take(longest);

    for (int64_t i = begin; i < end; ++i) {
      Peak<A> x;
      Peak<A> y;
      const A* own_x = call.x.logits.template read<lanes>(i, own_buffer);
      if (call.permutation) {
        const int64_t mirror = i / call.joints * call.joints + call.permutation[i % call.joints];
        const A* mirrored_x = call.x.mirrored.template read<lanes>(mirror, mirrored_buffer);
        x = mean_peak<bytes, true>(own_x, mirrored_x, bins_x, padded_x, call.mirror_sum, p, q);
        const A* own_y = call.y.logits.template read<lanes>(i, own_buffer);
        const A* mirrored_y = call.y.mirrored.template read<lanes>(mirror, mirrored_buffer);
        y = mean_peak<bytes, false>(own_y, mirrored_y, bins_y, padded_y, 0, p, q);
      } else {
        // axis by axis, one pass would wait for the end of the other
        const A* own_y = call.y.logits.template read<lanes>(i, mirrored_buffer);
        const A max_x = row_max<bytes>(own_x, padded_x);
        const A max_y = row_max<bytes>(own_y, padded_y);
        x.probability = 1 / row_exp_sum<bytes>(own_x, padded_x, max_x);
        y.probability = 1 / row_exp_sum<bytes>(own_y, padded_y, max_y);
        x.bin = row_find<bytes>(own_x, padded_x, max_x);
        y.bin = row_find<bytes>(own_y, padded_y, max_y);
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
};

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
             [&](int64_t begin, int64_t end) { run<SimccDecodeJoints>(call, begin, end); });
  });
  return {keypoints, scores};
}

}  // namespace
}  // namespace cdkd::cpu

STABLE_TORCH_LIBRARY_IMPL(cdkd, CPU, m) { m.impl("simcc_decode", TORCH_BOX(&cdkd::cpu::simcc_decode)); }
