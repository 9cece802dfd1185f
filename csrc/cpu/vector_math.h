// 2^t and log of vectors. Float polynomials are minimax fits, good to 1e-7 relative; doubles go through libm.
#pragma once

#include <cmath>
#include <limits>

#include "common/exponential.h"
#include "cpu/vector.h"

namespace cdkd::cpu {

// 2^f for |f| <= 1/2.
template <class V>
CDKD_INLINE V exp2_fraction(const V& f) {
  const V square = f * f;
  const V high = f * 1.32645911e-3f + 9.67161916e-3f;
  const V middle = f * 5.55073507e-2f + 2.40222409e-1f;
  const V low = f * 6.93147004e-1f + 1.f;
  return (high * square + middle) * square + low;
}

// 2^t for t <= 0, exactly 1 at 0 and 0 at -inf. With `flush` exactly 0 below -126, so that a positive result
// never is a denormal, which some processors multiply slowly. NaN stays NaN.
template <int bytes, bool flush = true>
CDKD_INLINE Vector<float, bytes> exp2_nonpositive(const Vector<float, bytes>& t) {
  using V = Vector<float, bytes>;
  using U = Vector<uint32_t, bytes>;
#if defined(__x86_64__) && defined(__GNUC__)
  if constexpr (bytes == 64) {
    // two instructions without a portable spelling: distance to the nearest integer, product with a power of
    // two
    V f;
    V result;
    asm("vreduceps $0, %1, %0" : "=v"(f) : "v"(t));
    const V n = t - f;
    const V p = exp2_fraction(f);
    asm("vscalefps %2, %1, %0" : "=v"(result) : "v"(p), "v"(n));
    if (flush) result = t < -126.f ? V{} : result;
    return result;
  }
#endif
  // 2^-127 in the exponent's bits is zero
  const V lowest = V{} - 127.f;
  const V clamped = lowest > t ? lowest : t;
  const V shifted = clamped + 12582912.f;  // 1.5 · 2^23: the sum's low bits hold the nearest integer
  const V p = exp2_fraction(clamped - (shifted - 12582912.f));
  const U power = (reinterpret_cast<U>(shifted) << 23) + 0x3f800000u;
  return p * reinterpret_cast<V>(power);
}

template <int bytes, bool flush = true>
CDKD_INLINE Vector<double, bytes> exp2_nonpositive(const Vector<double, bytes>& t) {
  Vector<double, bytes> result;
  for (int lane = 0; lane < VectorOf<double, bytes>::lanes; ++lane) result[lane] = std::exp2(t[lane]);
  return result;
}

constexpr double kLog2E = 1.4426950408889634;

// log(x) for normal x > 0. NaN stays NaN.
template <int bytes>
CDKD_INLINE Vector<float, bytes> log_positive(const Vector<float, bytes>& x) {
  using V = Vector<float, bytes>;
  using U = Vector<uint32_t, bytes>;
  using I = Vector<int32_t, bytes>;
  // split x into 2^n · (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)]
  const U offset = reinterpret_cast<U>(x) - 0x3f3504f3u;
  const V n = __builtin_convertvector(reinterpret_cast<I>(offset) >> 23, V);
  const V f = reinterpret_cast<V>((offset & 0x007fffffu) + 0x3f3504f3u) - 1.f;
  const V square = f * f;
  const V fourth = square * square;
  const V a = f * 3.33333313e-1f - 0.5f;
  const V b = f * 2.00012267e-1f - 2.50008225e-1f;
  const V c = f * 1.42017618e-1f - 1.66233569e-1f;
  const V d = f * 1.27615497e-1f - 1.31601945e-1f;
  const V high = (square * -7.63442963e-2f + d) * fourth + (c * square + b);
  const V log_1f = f + square * (square * high + a);
  const V result = n * -2.12194440e-4f + log_1f + n * 0.693359375f;
  return x == x ? result : x;
}

template <int bytes>
CDKD_INLINE Vector<double, bytes> log_positive(const Vector<double, bytes>& x) {
  Vector<double, bytes> result;
  for (int lane = 0; lane < VectorOf<double, bytes>::lanes; ++lane) result[lane] = std::log(x[lane]);
  return result;
}

// log(x) for x >= 0 of any size: -inf at 0, inf at inf. NaN for negative numbers and NaN.
template <int bytes>
CDKD_INLINE Vector<float, bytes> log_nonnegative(const Vector<float, bytes>& x) {
  using V = Vector<float, bytes>;
  const V infinity = V{} + std::numeric_limits<float>::infinity();
  const auto small = x < V{} + std::numeric_limits<float>::min();  // not normal: 2^24 times as large it is
  const V result = log_positive<bytes>(small ? x * 16777216.f : x) - (small ? V{} + 16.6355323f : V{});
  const V special = x == V{} ? -infinity : V{} + std::numeric_limits<float>::quiet_NaN();
  return x > V{} ? (x < infinity ? result : x) : special;
}

template <int bytes>
CDKD_INLINE Vector<double, bytes> log_nonnegative(const Vector<double, bytes>& x) {
  return log_positive<bytes>(x);
}

}  // namespace cdkd::cpu
