// Branch-free exp and log that compilers vectorise. The float polynomials are minimax fits, good to 1e-7
// relative. `a * b + c` and not fma(): without FMA instructions the latter is a library call.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/portable.h"

namespace cdkd {

template <class To, class From>
CDKD_INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast keeps the size");
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

// exp(x) for x <= 0; exactly 0 below -86, so a positive result never is a denormal, and exactly 1 at 0. NaN
// stays NaN. x · log2(e) is rounded once: that is as exact as the difference and the quotient that x comes
// from.
CDKD_INLINE float exp_nonpositive(float x) {
  const float round_to_integer = 12582912.f;  // 1.5 · 2^23: the sum's low bits hold the nearest integer
  const float t = x * 1.44269504f;
  const float shifted = t + round_to_integer;
  const float f = t - (shifted - round_to_integer);
  float p = 1.32645911e-3f;
  p = p * f + 9.67161916e-3f;
  p = p * f + 5.55073507e-2f;
  p = p * f + 2.40222409e-1f;
  p = p * f + 6.93147004e-1f;
  p = p * f + 1.f;
  const float two_to_n = bit_cast<float>((bit_cast<uint32_t>(shifted) << 23) + 0x3f800000u);
  return x < -86.f ? 0.f : p * two_to_n;
}

CDKD_INLINE double exp_nonpositive(double x) { return exp(x); }

// log(x) for normal x > 0. NaN stays NaN.
CDKD_INLINE float log_positive(float x) {
  // split x into 2^n · (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)]
  const uint32_t offset = bit_cast<uint32_t>(x) - 0x3f3504f3u;
  const float n = static_cast<float>(static_cast<int32_t>(offset) >> 23);
  const float f = bit_cast<float>((offset & 0x007fffffu) + 0x3f3504f3u) - 1.f;
  float p = -7.63442963e-2f;
  p = p * f + 1.27615497e-1f;
  p = p * f - 1.31601945e-1f;
  p = p * f + 1.42017618e-1f;
  p = p * f - 1.66233569e-1f;
  p = p * f + 2.00012267e-1f;
  p = p * f - 2.50008225e-1f;
  p = p * f + 3.33333313e-1f;
  const float log_1f = f + (f * f) * (p * f - 0.5f);
  const float result = n * -2.12194440e-4f + log_1f + n * 0.693359375f;
  return x == x ? result : x;
}

CDKD_INLINE double log_positive(double x) { return log(x); }

// log(x) for x >= 0 of any size: -inf at 0, inf at inf. NaN for negative numbers and NaN.
CDKD_INLINE float log_nonnegative(float x) {
  const bool small = x < 1.17549435e-38f;  // not normal: 2^24 times as large it is
  const float result = log_positive(small ? x * 16777216.f : x) - (small ? 16.6355323f : 0.f);
  if (x > 0) return x > 3.40282347e38f ? x : result;
  return x == 0 ? -HUGE_VALF : NAN;
}

CDKD_INLINE double log_nonnegative(double x) { return log(x); }

}  // namespace cdkd
