// How functions are declared so that g++, clang and nvcc all inline them.
#pragma once

#if defined(__CUDACC__)
#define CDKD_INLINE __host__ __device__ __forceinline__
#else
#define CDKD_INLINE inline __attribute__((always_inline))
#endif
