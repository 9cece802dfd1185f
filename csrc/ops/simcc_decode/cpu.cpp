// From SimCC logits to keypoints: softmax, flip test, peak, score and affine map in one pass per joint.
#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "arguments.h"
#include "cpu/device.h"
#include "cpu/isa.h"
#include "cpu/parallel.h"
#include "cpu/row_passes.h"
#include "cpu/rows.h"

namespace cdkd::cpu {
namespace {

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

template <class A>
struct SimccDecodeJoints {
  template <int bytes>
  CDKD_INLINE static void run(const SimccDecode& call, int64_t begin, int64_t end) {
    constexpr int lanes = VectorOf<A, bytes>::lanes;
    const int64_t bins_x = call.x.logits.length, bins_y = call.y.logits.length;
    const int64_t padded_x = round_up(bins_x, lanes), padded_y = round_up(bins_y, lanes);
    const int64_t longest = std::max(padded_x, padded_y);
    Scratch<A> scratch(4, longest);
    A* own_buffer = scratch.take(longest);
    A* mirrored_buffer = scratch.take(longest);
    A* p = scratch.take(longest);
    A* q = scratch.take(longest);
    A* keypoints = static_cast<A*>(call.keypoints);
    A* scores = static_cast<A*>(call.scores);
    const A split_ratio = static_cast<A>(call.split_ratio);

    for (int64_t i = begin; i < end; ++i) {
      Peak<A> x;
      Peak<A> y;
      const A* own_x = read_row<lanes>(call.x.logits, i, own_buffer);
      if (call.permutation) {
        const int64_t mirror = i / call.joints * call.joints + call.permutation[i % call.joints];
        const A* mirrored_x = read_row<lanes>(call.x.mirrored, mirror, mirrored_buffer);
        x = mean_peak<bytes, true>(own_x, mirrored_x, bins_x, padded_x, call.mirror_sum, p, q);
        const A* own_y = read_row<lanes>(call.y.logits, i, own_buffer);
        const A* mirrored_y = read_row<lanes>(call.y.mirrored, mirror, mirrored_buffer);
        y = mean_peak<bytes, false>(own_y, mirrored_y, bins_y, padded_y, 0, p, q);
      } else {
        // axis by axis, one pass would wait for the end of the other
        const A* own_y = read_row<lanes>(call.y.logits, i, mirrored_buffer);
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
      A crop_x = static_cast<A>(x.bin) / split_ratio;
      A crop_y = static_cast<A>(y.bin) / split_ratio;
      if (call.to_image.data) {
        A buffer[6];
        const A* affine = read_row(call.to_image, i / call.joints, buffer);
        const A image_x = affine[0] * crop_x + affine[1] * crop_y + affine[2];
        crop_y = affine[3] * crop_x + affine[4] * crop_y + affine[5];
        crop_x = image_x;
      }
      keypoints[2 * i] = known ? crop_x : unknown;
      keypoints[2 * i + 1] = known ? crop_y : unknown;
      scores[i] = known ? score : unknown;
    }
  }
};

}  // namespace

void compute(const Device&, const SimccDecode& call) {
  with_accumulator(call.wide, [&](auto zero) {
    for_rows(call.batch * call.joints, call.x.logits.length + call.y.logits.length,
             [&](int64_t begin, int64_t end) { run<SimccDecodeJoints<decltype(zero)>>(call, begin, end); });
  });
}

}  // namespace cdkd::cpu

STABLE_TORCH_LIBRARY_IMPL(cdkd, CPU, m) {
  m.impl("simcc_decode", TORCH_BOX(&cdkd::SimccDecodeOperators<cdkd::cpu::Device>::run));
}
