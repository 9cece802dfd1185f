// The backward pass of sau_select on CUDA. Gradients of the responses are never stored: whoever multiplies
// them computes them from the responses. Sums over the batch are parts, added in a fixed order.
#include "kernel_head.h"
#include "kernel_tiles.h"

namespace cdkd::cuda {
namespace sau {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kEnoughBlocks = 256;  // then the batch is not divided further

// What is kept per map: the gradient of a response r by the one of the pooled activations g is
// scale · ((passes ? g : 0) - mean_g - x · mean_gx) with x = (r - mean) · inverse.
template <class T>
struct alignas(16) MapConstants {
  T mean, inverse, weight, bias, scale, mean_g, mean_gx, unused;
};

// Parts of the weights' gradients: blocks of `jobs` threads' work, each (input channel, kernel row, four
// kernel columns), in `rounds` where one channel has more than a block; `planes` channels of the input at a
// time.
struct GradientTiling {
  int32_t planes, per_plane, rounds, kernel_rows, pitch, tile_width, tile_height;
  int64_t across, down, map_tiles, plane_tiles;

  CDKD_INLINE GradientTiling(const SauSelect& call, int32_t kernel, int32_t element) {
    const int32_t quads = (kernel + 3) / 4;
    tile_width = static_cast<int32_t>(call.width < 16 ? call.width : 16);
    tile_height = static_cast<int32_t>(call.height < 256 / tile_width ? call.height : 256 / tile_width);
    if (element == 8 && tile_height > 8) tile_height = 8;
    per_plane = kernel * quads;
    rounds = (per_plane + kThreads - 1) / kThreads;
    const int32_t met = (kThreads - 1) / quads + 2;  // rows of the kernel by a block's threads
    kernel_rows = rounds == 1 || met > kernel ? kernel : met;
    pitch = (tile_width + 4 * quads - 1) | 1;
    const int64_t limit = kSharedLimit / element;
    while (tile_height > 1 && gradients() + plane_size() > limit) tile_height = (tile_height + 1) / 2;
    across = divide_up(call.width, tile_width), down = divide_up(call.height, tile_height);
    int64_t fit = (limit - gradients()) / plane_size();
    if (fit > kThreads / per_plane) fit = kThreads / per_plane;
    if (fit > call.channels) fit = call.channels;
    planes = static_cast<int32_t>(fit < 1 ? 1 : fit);
    map_tiles = divide_up(call.channels, kMaps), plane_tiles = divide_up(call.channels, planes);
  }
  CDKD_INLINE int64_t blocks() const { return map_tiles * plane_tiles * rounds; }
  CDKD_INLINE int32_t plane_rows() const { return tile_height + kernel_rows - 1; }
  CDKD_INLINE int32_t plane_size() const { return plane_rows() * pitch; }
  CDKD_INLINE int32_t gradients() const { return tile_width * tile_height * kMaps; }
  CDKD_INLINE int64_t elements() const { return gradients() + static_cast<int64_t>(planes) * plane_size(); }
};

// Memory between the launches.
template <class T>
struct Workspace {
  T* squeezed;            // (B, d)
  T* hidden;              // (B, d), gradient
  T* scores;              // (B, K, C), gradient
  T* pooled;              // (B, C), gradient
  MapConstants<T>* maps;  // (M·C)
  T* feature;             // (M, B, C, h, w), gradient's parts; null if there is one or none is wanted
  T* weights;             // (splits, weights of all branches), gradient's parts
  int64_t weight_count, splits, bytes;

  explicit Workspace(const SauSelect& call) {
    weight_count = 0;
    int64_t blocks = 0;
    for (int branch = 0; branch < call.branches; ++branch) {
      weight_count += call.channels * call.channels * call.kernel[branch] * call.kernel[branch];
      blocks += GradientTiling(call, call.kernel[branch], sizeof(T)).blocks();
    }
    splits = std::max<int64_t>(1, std::min(divide_up(kEnoughBlocks, blocks), call.samples));
    const uintptr_t memory = reinterpret_cast<uintptr_t>(call.workspace);
    uintptr_t at = memory;
    const auto take = [&](int64_t count) {
      const uintptr_t from = at;
      at += static_cast<uintptr_t>(divide_up(count * static_cast<int64_t>(sizeof(T)), 16) * 16);
      return reinterpret_cast<T*>(from);
    };
    squeezed = take(call.samples * call.hidden);
    hidden = take(call.samples * call.hidden);
    scores = take(call.samples * call.projectors * call.channels);
    pooled = take(call.samples * call.channels);
    maps = reinterpret_cast<MapConstants<T>*>(take(call.branches * call.channels * 8));
    const bool parts = call.feature_gradient != nullptr && call.branches > 1;
    feature = parts ? take(call.branches * call.samples * call.channels * call.height * call.width) : nullptr;
    weights = take(splits * weight_count);
    bytes = static_cast<int64_t>(at - memory);
  }
};

// Blocks: samples. Back through softmax, select and squeeze, `span` hidden units at a time.
template <class T>
__global__ void __launch_bounds__(kThreads)
    sau_select_pooled_kernel(SauSelect call, Workspace<T> memory, int64_t span) {
  CDKD_DYNAMIC_SHARED(bytes);
  T* const pooled = reinterpret_cast<T*>(bytes);  // (C,)
  T* const squeezed = pooled + call.channels;     // (d,)
  T* const parts = squeezed + call.hidden;        // (warps, span)
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  constexpr int warps = kThreads / kWarp;
  const int64_t sample = blockIdx.x, width = call.projectors * call.channels;
  const T* const gradient = static_cast<const T*>(call.gradient) + sample * width;
  const T* const selection = static_cast<const T*>(call.selection) + sample * width;
  T* const scores = memory.scores + sample * width;
  for (int64_t c = thread; c < call.channels; c += kThreads) {
    pooled[c] = load(static_cast<const T*>(call.pooled) + sample * call.channels + c);
    T inner = 0;
    for (int64_t k = 0; k < call.projectors; ++k)
      inner += load(gradient + k * call.channels + c) * load(selection + k * call.channels + c);
    for (int64_t k = 0; k < call.projectors; ++k) {
      const int64_t i = k * call.channels + c;
      store(scores + i, load(selection + i) * (load(gradient + i) - inner));
    }
  }
  __syncthreads();
  squeeze(call, pooled, squeezed);
  const T* const weight = static_cast<const T*>(call.select_weight);
  for (int64_t first = 0; first < call.hidden; first += span) {
    const int64_t count = call.hidden - first < span ? call.hidden - first : span;
    for (int64_t j = lane; j < count; j += kWarp) {
      T sum = 0;
      for (int64_t i = warp; i < width; i += warps)
        sum += load_uniform(scores + i) * load(weight + i * call.hidden + first + j);
      parts[warp * span + j] = sum;
    }
    __syncthreads();
    for (int64_t j = thread; j < count; j += kThreads) {
      T sum = 0;
      for (int w = 0; w < warps; ++w) sum += parts[w * span + j];
      const T unit = squeezed[first + j];
      sum = unit <= T(0) ? T(0) : sum;
      store(memory.squeezed + sample * call.hidden + first + j, unit);
      store(memory.hidden + sample * call.hidden + first + j, sum);
      squeezed[first + j] = sum;  // the unit's gradient from here on
    }
    __syncthreads();
  }
  for (int64_t c = thread; c < call.channels; c += kThreads) {
    T sum = 0;
    for (int64_t j = 0; j < call.hidden; ++j)
      sum += squeezed[j] * load(static_cast<const T*>(call.squeeze_weight) + j * call.channels + c);
    store(memory.pooled + sample * call.channels + c, sum);
  }
}

// Σ over the batch of left(b) · right(b).
template <class T, class Left, class Right>
CDKD_DEVICE T batch_product(int64_t samples, const Left& left, const Right& right) {
  T sum = 0;
  for (int64_t b = 0; b < samples; ++b) sum += left(b) * right(b);
  return sum;
}

// A thread for each parameter beside the convolutions', and for each map.
template <class T>
__global__ void __launch_bounds__(kThreads)
    sau_select_parameters_kernel(SauSelect call, Workspace<T> memory) {
  const int64_t width = call.projectors * call.channels, maps = call.branches * call.channels;
  const int64_t hidden = call.hidden, channels = call.channels, samples = call.samples;
  int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const auto at = [](const T* matrix, int64_t columns, int64_t column) {
    return [=](int64_t b) { return load(matrix + b * columns + column); };
  };
  const auto one = [](int64_t) { return T(1); };
  if (i < width * hidden) {
    store(static_cast<T*>(call.select_weight_gradient) + i,
          batch_product<T>(samples, at(memory.scores, width, i / hidden),
                           at(memory.squeezed, hidden, i % hidden)));
    return;
  }
  i -= width * hidden;
  if (i < hidden * channels) {
    store(static_cast<T*>(call.squeeze_weight_gradient) + i,
          batch_product<T>(samples, at(memory.hidden, hidden, i / channels),
                           at(static_cast<const T*>(call.pooled), channels, i % channels)));
    return;
  }
  i -= hidden * channels;
  if (i < width) {
    store(static_cast<T*>(call.select_bias_gradient) + i,
          batch_product<T>(samples, at(memory.scores, width, i), one));
    return;
  }
  i -= width;
  if (i < hidden) {
    store(static_cast<T*>(call.squeeze_bias_gradient) + i,
          batch_product<T>(samples, at(memory.hidden, hidden, i), one));
    return;
  }
  i -= hidden;
  if (i >= maps) return;
  const T per_pixel = T(1) / static_cast<T>(call.height * call.width);
  const T* const passed = static_cast<const T*>(call.passed) + i * samples;
  const auto gradient = at(memory.pooled, channels, i % channels);
  const T bias = per_pixel * batch_product<T>(samples, gradient, at(passed, 1, 0));
  const T weight = per_pixel * batch_product<T>(samples, gradient, at(passed + maps * samples, 1, 0));
  store(static_cast<T*>(call.norm_bias_gradient) + i, bias);
  store(static_cast<T*>(call.norm_weight_gradient) + i, weight);
  MapConstants<T> constants{};
  constants.mean = load(static_cast<const T*>(call.mean) + i);
  constants.inverse = T(1) / sqrt(load(static_cast<const T*>(call.variance) + i) + static_cast<T>(call.eps));
  constants.weight = load(static_cast<const T*>(call.norm_weight) + i);
  constants.bias = load(static_cast<const T*>(call.norm_bias) + i);
  constants.scale = constants.weight * constants.inverse;
  const T count = static_cast<T>(samples * call.height * call.width);
  constants.mean_g = call.training ? bias / count : T(0);
  constants.mean_gx = call.training ? weight / count : T(0);
  store(memory.maps + i, constants);
}

template <class T>
CDKD_DEVICE T response_gradient(const MapConstants<T>& map, T response, T gradient) {
  const T x = (response - map.mean) * map.inverse;
  const T passing = x * map.weight + map.bias <= T(0) ? T(0) : gradient;
  return map.scale * (passing - map.mean_g - x * map.mean_gx);
}

// Blocks of 64 threads: tiles of pixels, then of channels, then branches: the branch's part of the feature's
// gradient.
template <class In>
__global__ void __launch_bounds__(kTileThreads, 4)  // few blocks at least, or the compiler spills for more
    sau_select_feature_kernel(SauSelect call, Tiling tiling, Workspace<Accumulate<In>> memory) {
  using T = Accumulate<In>;
  CDKD_DYNAMIC_SHARED(bytes);
  const int64_t tiles = tiling.tiles(), channel_tiles = divide_up(call.channels, kMaps);
  const int64_t tile = blockIdx.x % tiles, first_channel = blockIdx.x / tiles % channel_tiles * kMaps;
  const int branch = call.branches - 1 - static_cast<int>(blockIdx.x / tiles / channel_tiles);
  const int32_t kernel = call.kernel[branch], taps = kernel * kernel;
  const In* const weight = static_cast<const In*>(call.conv_weight[branch]);
  const T* const responses = static_cast<const T*>(call.responses);
  const T per_pixel = T(1) / static_cast<T>(call.height * call.width);
  const Pixels pixels(tiling, tile);
  T sums[kPixels][kMaps] = {};
  convolve<T>(
      call, tiling, pixels, kernel, call.channels, first_channel, call.channels, reinterpret_cast<T*>(bytes),
      [&](int64_t sample, int64_t map, int64_t y, int64_t x) -> T {
        const int64_t at = (sample * call.branches + branch) * call.channels + map;
        return response_gradient(load(memory.maps + branch * call.channels + map),
                                 load(responses + (at * call.height + y) * call.width + x),
                                 per_pixel * load(memory.pooled + sample * call.channels + map));
      },
      [&](int64_t channel, int64_t map, int tap) -> T {
        return widen(load(weight + (map * call.channels + channel) * taps + taps - 1 - tap));
      },
      sums);
  T* const to = memory.feature != nullptr
                    ? memory.feature + branch * call.samples * call.channels * call.height * call.width
                    : static_cast<T*>(call.feature_gradient);
  CDKD_UNROLL
  for (int i = 0; i < kPixels; ++i) {
    if (!pixels.exists(call, i)) continue;
    CDKD_UNROLL
    for (int o = 0; o < kMaps; ++o) {
      if (first_channel + o >= call.channels) break;
      const int64_t plane = pixels.sample() * call.channels + first_channel + o;
      store(to + (plane * call.height + pixels.row(i)) * call.width + pixels.x(), sums[i][o]);
    }
  }
}

// Blocks: of the branches one after the other, tiles of maps, then of channels, then rounds; times splits of
// the batch.
template <class In>
__global__ void __launch_bounds__(kThreads)
    sau_select_weight_kernel(SauSelect call, Workspace<Accumulate<In>> memory) {
  using T = Accumulate<In>;
  CDKD_DYNAMIC_SHARED(bytes);
  const int thread = static_cast<int>(threadIdx.x);
  int64_t block = blockIdx.x / memory.splits, offset = 0;
  const int64_t split = blockIdx.x % memory.splits;
  int branch = 0;
  for (;; ++branch) {
    const int64_t blocks = GradientTiling(call, call.kernel[branch], sizeof(T)).blocks();
    if (block < blocks) break;
    block -= blocks;
    offset += call.channels * call.channels * call.kernel[branch] * call.kernel[branch];
  }
  const int32_t kernel = call.kernel[branch], quads = (kernel + 3) / 4, padding = kernel / 2;
  const GradientTiling tiling(call, kernel, sizeof(T));
  const int64_t first_map = block % tiling.map_tiles * kMaps;
  const int64_t first_channel = block / tiling.map_tiles % tiling.plane_tiles * tiling.planes;
  const int round = static_cast<int>(block / tiling.map_tiles / tiling.plane_tiles) * kThreads;
  const int channels = static_cast<int>(
      call.channels - first_channel < tiling.planes ? call.channels - first_channel : tiling.planes);
  const int first_ky = tiling.rounds == 1 ? 0 : round / quads;
  const int job = round + thread, plane = job / tiling.per_plane, ky = job % tiling.per_plane / quads;
  const int first_kx = job % quads * 4;
  const bool used = plane < channels;
  const int pixels = tiling.tile_width * tiling.tile_height, plane_size = tiling.plane_size();
  T* const gradients = reinterpret_cast<T*>(bytes);  // (pixels, maps)
  T* const planes = gradients + pixels * kMaps;
  const In* const feature = static_cast<const In*>(call.feature);
  const T* const responses = static_cast<const T*>(call.responses);
  const MapConstants<T>* const constants = memory.maps + branch * call.channels;
  const T per_pixel = T(1) / static_cast<T>(call.height * call.width);

  T sums[4][kMaps] = {};
  for (int64_t sample = split * call.samples / memory.splits;
       sample < (split + 1) * call.samples / memory.splits; ++sample) {
    for (int64_t tile = 0; tile < tiling.across * tiling.down; ++tile) {
      const int64_t first_x = tile % tiling.across * tiling.tile_width;
      const int64_t first_y = tile / tiling.across * tiling.tile_height;
      __syncthreads();  // what was there has been used
      for (int i = thread; i < pixels * kMaps; i += kThreads) {
        const int pixel = i % pixels, o = i / pixels;
        const int64_t y = first_y + pixel / tiling.tile_width, x = first_x + pixel % tiling.tile_width;
        const int64_t map = first_map + o;
        T value = 0;
        if (map < call.channels && y < call.height && x < call.width) {
          const int64_t at = (sample * call.branches + branch) * call.channels + map;
          value = response_gradient(load(constants + map),
                                    load(responses + (at * call.height + y) * call.width + x),
                                    per_pixel * load(memory.pooled + sample * call.channels + map));
        }
        gradients[pixel * kMaps + o] = value;
      }
      for (int i = thread; i < channels * plane_size; i += kThreads) {
        const int column = i % tiling.pitch, row = i / tiling.pitch % tiling.plane_rows();
        const int64_t channel = first_channel + i / plane_size;
        const int64_t y = first_y + row + first_ky - padding, x = first_x + column - padding;
        const bool inside = y >= 0 && y < call.height && x >= 0 && x < call.width;
        planes[i] =
            inside ? static_cast<T>(widen(load(
                         feature + ((sample * call.channels + channel) * call.height + y) * call.width + x)))
                   : T(0);
      }
      __syncthreads();
      if (!used) continue;
      for (int row = 0; row < tiling.tile_height; ++row) {
        const T* from = planes + plane * plane_size + (row + ky - first_ky) * tiling.pitch + first_kx;
        const T* gradient = gradients + row * tiling.tile_width * kMaps;
        T window[4] = {T(0), from[0], from[1], from[2]};
        from += 3;
        for (int x = 0; x < tiling.tile_width; ++x) {
          T factors[kMaps];
          read_eight(gradient + x * kMaps, factors);
          CDKD_UNROLL
          for (int i = 0; i < 3; ++i) window[i] = window[i + 1];
          window[3] = from[x];
          CDKD_UNROLL
          for (int i = 0; i < 4; ++i) CDKD_UNROLL
          for (int o = 0; o < kMaps; ++o) sums[i][o] += window[i] * factors[o];
        }
      }
    }
  }
  if (!used) return;
  T* const to = memory.weights + split * memory.weight_count + offset;
  CDKD_UNROLL
  for (int i = 0; i < 4; ++i) CDKD_UNROLL
  for (int o = 0; o < kMaps; ++o)
    if (first_kx + i < kernel && first_map + o < call.channels)
      store(to + (((first_map + o) * call.channels + first_channel + plane) * kernel + ky) * kernel +
                first_kx + i,
            sums[i][o]);
}

// Add the parts: a thread for each weight, then for each element of the feature's gradient if it is in parts.
template <class T>
__global__ void __launch_bounds__(kThreads) sau_select_sum_kernel(SauSelect call, Workspace<T> memory) {
  int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  T sum = 0;
  if (i < memory.weight_count) {
    for (int64_t split = 0; split < memory.splits; ++split)
      sum += load(memory.weights + split * memory.weight_count + i);
    for (int branch = 0; branch < call.branches; ++branch) {
      const int64_t count = call.channels * call.channels * call.kernel[branch] * call.kernel[branch];
      if (i < count) {
        store(static_cast<T*>(call.conv_gradient[branch]) + i, sum);
        return;
      }
      i -= count;
    }
    return;
  }
  i -= memory.weight_count;
  const int64_t count = call.samples * call.channels * call.height * call.width;
  if (memory.feature == nullptr || i >= count) return;
  for (int branch = 0; branch < call.branches; ++branch) sum += load(memory.feature + branch * count + i);
  store(static_cast<T*>(call.feature_gradient) + i, sum);
}

template <class In>
cudaError_t launch_backward(const SauSelect& call, cudaStream_t stream) {
  using T = Accumulate<In>;
  const Workspace<T> memory(call);
  const int64_t width = call.projectors * call.channels, maps = call.branches * call.channels;
  const int64_t head = call.channels + call.hidden, warps = kThreads / kWarp;
  const int64_t free = kSharedLimit / static_cast<int64_t>(sizeof(T)) - head;
  const int64_t span = std::max<int64_t>(1, std::min(call.hidden, free / warps));
  CDKD_LAUNCH("sau_select_pooled", (&sau_select_pooled_kernel<T>), dim3(static_cast<unsigned>(call.samples)),
              dim3(kThreads), static_cast<size_t>(head + warps * span) * sizeof(T), stream, call, memory,
              span);
  const int64_t parameters = (width + 1) * call.hidden + call.hidden * call.channels + width + maps;
  CDKD_LAUNCH("sau_select_parameters", (&sau_select_parameters_kernel<T>),
              dim3(static_cast<unsigned>(divide_up(parameters, kThreads))), dim3(kThreads), 0, stream, call,
              memory);

  const Tiling tiling = sharing_tiling<T>(call);
  int64_t feature_elements = 0, weight_elements = 0, weight_blocks = 0;
  for (int branch = 0; branch < call.branches; ++branch) {
    const int32_t kernel = call.kernel[branch];
    const Staging staging(tiling, kernel, call.channels, 1, sizeof(T));
    feature_elements = std::max(feature_elements, staging.elements(tiling, kernel, 1));
    const GradientTiling gradient_tiling(call, kernel, sizeof(T));
    weight_elements = std::max(weight_elements, gradient_tiling.elements());
    weight_blocks += gradient_tiling.blocks();
  }
  if (call.feature_gradient != nullptr) {
    const int64_t blocks = tiling.tiles() * divide_up(call.channels, kMaps) * call.branches;
    CDKD_LAUNCH("sau_select_feature", (&sau_select_feature_kernel<In>), dim3(static_cast<unsigned>(blocks)),
                dim3(kTileThreads), static_cast<size_t>(feature_elements) * sizeof(T), stream, call, tiling,
                memory);
  }
  CDKD_LAUNCH("sau_select_weight", (&sau_select_weight_kernel<In>),
              dim3(static_cast<unsigned>(weight_blocks * memory.splits)), dim3(kThreads),
              static_cast<size_t>(weight_elements) * sizeof(T), stream, call, memory);
  const int64_t sums =
      memory.weight_count +
      (memory.feature != nullptr ? call.samples * call.channels * call.height * call.width : 0);
  CDKD_LAUNCH("sau_select_sum", (&sau_select_sum_kernel<T>),
              dim3(static_cast<unsigned>(divide_up(sums, kThreads))), dim3(kThreads), 0, stream, call,
              memory);
  return cudaSuccess;
}

}  // namespace
}  // namespace sau

int64_t sau_select_backward_workspace(const SauSelect& call) {
  if (call.samples == 0) return 0;
  return call.wide() ? sau::Workspace<double>(call).bytes : sau::Workspace<float>(call).bytes;
}

cudaError_t launch_sau_select_backward(const SauSelect& call, cudaStream_t stream) {
  if (call.samples == 0) return cudaSuccess;
  return sau::with_input_type(call.format,
                              [&](auto type) { return sau::launch_backward<decltype(type)>(call, stream); });
}

}  // namespace cdkd::cuda
