// Scale rows, and sum scalars one after the other.
#include "arguments.h"
#include "cpu/device.h"
#include "cpu/isa.h"
#include "cpu/parallel.h"
#include "cpu/rows.h"

namespace cdkd::cpu {
namespace {

template <class A>
struct ScaleRowRange {
  template <int bytes>
  CDKD_INLINE static void run(const ScaleRows& call, int64_t begin, int64_t end) {
    const int64_t length = call.unscaled.length;
    Scratch<A> scratch(2, length);
    A* row_buffer = scratch.take(length);
    A* scaled_buffer = scratch.take(length);
    for (int64_t i = begin; i < end; ++i) {
      const A* row = read_row(call.unscaled, i, row_buffer);
      A* scaled = target_row(call.scaled, i, scaled_buffer);
      const A factor = read_scalar<A>(call.scale, i * call.scale_step);
#pragma omp simd
      for (int64_t j = 0; j < length; ++j) scaled[j] = factor == 0 ? A(0) : row[j] * factor;
      write_row(call.scaled, i, scaled);
    }
  }
};

double weighted_sum(const ScaleRows& call) {
  double sum = 0;
  if (call.weighted.data == nullptr) return sum;
  for (int64_t i = 0; i < call.rows; ++i) {
    const double factor = read_scalar<double>(call.scale, i * call.scale_step);
    sum += factor == 0 ? 0 : read_scalar<double>(call.weighted, i) * factor;
  }
  return sum;
}

}  // namespace

void compute(const Device&, const ScaleRows& call) {
  with_accumulator(call.wide, [&](auto zero) {
    for_rows(call.rows, call.unscaled.length / 4,
             [&](int64_t begin, int64_t end) { run<ScaleRowRange<decltype(zero)>>(call, begin, end); });
  });
  if (call.sum != nullptr) *call.sum = weighted_sum(call);
}

}  // namespace cdkd::cpu
