// The convolution, forward and back to its input: a block computes one tile of pixels of eight
// maps per 64 threads. Each thread owns four pixels below one another, whose window slides down its column of
// the tile in registers, so that a tap costs one read of the tile and the weights, which all threads share.
#pragma once
#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "cuda/launch.h"
#include "cuda/memory.h"
#include "cuda/reduce.h"
#include "kernels.h"

namespace cdkd::cuda::sau {

template <class In>
using Accumulate = std::conditional_t<std::is_same_v<In, double>, double, float>;

constexpr int kTileThreads = 64;
constexpr int kMaps = 8;  // of a thread
constexpr int kPixels = 4;

CDKD_INLINE constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Columns of a staged row: two strips, half a warp each, fall on different banks.
CDKD_INLINE constexpr int32_t pitch_for(int32_t width, int32_t kernel) {
  return (width + kernel - 1 + 3) / 8 * 8 + 4;
}

inline int32_t largest_kernel(const SauSelect& call) {
  return *std::max_element(call.kernel, call.kernel + call.branches);
}

// Elements of the smallest stage: one strip, and the weights of one row of the kernel.
inline int64_t smallest_stage(const SauSelect& call, int32_t sets) {
  const int32_t kernel = largest_kernel(call);
  return kPixels * pitch_for(static_cast<int32_t>(std::min<int64_t>(call.width, 16)), kernel) +
         kernel * kMaps * sets;
}

// Tiles of pixels: `width` x (4 · strips) pixels of `samples` samples; maps smaller than a tile share one.
// With `free` elements of shared memory one channel of a tile fits, beside one row of the largest kernel's
// weights.
struct Tiling {
  int32_t width, strips, samples, free;
  int64_t across, down, groups;

  Tiling(const SauSelect& call, bool share, int32_t sets, int64_t free_elements) {
    free = static_cast<int32_t>(free_elements);
    across = divide_up(call.width, 16);
    width = static_cast<int32_t>(divide_up(call.width, across));
    const int32_t kernel = largest_kernel(call);
    const int64_t fit = std::max<int64_t>(
        1, (free_elements - kernel * kMaps * sets) / (kPixels * pitch_for(width, kernel)));  // strips
    const int64_t all_strips = divide_up(call.height, kPixels);
    down = divide_up(all_strips, std::min<int64_t>(kTileThreads / width, fit));
    strips = static_cast<int32_t>(divide_up(all_strips, down));
    const int64_t sharing = std::min<int64_t>(kTileThreads / (width * strips), fit / strips);
    samples = share && across * down == 1 ? static_cast<int32_t>(std::min(sharing, call.samples)) : 1;
    groups = divide_up(call.samples, samples);
  }

  CDKD_INLINE int64_t tiles() const { return groups * down * across; }
};

// Of a kernel that has all of a block's shared memory for its stage, and one set of eight maps.
template <class T>
Tiling sharing_tiling(const SauSelect& call) {
  return Tiling(call, true, 1, kSharedLimit / static_cast<int64_t>(sizeof(T)));
}

// Where a thread's pixels are.
struct Pixels {
  int32_t lane_sample, strip, column;  // in the tile
  int64_t first_sample, first_row, first_column;
  bool used;

  CDKD_DEVICE Pixels(const Tiling& tiling, int64_t tile) {
    const int thread = static_cast<int>(threadIdx.x) % kTileThreads;
    column = thread % tiling.width;
    strip = thread / tiling.width % tiling.strips;
    lane_sample = thread / tiling.width / tiling.strips;
    used = lane_sample < tiling.samples;
    first_column = tile % tiling.across * tiling.width;
    first_row = tile / tiling.across % tiling.down * tiling.strips * kPixels;
    first_sample = tile / tiling.across / tiling.down * tiling.samples;
  }
  CDKD_DEVICE int64_t sample() const { return first_sample + lane_sample; }
  CDKD_DEVICE int64_t row(int i) const { return first_row + strip * kPixels + i; }
  CDKD_DEVICE int64_t x() const { return first_column + column; }
  CDKD_DEVICE bool exists(const SauSelect& call, int i) const {
    return used && sample() < call.samples && row(i) < call.height && x() < call.width;
  }
};

// How much of a convolution's input is in shared memory at a time: `channels` channels and `band` rows of the
// kernel.
struct Staging {
  int32_t band, channels, rows, pitch;

  CDKD_INLINE Staging(const Tiling& tiling, int32_t kernel, int64_t inputs, int32_t weight_sets,
                      int32_t element) {
    const int32_t most = 24 * 1024 / element;  // elements
    const int32_t budget = most < tiling.free ? most : tiling.free;
    const int32_t per_row = kernel * kMaps * weight_sets;
    band = budget / 2 / per_row;
    band = band < 1 ? 1 : band > kernel ? kernel : band;
    pitch = pitch_for(tiling.width, kernel);
    const auto per_channel = [&] { return tiling.samples * row_count(tiling) * pitch + band * per_row; };
    while (band > 1 && per_channel() > tiling.free) --band;
    rows = row_count(tiling);
    const int64_t fit = budget / per_channel();
    channels = static_cast<int32_t>(fit < 1 ? 1 : fit > inputs ? inputs : fit);
  }
  CDKD_INLINE int32_t row_count(const Tiling& tiling) const { return tiling.strips * kPixels + band - 1; }
  CDKD_INLINE int32_t plane(const Tiling& tiling) const { return tiling.samples * rows * pitch; }
  CDKD_INLINE int64_t elements(const Tiling& tiling, int32_t kernel, int32_t weight_sets) const {
    return static_cast<int64_t>(channels) * (plane(tiling) + band * kernel * kMaps * weight_sets);
  }
};

template <class T>
CDKD_DEVICE void read_eight(const T* from, T (&to)[8]) {
  CDKD_UNROLL
  for (int v = 0; v < 8 / Vector<T>::kSize; ++v) {
    const Vector<T> vector = reinterpret_cast<const Vector<T>*>(from)[v];
    CDKD_UNROLL
    for (int e = 0; e < Vector<T>::kSize; ++e) to[v * Vector<T>::kSize + e] = vector.at[e];
  }
}

// sums += the convolution with zero padding at this thread's pixels, for eight maps from `first_map` on.
// input(sample, channel, y, x): inside the map; weight(map, channel, tap): tap = ky · kernel + kx. All
// threads of the block call this together, with maps of their own for each 64 of them.
template <class T, class Input, class Weight>
CDKD_DEVICE void convolve(const SauSelect& call, const Tiling& tiling, const Pixels& pixels, int32_t kernel,
                          int64_t inputs, int64_t first_map, int64_t maps, T* shared, const Input& input,
                          const Weight& weight, T (&sums)[kPixels][kMaps]) {
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int sets = threads / kTileThreads, width = sets * kMaps, own = thread / kTileThreads * kMaps;
  const Staging staging(tiling, kernel, inputs, sets, sizeof(T));
  const int plane = staging.plane(tiling), pitch = staging.pitch, padding = kernel / 2;
  T* const weights = shared;  // first, for its vectors
  T* const planes = shared + staging.channels * staging.band * kernel * width;
  for (int64_t channel = 0; channel < inputs; channel += staging.channels) {
    const int channels =
        static_cast<int>(inputs - channel < staging.channels ? inputs - channel : staging.channels);
    for (int first_ky = 0; first_ky < kernel; first_ky += staging.band) {
      const int band = kernel - first_ky < staging.band ? kernel - first_ky : staging.band;
      const int taps = band * kernel;
      __syncthreads();  // what was there has been used
      for (int i = thread; i < channels * plane; i += threads) {
        const int column = i % pitch, row = i / pitch % staging.rows,
                  n = i / pitch / staging.rows % tiling.samples;
        const int64_t y = pixels.first_row + row + first_ky - padding,
                      x = pixels.first_column + column - padding;
        const int64_t sample = pixels.first_sample + n;
        const bool inside = y >= 0 && y < call.height && x >= 0 && x < call.width && sample < call.samples;
        planes[i] = inside ? input(sample, channel + i / plane, y, x) : T(0);
      }
      for (int i = thread; i < width * channels * taps; i += threads) {
        const int tap = i % taps, c = i / taps % channels, map = i / taps / channels;
        weights[(c * taps + tap) * width + map] =
            first_map + map < maps ? weight(first_map + map, channel + c, first_ky * kernel + tap) : T(0);
      }
      __syncthreads();
      if (!pixels.used) continue;
      for (int c = 0; c < channels; ++c) {
        const T* const top = planes + c * plane +
                             (pixels.lane_sample * staging.rows + pixels.strip * kPixels) * pitch +
                             pixels.column;
        const T* const tap_weights = weights + c * taps * width + own;
        for (int kx = 0; kx < kernel; ++kx) {
          const T* column = top + kx;
          T window[kPixels] = {T(0), column[0], column[pitch], column[2 * pitch]};
          column += 3 * pitch;
          for (int ky = 0; ky < band; ++ky, column += pitch) {
            T factors[kMaps];
            read_eight(tap_weights + (ky * kernel + kx) * width, factors);
            CDKD_UNROLL
            for (int i = 0; i + 1 < kPixels; ++i) window[i] = window[i + 1];
            window[kPixels - 1] = column[0];
            CDKD_UNROLL
            for (int i = 0; i < kPixels; ++i) CDKD_UNROLL
            for (int o = 0; o < kMaps; ++o) sums[i][o] += window[i] * factors[o];
          }
        }
      }
    }
  }
}

// Call f(In{}) with the type of the elements; returns its error.
template <class F>
cudaError_t with_input_type(Format format, F f) {
  switch (format) {
    case Format::kFloat64:
      return f(double{});
    case Format::kFloat32:
      return f(float{});
    case Format::kBFloat16:
      return f(BFloat16{});
    case Format::kFloat16:
      return f(Float16{});
  }
  return cudaSuccess;  // there are no other formats
}

}  // namespace cdkd::cuda::sau
