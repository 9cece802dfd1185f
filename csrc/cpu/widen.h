// Reading any input type as the type that is accumulated: float, or double for double.
#pragma once
#include <cstdint>
#include <type_traits>

#include "common/half.h"

namespace cdkd::cpu {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

template <class In>
using Accumulate = std::conditional_t<std::is_same_v<In, double>, double, float>;

CDKD_INLINE float widen(float x) { return x; }
CDKD_INLINE double widen(double x) { return x; }
CDKD_INLINE float widen(const BFloat16& x) { return from_bfloat16(x.bits); }
CDKD_INLINE float widen(const Float16& x) { return from_float16(x.bits); }

}  // namespace cdkd::cpu
