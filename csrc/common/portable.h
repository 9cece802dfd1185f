// How functions are declared so that g++, clang and nvcc all inline them.
#pragma once

#if defined(__CUDACC__)
#define CDKD_INLINE __host__ __device__ __forceinline__
#else
#define CDKD_INLINE inline __attribute__((always_inline))
#endif

// One machine-code version per x86-64 level, chosen when the library loads. Names like "arch=haswell" would
// fall back to the slow default on processors of another make.
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define CDKD_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define CDKD_CLONES
#endif
