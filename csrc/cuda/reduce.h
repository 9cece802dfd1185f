// Reductions over a warp or a block; every thread gets the result, always combined in the same order.
#pragma once
#include "cuda/language.h"

namespace cdkd::cuda {

struct Add {
  template <class T>
  CDKD_DEVICE T operator()(T a, T b) const {
    return a + b;
  }
};
// The larger one; a NaN only if both are.
struct Larger {
  template <class T>
  CDKD_DEVICE T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};

template <int count, class T, class Combine>
CDKD_DEVICE void reduce_warp(T (&values)[count], Combine combine) {
  CDKD_UNROLL
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    CDKD_UNROLL
    for (int i = 0; i < count; ++i)
      values[i] = combine(values[i], __shfl_xor_sync(kAllLanes, values[i], distance));
  }
}

// Has a block-wide barrier inside. `scratch`, in shared memory: `count` values per warp, left alone until the
// next barrier. The block consists of whole warps.
template <int count, class T, class Combine>
CDKD_DEVICE void reduce_block(T (&values)[count], T* scratch, Combine combine) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  reduce_warp(values, combine);
  if (threadIdx.x % kWarp == 0) {
    CDKD_UNROLL
    for (int i = 0; i < count; ++i) scratch[warp * count + i] = values[i];
  }
  __syncthreads();
  CDKD_UNROLL
  for (int i = 0; i < count; ++i) {
    values[i] = scratch[i];
    for (int w = 1; w < warps; ++w) values[i] = combine(values[i], scratch[w * count + i]);
  }
}

}  // namespace cdkd::cuda
