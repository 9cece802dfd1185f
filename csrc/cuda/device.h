// What a kernel file is written in: the CUDA language from nvcc, or from its emulation on the CPU.
#pragma once
#include <cstdint>

#if defined(CDKD_CUDA_ON_CPU)
#include "emulation/device_language.h"
#define CDKD_UNROLL
#else
#include <cuda_runtime.h>

// `kernel` is a name, of a function pointer too: a template's commas would end the macro's argument. `name`
// is what the emulation reports.
#define CDKD_LAUNCH(name, kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)
#define CDKD_DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#define CDKD_UNROLL _Pragma("unroll")
#endif

#define CDKD_DEVICE __device__ __forceinline__

namespace cdkd::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// Blocks of `threads` that a multiprocessor should be able to hold: 64 registers a thread, 128 for double.
// Left to itself the compiler aims higher, and spills.
template <class A>
constexpr int blocks_per_multiprocessor(int threads) {
  return (sizeof(A) == 8 ? 512 : 1024) / threads;
}

}  // namespace cdkd::cuda
