// The types that tensors hold, and the ones that kernels compute in.
#pragma once
#include <cstdint>

#include "common/half.h"
#include "cuda/language.h"

namespace cdkd::cuda {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

CDKD_DEVICE float widen(float x) { return x; }
CDKD_DEVICE double widen(double x) { return x; }
CDKD_DEVICE float widen(BFloat16 x) { return from_bfloat16(x.bits); }
CDKD_DEVICE float widen(Float16 x) {
#if defined(__CUDA_ARCH__)
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
  return wide;
#else
  return from_float16(x.bits);
#endif
}

template <class T>
struct Narrow;
template <>
struct Narrow<float> {
  template <class A>
  CDKD_DEVICE static float from(A x) {
    return static_cast<float>(x);
  }
};
template <>
struct Narrow<double> {
  template <class A>
  CDKD_DEVICE static double from(A x) {
    return static_cast<double>(x);
  }
};
template <>
struct Narrow<BFloat16> {
  template <class A>
  CDKD_DEVICE static BFloat16 from(A x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    uint16_t bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(static_cast<float>(x)));
    return {bits};
#else
    return {to_bfloat16(static_cast<float>(x))};
#endif
  }
};
template <>
struct Narrow<Float16> {
  template <class A>
  CDKD_DEVICE static Float16 from(A x) {
#if defined(__CUDA_ARCH__)
    uint16_t bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(static_cast<float>(x)));
    return {bits};
#else
    return {to_float16(static_cast<float>(x))};
#endif
  }
};

}  // namespace cdkd::cuda
