// Convolutions for few channels, forward and backward. Vectors run over the samples: a vector of one pixel of
// 16 samples wastes no lane whatever the number of channels and the width of the map, and taps outside the
// map are never computed. The weight's gradient, a sum over the samples, runs its vectors over neighbouring
// (column, channel) pairs instead.
#pragma once
#include "cpu/aligned_buffer.h"
#include "cpu/tile.h"
#include "cpu/widen.h"

namespace cdkd::cpu::sau {

constexpr int64_t kChannelBlock =
    32;                           // channels summed before the sums are written: their window stays in cache
constexpr int kGradientRows = 6;  // output channels of a register tile of the weight's gradient

// Samples side by side: one cache line.
template <class T>
constexpr int64_t kLanes = 64 / static_cast<int64_t>(sizeof(T));

template <class T>
constexpr int64_t groups_of(int64_t samples) {
  return divide_up(samples, kLanes<T>);
}

struct Shape {
  int64_t samples, channels, height, width, branches;
  CDKD_INLINE int64_t pixels() const { return height * width; }
  // Pixels of one plane that ConvolveRow reads, a cache line each, some of them unused: planes a power of two
  // apart would push each other out of the cache.
  CDKD_INLINE int64_t spaced_pixels() const { return round_up(pixels(), 8) + 9; }
  CDKD_INLINE int64_t maps() const { return branches * channels; }
};

// Output channels of one register tile of the forward convolution: 12 sums of one cache line's vectors at
// most.
template <int bytes>
constexpr int kTileRows = bytes * 12 / 64;

// Output channels are divided into tiles of nearly equal height, so that 17 is 6 + 6 + 5.
struct Tiles {
  int64_t channels, count;
  CDKD_INLINE Tiles(int64_t channels_, int64_t most)
      : channels(channels_), count(divide_up(channels_, most)) {}
  CDKD_INLINE int64_t first(int64_t tile) const { return tile * channels / count; }
  CDKD_INLINE int64_t rows(int64_t tile) const { return first(tile + 1) - first(tile); }
};

// Calls Body::run<rows>(args...) for the given number of rows, 1 … most.
template <class Body, int most, class... Args>
CDKD_INLINE void with_rows(int64_t rows, const Args&... args) {
  if (rows == most) {
    Body::template run<most>(args...);
  } else if constexpr (most > 1) {
    with_rows<Body, most - 1>(rows, args...);
  }
}

// to[channel][spaced pixel][lane] for one group of samples of from (B, channels, pixels), zeros in lanes
// without a sample.
struct PackLanes {
  template <int bytes, class T, class In>
  CDKD_INLINE static void run(const Shape& s, const In* from, int64_t group, T* to) {
    const int64_t pixels = s.pixels();
    for (int64_t c = 0; c < s.channels; ++c)
      for (int64_t lane = 0; lane < kLanes<T>; ++lane) {
        T* plane = to + c * s.spaced_pixels() * kLanes<T> + lane;
        const int64_t sample = group * kLanes<T> + lane;
        if (sample < s.samples) {
          const In* source = from + (sample * s.channels + c) * pixels;
          for (int64_t i = 0; i < pixels; ++i) plane[i * kLanes<T>] = widen(source[i]);
        } else {
          for (int64_t i = 0; i < pixels; ++i) plane[i * kLanes<T>] = 0;
        }
      }
  }
};

// Weights in the order in which a tile reads them: [block of input channels][tile][input][ky][kx][row of the
// tile]. For the backward pass inputs and outputs change places and the kernel is turned by 180 degrees.
struct PackWeights {
  template <int bytes, class T, class In>
  CDKD_INLINE static void run(int64_t channels, int64_t kernel, const In* from, bool backward, T* to) {
    const Tiles tiles(channels, kTileRows<bytes>);
    const int64_t taps = kernel * kernel;
    for (int64_t block = 0; block < channels; block += kChannelBlock)
      for (int64_t tile = 0; tile < tiles.count; ++tile)
        for (int64_t in = block; in < channels && in < block + kChannelBlock; ++in)
          for (int64_t tap = 0; tap < taps; ++tap)
            for (int64_t i = 0; i < tiles.rows(tile); ++i) {
              const int64_t out = tiles.first(tile) + i;
              *to++ = backward ? widen(from[(in * channels + out) * taps + taps - 1 - tap])
                               : widen(from[(out * channels + in) * taps + tap]);
            }
  }
};

// One row of a convolution for one group of samples: from[channel][spaced pixel][lane], written to
// to[channel][pixel][lane] or added to it.
struct ConvolveRow {
  template <int bytes, class T>
  CDKD_INLINE static void run(const Shape& s, int64_t kernel, const T* from, const T* weight, int64_t y,
                              bool add, T* to) {
    const Tiles tiles(s.channels, kTileRows<bytes>);
    const int64_t taps = kernel * kernel;
    for (int64_t block = 0; block < s.channels; block += kChannelBlock) {
      const int64_t inputs = s.channels - block < kChannelBlock ? s.channels - block : kChannelBlock;
      for (int64_t tile = 0; tile < tiles.count; ++tile) {
        with_rows<Pixels<bytes>, kTileRows<bytes>>(
            tiles.rows(tile), s, kernel, from + block * s.spaced_pixels() * kLanes<T>, inputs, weight, y,
            add || block > 0, to + tiles.first(tile) * s.pixels() * kLanes<T>);
        weight += tiles.rows(tile) * inputs * taps;
      }
    }
  }

  template <int bytes>
  struct Pixels {
    template <int rows, class T>
    CDKD_INLINE static void run(const Shape& s, int64_t kernel, const T* from, int64_t inputs,
                                const T* weight, int64_t y, bool add, T* to) {
      constexpr int64_t lanes = kLanes<T>;
      const int64_t padding = kernel / 2, plane = s.pixels() * lanes, from_plane = s.spaced_pixels() * lanes;
      const int64_t top = y < padding ? padding - y : 0;
      const int64_t bottom = s.height + padding - y < kernel ? s.height + padding - y : kernel;
      for (int64_t x = 0; x < s.width; ++x) {
        const int64_t left = x < padding ? padding - x : 0;
        const int64_t right = s.width + padding - x < kernel ? s.width + padding - x : kernel;
        const T* window = from + ((y + top - padding) * s.width + x + left - padding) * lanes;
        const T* taps = weight + (top * kernel + left) * rows;
        T* pixel = to + (y * s.width + x) * lanes;
        Tile<T, bytes, rows, 64 / bytes> tile;
        if (add) {
          tile.read(pixel, plane);
        } else {
          tile.zero();
        }
        for (int64_t c = 0; c < inputs; ++c, window += from_plane, taps += kernel * kernel * rows)
          for (int64_t ky = 0; ky < bottom - top; ++ky)
            tile.add(taps + ky * kernel * rows, rows, window + ky * s.width * lanes, lanes, right - left);
        tile.write(pixel, plane);
      }
    }
  };
};

// Responses of one map (a branch's output channel) to statistics. All arrays are of one map; the groups of
// samples lie `group_stride` apart.
struct Normalise {
  // Mean and biased variance over samples and pixels.
  template <int bytes, class T>
  CDKD_INLINE static void run(const Shape& s, const T* responses, int64_t group_stride, T* mean,
                              T* variance) {
    const double count = static_cast<double>(s.samples * s.pixels());
    const double average = sum_of(s, responses, group_stride, Plain<T>{}) / count;
    *mean = static_cast<T>(average);
    *variance =
        static_cast<T>(sum_of(s, responses, group_stride, Squared<T>{static_cast<T>(average)}) / count);
  }

  template <class T>
  struct Plain {
    CDKD_INLINE T operator()(T x) const { return x; }
  };
  template <class T>
  struct Squared {
    T mean;
    CDKD_INLINE T operator()(T x) const { return (x - mean) * (x - mean); }
  };

  template <class T, class F>
  CDKD_INLINE static double sum_of(const Shape& s, const T* responses, int64_t group_stride, F f) {
    double total = 0;
    for (int64_t first = 0; first < s.samples; first += kLanes<T>, responses += group_stride) {
      double lanes[kLanes<T>] = {};
      for (int64_t y = 0; y < s.height; ++y) {
        T row[kLanes<T>] = {};  // one row at a time: short sums lose nothing in float
        for (int64_t x = 0; x < s.width; ++x)
          for (int64_t lane = 0; lane < kLanes<T>; ++lane)
            row[lane] += f(responses[(y * s.width + x) * kLanes<T> + lane]);
        for (int64_t lane = 0; lane < kLanes<T>; ++lane) lanes[lane] += static_cast<double>(row[lane]);
      }
      for (int64_t lane = 0; lane < kLanes<T> && first + lane < s.samples; ++lane) total += lanes[lane];
    }
    return total;
  }
};

// Per sample of one map: how many pixels pass the ReLU, the sum of their normalised responses x, and the sum
// of the activations weight · x + bias.
struct Activate {
  template <int bytes, class T>
  CDKD_INLINE static void run(const Shape& s, const T* responses, int64_t group_stride, T mean, T inverse,
                              T weight, T bias, T* passed, T* passed_sum, T* activation_sum) {
    using V = Vector<T, bytes>;
    constexpr int64_t lanes = kLanes<T>, width = VectorOf<T, bytes>::lanes, vectors = lanes / width;
    const V nothing = {};
    for (int64_t first = 0; first < s.samples; first += lanes, responses += group_stride) {
      V count[vectors] = {}, sum[vectors] = {}, activation[vectors] = {};
      for (int64_t i = 0; i < s.pixels(); ++i)
        for (int64_t j = 0; j < vectors; ++j) {
          V x;
          load(x, responses + i * lanes + j * width);
          x = (x - mean) * inverse;
          const V value = x * weight + bias;
          const auto stopped = value <= 0;  // not for a NaN
          count[j] += stopped ? nothing : nothing + T(1);
          sum[j] += stopped ? nothing : x;
          activation[j] += stopped ? nothing : value;
        }
      for (int64_t lane = 0; lane < lanes && first + lane < s.samples; ++lane) {
        passed[first + lane] = count[lane / width][lane % width];
        passed_sum[first + lane] = sum[lane / width][lane % width];
        activation_sum[first + lane] = activation[lane / width][lane % width];
      }
    }
  }
};

// Gradient of one map's responses for one group of samples: scale · (g - mean_g - x · mean_gx), where g is
// the sample's gradient where the ReLU passes and x the normalised response.
struct ResponseGradient {
  template <int bytes, class T>
  CDKD_INLINE static void run(int64_t pixels, const T* responses, T mean, T inverse, T weight, T bias,
                              const T* gradient, T scale, T mean_g, T mean_gx, T* to) {
    constexpr int64_t lanes = kLanes<T>;
    for (int64_t i = 0; i < pixels; ++i)
      for (int64_t lane = 0; lane < lanes; ++lane) {
        const T x = (responses[i * lanes + lane] - mean) * inverse;
        const T g = x * weight + bias <= 0 ? T(0) : gradient[lane];
        to[i * lanes + lane] = scale * (g - mean_g - x * mean_gx);
      }
  }
};

// One group's gradients from[map][pixel][lane] in the order in which WeightGradient reads them, for the
// pixels of row y: to[branch][tile of output channels][sample][pixel][row of the tile].
struct GradientPanels {
  template <int bytes, class T>
  CDKD_INLINE static void run(const Shape& s, const T* from, int64_t from_plane, int64_t group, int64_t y,
                              T* to) {
    constexpr int64_t lanes = kLanes<T>;
    const Tiles tiles(s.channels, kGradientRows);
    const int64_t samples = s.samples - group * lanes < lanes ? s.samples - group * lanes : lanes;
    for (int64_t m = 0; m < s.branches; ++m)
      for (int64_t tile = 0; tile < tiles.count; ++tile)
        with_rows<Copy, kGradientRows>(
            tiles.rows(tile), s,
            from + (m * s.channels + tiles.first(tile)) * from_plane + y * s.width * lanes, from_plane,
            samples,
            to + start(s, m, tiles.first(tile)) +
                (group * lanes * s.pixels() + y * s.width) * tiles.rows(tile));
  }

  // of a tile's panel
  CDKD_INLINE static int64_t start(const Shape& s, int64_t branch, int64_t first) {
    return (branch * s.channels + first) * s.samples * s.pixels();
  }

  struct Copy {
    template <int rows, class T>
    CDKD_INLINE static void run(const Shape& s, const T* from, int64_t from_plane, int64_t samples, T* to) {
      for (int64_t x = 0; x < s.width; ++x) {
        T block[rows][kLanes<T>];
        for (int64_t i = 0; i < rows; ++i)
          __builtin_memcpy(block[i], from + i * from_plane + x * kLanes<T>, sizeof(block[i]));
        for (int64_t lane = 0; lane < samples; ++lane)
          for (int64_t i = 0; i < rows; ++i) to[(lane * s.pixels() + x) * rows + i] = block[i][lane];
      }
    }
  };
};

// to[y][margin + x][channel] of one sample of from (B, C, h, w), zeros in the margins left and right.
struct PackPixels {
  template <int bytes, class T, class In>
  CDKD_INLINE static void run(const Shape& s, const In* from, int64_t margin, T* to) {
    const int64_t padded = s.width + 2 * margin;
    for (int64_t i = 0; i < s.height * padded * s.channels; ++i) to[i] = 0;
    for (int64_t y = 0; y < s.height; ++y)
      for (int64_t x = 0; x < s.width; ++x)
        for (int64_t c = 0; c < s.channels; ++c)
          to[(y * padded + margin + x) * s.channels + c] = widen(from[(c * s.height + y) * s.width + x]);
  }
};

// Gradient of the weights of one branch for one kernel row and one tile of output channels. features:
// PackPixels, with room for one register tile behind it; gradient: GradientPanels; sums: kGradientRows x
// columns of memory.
struct WeightGradient {
  template <int bytes, class T>
  CDKD_INLINE static void run(const Shape& s, int64_t branch, int64_t kernel, int64_t ky, int64_t tile,
                              const T* features, int64_t margin, const T* gradient, T* sums, T* to) {
    const Tiles tiles(s.channels, kGradientRows);
    with_rows<Samples<bytes>, kGradientRows>(tiles.rows(tile), s, kernel, ky, features, margin,
                                             gradient + GradientPanels::start(s, branch, tiles.first(tile)),
                                             sums);
    const int64_t columns = columns_of(kernel, s.channels);
    for (int64_t i = 0; i < tiles.rows(tile); ++i)
      for (int64_t c = 0; c < s.channels; ++c)
        for (int64_t kx = 0; kx < kernel; ++kx)
          to[(((tiles.first(tile) + i) * s.channels + c) * kernel + ky) * kernel + kx] =
              sums[i * columns + kx * s.channels + c];
  }

  CDKD_INLINE static int64_t columns_of(int64_t kernel, int64_t channels) {
    return round_up(kernel * channels, 32);
  }

  template <int bytes>
  struct Samples {
    template <int rows, class T>
    CDKD_INLINE static void run(const Shape& s, int64_t kernel, int64_t ky, const T* features, int64_t margin,
                                const T* gradient, T* sums) {
      constexpr int64_t wide = 2 * VectorOf<T, bytes>::lanes;
      const int64_t columns = columns_of(kernel, s.channels), padding = kernel / 2;
      const int64_t padded = s.width + 2 * margin;
      const int64_t first = ky < padding ? padding - ky : 0;
      const int64_t last = s.height + padding - ky < s.height ? s.height + padding - ky : s.height;
      for (int64_t i = 0; i < rows * columns; ++i) sums[i] = 0;
      for (int64_t sample = 0; sample < s.samples; ++sample)
        for (int64_t column = 0; column < kernel * s.channels; column += wide) {
          Tile<T, bytes, rows, 2> tile;
          tile.read(sums + column, columns);
          for (int64_t y = first; y < last; ++y) {
            const T* right =
                features + ((sample * s.height + y + ky - padding) * padded + margin - padding) * s.channels;
            tile.add(gradient + (sample * s.height + y) * s.width * rows, rows, right + column, s.channels,
                     s.width);
          }
          tile.write(sums + column, columns);
        }
    }
  };
};

}  // namespace cdkd::cpu::sau
