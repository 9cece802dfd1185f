// The passes of a row-wise softmax. A row is a whole number of vectors long, filled up with -inf
// (Rows::read). Sums depend on the row alone, never on how rows are spread over threads.
#pragma once

#include <limits>

#include "cpu/vector_math.h"

namespace cdkd::cpu {

template <int bytes, class A>
CDKD_INLINE A row_max(const A* x, int64_t n) {
  using V = Vector<A, bytes>;
  constexpr int lanes = VectorOf<A, bytes>::lanes;
  const V lowest = V{} - std::numeric_limits<A>::infinity();
  V max[2] = {lowest, lowest};  // each step waits for the one before
  V v;
  int64_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    load(v, x + i);
    max[0] = v > max[0] ? v : max[0];
    load(v, x + i + lanes);
    max[1] = v > max[1] ? v : max[1];
  }
  if (i < n) {
    load(v, x + i);
    max[0] = v > max[0] ? v : max[0];
  }
  return fold_lanes<A, bytes>(max[0] > max[1] ? max[0] : max[1], Larger());
}

// e[i] = exp((x[i] - max) · scale) where `keeps`; returns their sum. A NaN or an infinite maximum makes it
// NaN.
template <int bytes, bool keeps, class A>
CDKD_INLINE A row_exp(const A* x, int64_t n, A max, A scale, A* e) {
  using V = Vector<A, bytes>;
  const A factor = scale * static_cast<A>(kLog2E);
  V sum{};
  for (int64_t i = 0; i < n; i += VectorOf<A, bytes>::lanes) {
    V v;
    load(v, x + i);
    const V value = exp2_nonpositive<bytes, keeps>((v - max) * factor);
    if (keeps) store(e + i, value);
    sum += value;
  }
  return fold_lanes<A, bytes>(sum, Add());
}

template <int bytes, class A>
CDKD_INLINE A row_exp_sum(const A* x, int64_t n, A max) {
  return row_exp<bytes, false>(x, n, max, A(1), static_cast<A*>(nullptr));
}

// Lowest i with x[i] == value; n if there is none.
template <int bytes, class A>
CDKD_INLINE int64_t row_find(const A* x, int64_t n, A value) {
  using I = Vector<Bits<A>, bytes>;
  constexpr int lanes = VectorOf<A, bytes>::lanes;
  I found = I{} + static_cast<Bits<A>>(n);
  I position = lane_numbers<Bits<A>, bytes>() + static_cast<Bits<A>>(n - lanes);
  for (int64_t i = n - lanes; i >= 0; i -= lanes, position -= static_cast<Bits<A>>(lanes)) {
    Vector<A, bytes> v;
    load(v, x + i);
    found = v == value ? position : found;
  }
  return fold_lanes<Bits<A>, bytes>(found, Smaller());
}

}  // namespace cdkd::cpu
