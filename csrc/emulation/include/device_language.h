// The CUDA language, for a C++ compiler: kernels become functions that the scheduler calls once per thread.
// Only what the kernels use; what is missing does not compile. csrc/cuda/include has a header of the same
// name for nvcc; the include path chooses.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "emulation/exports.h"
#include "emulation/scheduler.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
// shared by the fibers of a block; unlike dynamic shared memory it keeps what the block before left there
#define __shared__ static

#define threadIdx (::cdkd::emulation::current_thread->index)
#define blockIdx (::cdkd::emulation::current_block.index)
#define blockDim (::cdkd::emulation::current_block.size)
#define gridDim (::cdkd::emulation::current_block.grid)

#define CDKD_DYNAMIC_SHARED(name) unsigned char* const name = ::cdkd::emulation::current_block.dynamic_shared
#define CDKD_LAUNCH(name, kernel, grid, block, shared_bytes, stream, ...)                          \
  do {                                                                                             \
    (void)(stream);                                                                                \
    if (!::cdkd::emulation::launch(name, grid, block, shared_bytes, [&] { kernel(__VA_ARGS__); })) \
      return cudaErrorInvalidConfiguration;                                                        \
  } while (false)
#define CDKD_UNROLL
#define CDKD_NO_UNROLL

using dim3 = cdkd::emulation::Extent;
using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0, cudaErrorInvalidConfiguration = 9;

struct __align__(8) float2 {
  float x, y;
};
struct __align__(16) float4 {
  float x, y, z, w;
};
struct __align__(16) double2 {
  double x, y;
};
struct __align__(8) uint2 {
  unsigned x, y;
};
struct __align__(16) uint4 {
  unsigned x, y, z, w;
};

namespace cdkd::emulation {

template <class To, class From>
inline To reinterpret(From from) {
  static_assert(sizeof(To) <= 8 && sizeof(From) <= 8, "a register's bits");
  To to{};
  __builtin_memcpy(&to, &from, std::min(sizeof(To), sizeof(From)));
  return to;
}

enum class Shuffle { kIndex, kUp, kDown, kXor };

template <class T>
T shuffle(Shuffle kind, int line, uint32_t mask, T value, int operand, int width = kWarp) {
  const Deposit* deposits = collective(mask, "__shfl_sync", line, reinterpret<uint64_t>(value));
  const int lane = static_cast<int>(current_thread->lane);
  const int segment = lane & ~(width - 1);
  int source = segment + (operand & (width - 1));
  if (kind == Shuffle::kUp) source = lane - operand < segment ? lane : lane - operand;
  if (kind == Shuffle::kDown) source = lane + operand >= segment + width ? lane : lane + operand;
  if (kind == Shuffle::kXor) source = (lane ^ operand) >= segment + width ? lane : lane ^ operand;
  const Extent& size = current_block.size;
  const unsigned source_thread = current_thread->warp * kWarp + static_cast<unsigned>(source);
  if (!(mask >> source & 1) || source_thread >= size.x * size.y * size.z)
    fail("__shfl_sync reads a lane that takes no part");
  return reinterpret<T>(deposits[source].word[0]);
}

inline uint32_t ballot(int line, uint32_t mask, bool predicate) {
  const Deposit* deposits = collective(mask, "__ballot_sync", line, predicate);
  const Extent& size = current_block.size;
  const unsigned lanes = size.x * size.y * size.z - current_thread->warp * kWarp;
  uint32_t votes = 0;
  for (unsigned lane = 0; lane < std::min(lanes, kWarp); ++lane)
    if (mask >> lane & 1 && deposits[lane].word[0]) votes |= 1u << lane;
  return votes;
}

inline void sync_warp(int line, uint32_t mask = 0xffffffffu) { warp_barrier(mask, line); }

template <class T, class Change>
T atomic(T* address, Change change) {
  static_assert(sizeof(T) == 4, "only 32-bit atomics");
  uint32_t* word = reinterpret_cast<uint32_t*>(address);
  uint32_t old = __atomic_load_n(word, __ATOMIC_RELAXED);
  uint32_t next;
  do {
    next = reinterpret<uint32_t>(change(reinterpret<T>(old)));
  } while (!__atomic_compare_exchange_n(word, &old, next, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return reinterpret<T>(old);
}

}  // namespace cdkd::emulation

#define __syncthreads() ((void)::cdkd::emulation::barrier(__LINE__, false))
#define __syncthreads_count(p) (static_cast<int>(::cdkd::emulation::barrier(__LINE__, (p)).count))
#define __syncthreads_and(p) (static_cast<int>(::cdkd::emulation::barrier(__LINE__, (p)).all))
#define __syncthreads_or(p) (static_cast<int>(::cdkd::emulation::barrier(__LINE__, (p)).any))
#define __syncwarp(...) ::cdkd::emulation::sync_warp(__LINE__ __VA_OPT__(, ) __VA_ARGS__)
#define CDKD_SHUFFLE(kind, ...) \
  ::cdkd::emulation::shuffle(::cdkd::emulation::Shuffle::kind, __LINE__, __VA_ARGS__)
#define __shfl_sync(...) CDKD_SHUFFLE(kIndex, __VA_ARGS__)
#define __shfl_up_sync(...) CDKD_SHUFFLE(kUp, __VA_ARGS__)
#define __shfl_down_sync(...) CDKD_SHUFFLE(kDown, __VA_ARGS__)
#define __shfl_xor_sync(...) CDKD_SHUFFLE(kXor, __VA_ARGS__)
#define __ballot_sync(mask, p) ::cdkd::emulation::ballot(__LINE__, mask, p)
#define __any_sync(mask, p) (::cdkd::emulation::ballot(__LINE__, mask, p) != 0)
#define __all_sync(mask, p) (::cdkd::emulation::ballot(__LINE__, mask, !(p)) == 0)

template <class T>
T atomicAdd(T* address, T value) {
  return cdkd::emulation::atomic(address, [value](T old) { return T(old + value); });
}

namespace cdkd::cuda {

inline void count_read(size_t bytes) { emulation::count_read(bytes); }
inline void count_write(size_t bytes) { emulation::count_write(bytes); }

// Where all lanes of a warp read the same address: one transaction.
inline void count_uniform_read(size_t bytes) {
  if (emulation::current_thread->lane == 0) emulation::count_read(bytes);
}

}  // namespace cdkd::cuda
