// What a kernel file is written in: the CUDA language, from nvcc or from its emulation on the CPU.
#pragma once
#include <cstdint>

#include "device_language.h"

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
