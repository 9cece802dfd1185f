// The passes of a row-wise softmax. Sums depend on the row alone, never on how rows are spread over threads.
#pragma once
#include <cstdint>
#include <limits>

#include "common/exponential.h"

namespace cdkd {

template <class A>
CDKD_INLINE A row_max(const A* x, int64_t n) {
  A max = -std::numeric_limits<A>::infinity();
#pragma omp simd reduction(max : max)
  for (int64_t i = 0; i < n; ++i) max = x[i] > max ? x[i] : max;
  return max;
}

// e[i] = exp((x[i] - max) · scale); returns their sum. A NaN or an infinite maximum makes the sum NaN.
template <class A>
CDKD_INLINE A row_exp(const A* x, int64_t n, A max, A scale, A* e) {
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const A value = exp_nonpositive((x[i] - max) * scale);
    e[i] = value;
    sum += value;
  }
  return sum;
}

template <class A>
CDKD_INLINE A row_exp_sum(const A* x, int64_t n, A max) {
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += exp_nonpositive(x[i] - max);
  return sum;
}

// Lowest i with x[i] == value; n if there is none.
template <class A>
CDKD_INLINE int32_t row_find(const A* x, int32_t n, A value) {
  int32_t found = n;
#pragma omp simd reduction(min : found)
  for (int32_t i = 0; i < n; ++i) {
    const int32_t candidate = x[i] == value ? i : n;
    found = candidate < found ? candidate : found;
  }
  return found;
}

}  // namespace cdkd
