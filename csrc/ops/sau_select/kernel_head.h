// What follows the pooled activations of a sample: squeeze, select, softmax over the
// projectors.
#pragma once
#include <cstdint>

#include "common/exponential.h"
#include "cuda/memory.h"
#include "cuda/reduce.h"
#include "kernels.h"

namespace cdkd::cuda::sau {

// Inner product of `count` numbers by a warp; every lane gets it.
template <class T, class Left, class Right>
CDKD_DEVICE T warp_product(int64_t count, const Left& left, const Right& right) {
  T sum[1] = {0};
  for (int64_t i = threadIdx.x % kWarp; i < count; i += kWarp) sum[0] += left(i) * right(i);
  reduce_warp(sum, Add{});
  return sum[0];
}

// squeezed[j] = ReLU(squeeze · pooled), in shared memory; barriers before and after are the caller's.
template <class T>
CDKD_DEVICE void squeeze(const SauSelect& call, const T* pooled, T* squeezed) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp, warps = static_cast<int>(blockDim.x) / kWarp;
  for (int64_t j = warp; j < call.hidden; j += warps) {
    const T* const weight = static_cast<const T*>(call.squeeze_weight) + j * call.channels;
    const T sum = warp_product<T>(
                      call.channels, [&](int64_t c) { return load(weight + c); },
                      [&](int64_t c) { return pooled[c]; }) +
                  load(static_cast<const T*>(call.squeeze_bias) + j);
    if (threadIdx.x % kWarp == 0) squeezed[j] = sum <= T(0) ? T(0) : sum;  // a NaN stays
  }
}

// The selection of one sample from its pooled activations, in shared memory and complete. squeezed: shared,
// (d,).
template <class T>
CDKD_DEVICE void select_projectors(const SauSelect& call, int64_t sample, const T* pooled, T* squeezed) {
  squeeze(call, pooled, squeezed);
  __syncthreads();
  const int warp = static_cast<int>(threadIdx.x) / kWarp, warps = static_cast<int>(blockDim.x) / kWarp;
  T* const selection = static_cast<T*>(call.selection) + sample * call.projectors * call.channels;
  for (int64_t c = warp; c < call.channels; c += warps) {
    T most = 0;
    for (int64_t k = 0; k < call.projectors; ++k) {
      const int64_t at = k * call.channels + c;
      const T* const weight = static_cast<const T*>(call.select_weight) + at * call.hidden;
      const T score = warp_product<T>(
                          call.hidden, [&](int64_t j) { return load(weight + j); },
                          [&](int64_t j) { return squeezed[j]; }) +
                      load_uniform(static_cast<const T*>(call.select_bias) + at);
      most = k == 0 || score > most ? score : most;
      if (threadIdx.x % kWarp == 0) store(selection + at, score);
    }
    if (threadIdx.x % kWarp != 0) continue;
    T total = 0;
    for (int64_t k = 0; k < call.projectors; ++k) {
      const T value = exp_nonpositive(load(selection + k * call.channels + c) - most);
      store(selection + k * call.channels + c, value);
      total += value;
    }
    for (int64_t k = 0; k < call.projectors; ++k) {
      T* const at = selection + k * call.channels + c;
      store(at, load(at) / total);
    }
  }
}

}  // namespace cdkd::cuda::sau
