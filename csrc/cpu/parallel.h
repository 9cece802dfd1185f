// How CPU kernels share their work between torch's threads, and the type in which they compute.
#pragma once
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>

namespace cdkd::cpu {

// Call f(A{}) with A the accumulation type: double if wide, else float.
template <class F>
void with_accumulator(bool wide, F f) {
  if (wide) {
    f(double{});
  } else {
    f(float{});
  }
}

// Run f(begin, end) over rows in parallel; f must treat each row by itself, so bits do not depend on the
// threads. The cost of a row is counted in exponentials: waking a thread that sleeps takes as long as 200,000
// of them.
template <class F>
void for_rows(int64_t rows, int64_t row_cost, F f) {
  const int64_t grain = std::max<int64_t>(1, 262144 / std::max<int64_t>(1, row_cost));
  torch::stable::parallel_for(0, rows, grain, f);
}

}  // namespace cdkd::cpu
