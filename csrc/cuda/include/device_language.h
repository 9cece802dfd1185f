// The CUDA language as nvcc knows it. csrc/emulation/include has a header of the same name for g++; the
// include path chooses.
#pragma once

#if defined(__CUDACC__)
#include <cuda_runtime.h>

// Launch, and leave the launcher if the device refuses: no later kernel may read what this one did not write.
// `kernel` is a name, of a function pointer too: a template's commas would end the macro's argument. `name`
// is what the emulation reports.
#define CDKD_LAUNCH(name, kernel, grid, block, shared_bytes, stream, ...)                 \
  do {                                                                                    \
    kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__);                           \
    if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error; \
  } while (false)
#define CDKD_DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#define CDKD_UNROLL _Pragma("unroll")
#define CDKD_NO_UNROLL _Pragma("unroll 1")

namespace cdkd::cuda {

// The emulation counts bytes here.
__device__ __forceinline__ void count_read(unsigned) {}
__device__ __forceinline__ void count_uniform_read(unsigned) {}
__device__ __forceinline__ void count_write(unsigned) {}

}  // namespace cdkd::cuda
#else
#include <cuda_runtime_api.h>
#endif

// What the emulation offers to Python.
#define CDKD_EXPORT_LAUNCHER(name, Call)
#define CDKD_EXPORT_WORKSPACE(name, Call)
#define CDKD_EXPORT_FIELDS(Struct, ...)
