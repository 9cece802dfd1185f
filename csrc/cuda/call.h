// What launchers are called with: plain structs, for the kernels' files and for the tensor-facing ones.
#pragma once
#include <cstdint>

#include "common/format.h"

#if defined(CDKD_CUDA_ON_CPU)
#include "emulation/device_language.h"
#else
#include <cuda_runtime_api.h>
#endif

namespace cdkd::cuda {

// A contiguous matrix of `length` columns; of a single one, a list of scalars.
struct Rows {
  const void* data;
  int32_t length;
  Format format;
};

struct MutableRows {
  void* data;
  int32_t length;
  Format format;
};

}  // namespace cdkd::cuda
