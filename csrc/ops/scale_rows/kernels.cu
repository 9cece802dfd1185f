// Scale rows, one warp per row, and sum scalars in two stages.
#include <type_traits>

#include "cuda/launch.h"
#include "cuda/reduce.h"
#include "cuda/rows.h"
#include "kernels.h"

namespace cdkd::cuda {

constexpr int kWarps = 4;  // of a block that scales

template <class A, class T>
CDKD_DEVICE void scale_elements(const T* from, T* to, int length, Group lanes, A factor) {
  const auto scaled = [&](T value) { return Narrow<T>::from(factor == 0 ? A(0) : widen(value) * factor); };
  Cut cut = cut_row(from, length);
  const auto is_aligned = [](const T* row) { return reinterpret_cast<uintptr_t>(row) % 16 == 0; };
  if (cut.vectors > 0 && !is_aligned(to + cut.head)) cut = {length, 0, length};
  for (int i = lanes.thread; i < cut.head; i += lanes.size) store(to + i, scaled(load(from + i)));
  const Vector<T>* from_vectors = reinterpret_cast<const Vector<T>*>(from + cut.head);
  Vector<T>* to_vectors = reinterpret_cast<Vector<T>*>(to + cut.head);
  for (int v = lanes.thread; v < cut.vectors; v += lanes.size) {
    Vector<T> vector = load(from_vectors + v);
    CDKD_UNROLL
    for (int e = 0; e < Vector<T>::kSize; ++e) vector.at[e] = scaled(vector.at[e]);
    store(to_vectors + v, vector);
  }
  for (int i = cut.tail + lanes.thread; i < length; i += lanes.size) store(to + i, scaled(load(from + i)));
}

template <class A>
__global__ void __launch_bounds__(kWarps* kWarp, blocks_per_multiprocessor<A>(kWarps* kWarp))
    scale_rows_kernel(const ScaleRows call) {
  CDKD_DYNAMIC_SHARED(memory);
  double* const sums = reinterpret_cast<double*>(memory);  // (kWarps,)
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const Group lanes{static_cast<int>(threadIdx.x) % kWarp, kWarp};
  double sum = 0;
  for (int64_t row = int64_t{blockIdx.x} * kWarps + warp; row < call.rows;
       row += int64_t{gridDim.x} * kWarps) {
    const A factor = read_scalar<A>(call.scale, row * call.scale_step);
    with_row<A>(call.scaled, row, [&](auto* to) {
      const auto* from =
          elements_of<std::remove_pointer_t<decltype(to)>>(call.unscaled) + row * call.unscaled.length;
      scale_elements(from, to, call.scaled.length, lanes, factor);
    });
    if (call.weighted.data && lanes.thread == 0 && factor != 0)
      sum += read_scalar<double>(call.weighted, row) * static_cast<double>(factor);
  }
  if (!call.sum) return;
  if (!call.weighted.data) {
    if (blockIdx.x == 0 && threadIdx.x == 0) store(call.sum, 0.0);
    return;
  }
  if (lanes.thread == 0) sums[warp] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < kWarps; ++w) sum += sums[w];
    store(call.partials + blockIdx.x, sum);
  }
}

__global__ void __launch_bounds__(kWarp) sum_partials_kernel(const double* partials, int count, double* sum) {
  double total[] = {0};
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kWarp) total[0] += load(partials + i);
  reduce_warp(total, Add());
  if (threadIdx.x == 0) store(sum, total[0]);
}

cudaError_t launch_scale_rows(const ScaleRows& call, cudaStream_t stream) {
  const unsigned grid = grid_for(call.rows, kWarps, kScaleRowsPartials);
  if (grid > 0) {
    const auto kernel = call.wide ? &scale_rows_kernel<double> : &scale_rows_kernel<float>;
    CDKD_LAUNCH("scale_rows", kernel, dim3(grid), dim3(kWarps * kWarp), kWarps * sizeof(double), stream,
                call);
  }
  if (call.sum && (call.weighted.data || grid == 0))
    CDKD_LAUNCH("sum_partials", sum_partials_kernel, dim3(1), dim3(kWarp), 0, stream, call.partials,
                static_cast<int>(grid), call.sum);
  return cudaSuccess;
}

}  // namespace cdkd::cuda
