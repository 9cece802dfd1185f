// The forward pass of sau_select on CUDA. In training the convolutions of all branches and the statistics of
// their tiles come first, then the batch's statistics, then each sample's selection; in evaluation a block
// does it all for a sample.
#include "kernel_head.h"
#include "kernel_tiles.h"

namespace cdkd::cuda {
namespace sau {
namespace {

// The convolution of the feature by one branch, at this thread's pixels and maps.
template <class In>
CDKD_DEVICE void respond(const SauSelect& call, const Tiling& tiling, const Pixels& pixels, int branch,
                         int64_t first_map, Accumulate<In>* shared, Accumulate<In> (&sums)[kPixels][kMaps]) {
  using T = Accumulate<In>;
  const int32_t kernel = call.kernel[branch];
  const In* const feature = static_cast<const In*>(call.feature);
  const In* const weight = static_cast<const In*>(call.conv_weight[branch]);
  convolve<T>(
      call, tiling, pixels, kernel, call.channels, first_map, call.channels, shared,
      [&](int64_t sample, int64_t channel, int64_t y, int64_t x) -> T {
        return widen(load(feature + ((sample * call.channels + channel) * call.height + y) * call.width + x));
      },
      [&](int64_t map, int64_t channel, int tap) -> T {
        return widen(load(weight + (map * call.channels + channel) * kernel * kernel + tap));
      },
      sums);
}

// Where a response is kept.
CDKD_DEVICE int64_t response_at(const SauSelect& call, int64_t sample, int branch, int64_t channel, int64_t y,
                                int64_t x) {
  return (((sample * call.branches + branch) * call.channels + channel) * call.height + y) * call.width + x;
}

// Blocks of 64 threads: tiles of pixels, then of maps, then branches. partial: (3, M·C, tiles), the count,
// mean and squared deviations of each tile.
template <class In>
__global__ void __launch_bounds__(kTileThreads, 4)  // few blocks at least, or the compiler spills for more
    sau_select_convolve_kernel(SauSelect call, Tiling tiling, Accumulate<In>* partial) {
  using T = Accumulate<In>;
  CDKD_DYNAMIC_SHARED(memory);
  T* const shared = reinterpret_cast<T*>(memory);
  const int64_t tiles = tiling.tiles(), map_tiles = divide_up(call.channels, kMaps);
  const int64_t tile = blockIdx.x % tiles, first_map = blockIdx.x / tiles % map_tiles * kMaps;
  // the largest kernels are usually the last ones: they begin first
  const int branch = call.branches - 1 - static_cast<int>(blockIdx.x / tiles / map_tiles);
  const Pixels pixels(tiling, tile);
  T sums[kPixels][kMaps] = {};
  respond<In>(call, tiling, pixels, branch, first_map, shared, sums);

  T* const responses = static_cast<T*>(call.responses);
  bool exists[kPixels];
  T count[1] = {0};
  T totals[kMaps] = {};
  CDKD_UNROLL
  for (int i = 0; i < kPixels; ++i) {
    exists[i] = pixels.exists(call, i);
    if (!exists[i]) continue;
    count[0] += 1;
    const int64_t at = response_at(call, pixels.sample(), branch, first_map, pixels.row(i), pixels.x());
    CDKD_UNROLL
    for (int o = 0; o < kMaps; ++o) {
      totals[o] += sums[i][o];
      if (first_map + o < call.channels) store(responses + at + o * call.height * call.width, sums[i][o]);
    }
  }
  __syncthreads();
  reduce_block(count, shared, Add{});
  reduce_block(totals, shared + kTileThreads / kWarp, Add{});
  T squares[kMaps] = {};
  CDKD_UNROLL
  for (int o = 0; o < kMaps; ++o) {
    totals[o] /= count[0];
    CDKD_UNROLL
    for (int i = 0; i < kPixels; ++i)
      if (exists[i]) squares[o] += (sums[i][o] - totals[o]) * (sums[i][o] - totals[o]);
  }
  reduce_block(squares, shared + kTileThreads / kWarp * (1 + kMaps), Add{});
  if (threadIdx.x != 0) return;
  const int64_t maps = call.branches * call.channels;
  CDKD_UNROLL
  for (int o = 0; o < kMaps; ++o) {
    if (first_map + o >= call.channels) break;
    T* const to = partial + (branch * call.channels + first_map + o) * tiles + tile;
    store(to, count[0]);
    store(to + maps * tiles, totals[o]);
    store(to + 2 * maps * tiles, squares[o]);
  }
}

constexpr int kStatisticsThreads = 128;

// Blocks: maps. Mean and biased variance from those of the tiles.
template <class T>
__global__ void __launch_bounds__(kStatisticsThreads)
    sau_select_statistics_kernel(const T* partial, int64_t maps, int64_t tiles, T* to_mean, T* to_variance) {
  __shared__ double scratch[3 * kStatisticsThreads / kWarp];
  const T* const counts = partial + blockIdx.x * tiles;
  const T* const means = counts + maps * tiles;
  const T* const squares = means + maps * tiles;
  double sums[2] = {0, 0};
  for (int64_t i = threadIdx.x; i < tiles; i += kStatisticsThreads) {
    const double count = load(counts + i);
    sums[0] += count;
    sums[1] += count * load(means + i);
  }
  reduce_block(sums, scratch, Add{});
  const double mean = sums[1] / sums[0];
  double deviation[1] = {0};
  for (int64_t i = threadIdx.x; i < tiles; i += kStatisticsThreads) {
    const double difference = load(means + i) - mean;
    deviation[0] += load(squares + i) + load(counts + i) * difference * difference;
  }
  reduce_block(deviation, scratch + 2 * kStatisticsThreads / kWarp, Add{});
  if (threadIdx.x != 0) return;
  store(to_mean + blockIdx.x, static_cast<T>(mean));
  store(to_variance + blockIdx.x, static_cast<T>(deviation[0] / sums[0]));
}

// How many pixels pass the ReLU, the sum of their normalised responses, and that of the activations.
template <class T>
struct Activation {
  T mean, inverse, weight, bias;
  T sums[3] = {0, 0, 0};

  CDKD_DEVICE Activation(const SauSelect& call, const T* means, const T* variances, int64_t map)
      : mean(load_uniform(means + map)),
        inverse(T(1) / sqrt(load_uniform(variances + map) + static_cast<T>(call.eps))),
        weight(load_uniform(static_cast<const T*>(call.norm_weight) + map)),
        bias(load_uniform(static_cast<const T*>(call.norm_bias) + map)) {}

  CDKD_DEVICE void add(T response) {
    const T x = (response - mean) * inverse;
    const T value = x * weight + bias;
    if (value <= T(0)) return;  // not for a NaN
    sums[0] += 1;
    sums[1] += x;
    sums[2] += value;
  }
};

template <class T>
CDKD_DEVICE void store_passed(const SauSelect& call, int64_t map, int64_t sample, const T (&sums)[3]) {
  T* const passed = static_cast<T*>(call.passed) + map * call.samples + sample;
  store(passed, sums[0]);
  store(passed + call.branches * call.channels * call.samples, sums[1]);
}

constexpr int kSampleThreads = 256;

// Blocks: samples. From responses and statistics to the selection.
template <class T>
__global__ void __launch_bounds__(kSampleThreads, 1) sau_select_select_kernel(SauSelect call) {
  CDKD_DYNAMIC_SHARED(memory);
  T* const pooled = reinterpret_cast<T*>(memory);
  const int64_t sample = blockIdx.x, count = call.height * call.width;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int64_t c = threadIdx.x / kWarp; c < call.channels; c += kSampleThreads / kWarp) {
    T total = 0;
    for (int branch = 0; branch < call.branches; ++branch) {
      const int64_t map = branch * call.channels + c;
      Activation<T> activation(call, static_cast<const T*>(call.mean), static_cast<const T*>(call.variance),
                               map);
      const T* const responses =
          static_cast<const T*>(call.responses) + response_at(call, sample, branch, c, 0, 0);
      if (count % Vector<T>::kSize == 0) {
        for (int64_t i = lane; i < count / Vector<T>::kSize; i += kWarp) {
          const Vector<T> vector = load(reinterpret_cast<const Vector<T>*>(responses) + i);
          CDKD_UNROLL
          for (int e = 0; e < Vector<T>::kSize; ++e) activation.add(vector.at[e]);
        }
      } else {
        for (int64_t i = lane; i < count; i += kWarp) activation.add(load(responses + i));
      }
      reduce_warp(activation.sums, Add{});
      if (lane == 0) store_passed(call, map, sample, activation.sums);
      total += activation.sums[2];
    }
    if (lane != 0) continue;
    pooled[c] = total / static_cast<T>(count);
    store(static_cast<T*>(call.pooled) + sample * call.channels + c, pooled[c]);
  }
  __syncthreads();
  select_projectors(call, sample, pooled, pooled + call.channels);
}

// Blocks: samples; 64 threads for each eight maps that are computed at a time. All of the evaluation.
template <class In, bool keep>
__global__ void __launch_bounds__(kSampleThreads, 1)
    sau_select_evaluate_kernel(SauSelect call, Tiling tiling) {
  using T = Accumulate<In>;
  CDKD_DYNAMIC_SHARED(memory);
  T* const pooled = reinterpret_cast<T*>(memory);  // (C,)
  T* const squeezed = pooled + call.channels;      // (d,)
  T* const parts = squeezed + call.hidden;         // (warps, maps, 3)
  T* const shared =
      pooled + divide_up(call.channels + call.hidden + kSampleThreads / kWarp * kMaps * 3, 4) * 4;
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int sets = threads / kTileThreads, own = thread / kTileThreads * kMaps;
  const T* const running_mean = static_cast<const T*>(call.running_mean);
  const T* const running_var = static_cast<const T*>(call.running_var);
  const int64_t sample = blockIdx.x;
  if (sample == 0)
    for (int64_t i = thread; i < call.branches * call.channels; i += threads) {
      store(static_cast<T*>(call.mean) + i, load(running_mean + i));
      store(static_cast<T*>(call.variance) + i, load(running_var + i));
    }
  for (int64_t c = thread; c < call.channels; c += threads) pooled[c] = 0;
  for (int branch = 0; branch < call.branches; ++branch) {
    for (int64_t first_map = 0; first_map < call.channels; first_map += sets * kMaps) {
      T totals[kMaps][3] = {};
      for (int64_t tile = 0; tile < tiling.across * tiling.down; ++tile) {
        const Pixels pixels(tiling, sample * tiling.across * tiling.down + tile);
        T sums[kPixels][kMaps] = {};
        respond<In>(call, tiling, pixels, branch, first_map, shared, sums);
        CDKD_UNROLL
        for (int o = 0; o < kMaps; ++o) {
          const int64_t channel = first_map + own + o;
          if (channel >= call.channels) break;
          Activation<T> activation(call, running_mean, running_var, branch * call.channels + channel);
          CDKD_UNROLL
          for (int i = 0; i < kPixels; ++i) {
            if (!pixels.exists(call, i)) continue;
            activation.add(sums[i][o]);
            if constexpr (keep)
              store(static_cast<T*>(call.responses) +
                        response_at(call, sample, branch, channel, pixels.row(i), pixels.x()),
                    sums[i][o]);
          }
          CDKD_UNROLL
          for (int n = 0; n < 3; ++n) totals[o][n] += activation.sums[n];
        }
      }
      CDKD_UNROLL
      for (int o = 0; o < kMaps; ++o) {
        reduce_warp(totals[o], Add{});
        if (thread % kWarp == 0) CDKD_UNROLL
        for (int n = 0; n < 3; ++n) parts[(thread / kWarp * kMaps + o) * 3 + n] = totals[o][n];
      }
      __syncthreads();
      for (int i = thread; i < sets * kMaps; i += threads) {
        if (first_map + i >= call.channels) break;
        const T* const first = parts + (i / kMaps * 2 * kMaps + i % kMaps) * 3;  // of a set's two warps
        T both[3];
        CDKD_UNROLL
        for (int n = 0; n < 3; ++n) both[n] = first[n] + first[n + kMaps * 3];
        pooled[first_map + i] += both[2];
        if constexpr (keep) store_passed(call, branch * call.channels + first_map + i, sample, both);
      }
      __syncthreads();
    }
  }
  for (int64_t c = thread; c < call.channels; c += threads) {
    pooled[c] /= static_cast<T>(call.height * call.width);
    store(static_cast<T*>(call.pooled) + sample * call.channels + c, pooled[c]);
  }
  __syncthreads();
  select_projectors(call, sample, pooled, squeezed);
}

// Shared memory of a block that convolves for the given sets of eight maps with the largest need of all
// branches.
template <class T>
size_t shared_bytes(const SauSelect& call, const Tiling& tiling, int sets) {
  int64_t most = 0;
  for (int branch = 0; branch < call.branches; ++branch) {
    const Staging staging(tiling, call.kernel[branch], call.channels, sets, sizeof(T));
    most = std::max(most, staging.elements(tiling, call.kernel[branch], sets));
  }
  return static_cast<size_t>(most) * sizeof(T);
}

template <class In>
cudaError_t launch_training(const SauSelect& call, cudaStream_t stream) {
  using T = Accumulate<In>;
  const Tiling tiling = sharing_tiling<T>(call);
  T* const partial = static_cast<T*>(call.workspace);
  const int64_t maps = call.branches * call.channels;
  const int64_t blocks = tiling.tiles() * divide_up(call.channels, kMaps) * call.branches;
  const size_t reduction = (1 + 2 * kMaps) * kTileThreads / kWarp * sizeof(T);
  CDKD_LAUNCH("sau_select_convolve", (&sau_select_convolve_kernel<In>), dim3(static_cast<unsigned>(blocks)),
              dim3(kTileThreads), std::max(shared_bytes<T>(call, tiling, 1), reduction), stream, call, tiling,
              partial);
  CDKD_LAUNCH("sau_select_statistics", (&sau_select_statistics_kernel<T>), dim3(static_cast<unsigned>(maps)),
              dim3(kStatisticsThreads), 0, stream, partial, maps, tiling.tiles(), static_cast<T*>(call.mean),
              static_cast<T*>(call.variance));
  CDKD_LAUNCH("sau_select_select", (&sau_select_select_kernel<T>), dim3(static_cast<unsigned>(call.samples)),
              dim3(kSampleThreads), static_cast<size_t>(call.channels + call.hidden) * sizeof(T), stream,
              call);
  return cudaSuccess;
}

template <class In>
cudaError_t launch_evaluation(const SauSelect& call, cudaStream_t stream) {
  using T = Accumulate<In>;
  const int64_t sums = divide_up(call.channels + call.hidden + kSampleThreads / kWarp * kMaps * 3, 4) * 4;
  const int64_t free = kSharedLimit / static_cast<int64_t>(sizeof(T)) - sums;
  int sets = static_cast<int>(
      std::min<int64_t>(sizeof(T) == 8 ? 2 : kSampleThreads / kTileThreads, divide_up(call.channels, kMaps)));
  while (sets > 1 && smallest_stage(call, sets) > free) --sets;
  const Tiling tiling(call, false, sets, free);
  const auto kernel = call.responses != nullptr ? &sau_select_evaluate_kernel<In, true>
                                                : &sau_select_evaluate_kernel<In, false>;
  CDKD_LAUNCH("sau_select_evaluate", kernel, dim3(static_cast<unsigned>(call.samples)),
              dim3(static_cast<unsigned>(sets * kTileThreads)),
              static_cast<size_t>(sums) * sizeof(T) + shared_bytes<T>(call, tiling, sets), stream, call,
              tiling);
  return cudaSuccess;
}

}  // namespace
}  // namespace sau

int64_t sau_select_workspace(const SauSelect& call) {
  if (!call.training || call.samples == 0) return 0;
  const int64_t element = call.wide() ? 8 : 4;
  const int64_t tiles =
      call.wide() ? sau::sharing_tiling<double>(call).tiles() : sau::sharing_tiling<float>(call).tiles();
  return 3 * call.branches * call.channels * tiles * element;
}

cudaError_t launch_sau_select(const SauSelect& call, cudaStream_t stream) {
  if (call.samples == 0) return cudaSuccess;
  return sau::with_input_type(call.format, [&](auto type) {
    return call.training ? sau::launch_training<decltype(type)>(call, stream)
                         : sau::launch_evaluation<decltype(type)>(call, stream);
  });
}

}  // namespace cdkd::cuda
