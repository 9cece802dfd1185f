// Convolutions for few channels, forward and backward. Vectors run over the samples: a vector of one pixel of
// 16 samples wastes no lane whatever the number of channels and the width of the map, and taps outside the
// map are never computed. Where there are fewer samples than lanes, each is cut into horizontal strips that
// lie in lanes of their own. The weight's gradient, a sum over the samples, runs its vectors over
// neighbouring (column, channel) pairs instead.
#pragma once
#include <algorithm>

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

struct Shape {
  int64_t samples, channels, height, width, branches;
  int64_t strips = 1;  // of a sample; more than one only where all lanes are one group
  int64_t halo = 0;    // rows of the neighbouring strips that are packed above and below each strip

  CDKD_INLINE int64_t pixels() const { return height * width; }
  CDKD_INLINE int64_t maps() const { return branches * channels; }
  CDKD_INLINE int64_t lanes() const { return samples * strips; }
  CDKD_INLINE int64_t rows() const { return height / strips; }
  CDKD_INLINE int64_t strip_pixels() const { return rows() * width; }
  CDKD_INLINE int64_t packed_rows() const { return rows() + 2 * halo; }
  // Pixels of one plane that ConvolveRow reads, a cache line each, some of them unused: planes a power of two
  // apart would push each other out of the cache.
  CDKD_INLINE int64_t spaced_pixels() const { return round_up(packed_rows() * width, 8) + 9; }

  template <class T>
  CDKD_INLINE int64_t groups() const {
    return divide_up(lanes(), kLanes<T>);
  }

  // Cut samples that leave lanes empty into as many strips of equal height as fit.
  template <class T>
  void cut(int64_t margin) {
    for (int64_t count = kLanes<T> / std::max<int64_t>(samples, 1); count > 1; --count)
      if (height % count == 0) {
        strips = count;
        halo = margin;
        return;
      }
  }
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

// to[channel][spaced pixel][lane] for one group of lanes of from (B, channels, pixels), zeros outside the map
// and in lanes without a sample.
struct PackLanes {
  template <int bytes, class T, class In>
  CDKD_INLINE static void run(const Shape& s, const In* from, int64_t group, T* to) {
    for (int64_t c = 0; c < s.channels; ++c)
      for (int64_t lane = 0; lane < kLanes<T>; ++lane) {
        T* plane = to + c * s.spaced_pixels() * kLanes<T> + lane;
        const int64_t sample = (group * kLanes<T> + lane) / s.strips;
        const int64_t top = (group * kLanes<T> + lane) % s.strips * s.rows() - s.halo;
        for (int64_t row = 0; row < s.packed_rows(); ++row, plane += s.width * kLanes<T>) {
          const int64_t y = top + row;
          if (sample < s.samples && y >= 0 && y < s.height) {
            const In* source = from + ((sample * s.channels + c) * s.height + y) * s.width;
            for (int64_t x = 0; x < s.width; ++x) plane[x * kLanes<T>] = widen(source[x]);
          } else {
            for (int64_t x = 0; x < s.width; ++x) plane[x * kLanes<T>] = 0;
          }
        }
      }
  }
};

// Fills the halo of one packed plane [spaced pixel][lane] from its own strips.
struct FillHalo {
  template <int bytes, class T>
  CDKD_INLINE static void run(const Shape& s, T* plane) {
    for (int64_t row = 0; row < s.packed_rows(); ++row) {
      if (row >= s.halo && row < s.halo + s.rows()) continue;  // the strip itself
      T* to = plane + row * s.width * kLanes<T>;
      for (int64_t lane = 0; lane < kLanes<T>; ++lane) {
        const int64_t sample = lane / s.strips, y = lane % s.strips * s.rows() + row - s.halo;
        const bool inside = sample < s.samples && y >= 0 && y < s.height;
        const int64_t from_row = inside ? s.halo + y % s.rows() : 0;
        const T* from =
            plane + from_row * s.width * kLanes<T> + sample * s.strips + (inside ? y / s.rows() : 0);
        for (int64_t x = 0; x < s.width; ++x) to[x * kLanes<T> + lane] = inside ? from[x * kLanes<T>] : T(0);
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

// One row of a convolution for one group of lanes: from[channel][spaced pixel][lane], written to
// to[channel][pixel of the strip][lane] or added to it.
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
            add || block > 0, to + tiles.first(tile) * s.strip_pixels() * kLanes<T>);
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
      const int64_t padding = kernel / 2, plane = s.strip_pixels() * lanes;
      const int64_t from_plane = s.spaced_pixels() * lanes;
      const int64_t above = y + s.halo, below = s.packed_rows() - above;  // rows that are there
      const int64_t top = above < padding ? padding - above : 0;
      const int64_t bottom = below + padding < kernel ? below + padding : kernel;
      for (int64_t x = 0; x < s.width; ++x) {
        const int64_t left = x < padding ? padding - x : 0;
        const int64_t right = s.width + padding - x < kernel ? s.width + padding - x : kernel;
        const T* window = from + ((above + top - padding) * s.width + x + left - padding) * lanes;
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
// lanes lie `group_stride` apart.
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
    for (int64_t first = 0; first < s.lanes(); first += kLanes<T>, responses += group_stride) {
      double lanes[kLanes<T>] = {};
      for (int64_t y = 0; y < s.rows(); ++y) {
        T row[kLanes<T>] = {};  // one row at a time: short sums lose nothing in float
        for (int64_t x = 0; x < s.width; ++x)
          for (int64_t lane = 0; lane < kLanes<T>; ++lane)
            row[lane] += f(responses[(y * s.width + x) * kLanes<T> + lane]);
        for (int64_t lane = 0; lane < kLanes<T>; ++lane) lanes[lane] += static_cast<double>(row[lane]);
      }
      for (int64_t lane = 0; lane < kLanes<T> && first + lane < s.lanes(); ++lane) total += lanes[lane];
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
    for (int64_t b = 0; b < s.samples; ++b) passed[b] = passed_sum[b] = activation_sum[b] = 0;
    for (int64_t first = 0; first < s.lanes(); first += lanes, responses += group_stride) {
      V count[vectors] = {}, sum[vectors] = {}, activation[vectors] = {};
      for (int64_t i = 0; i < s.strip_pixels(); ++i)
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
      for (int64_t lane = 0; lane < lanes && first + lane < s.lanes(); ++lane) {
        const int64_t sample = (first + lane) / s.strips;
        passed[sample] += count[lane / width][lane % width];
        passed_sum[sample] += sum[lane / width][lane % width];
        activation_sum[sample] += activation[lane / width][lane % width];
      }
    }
  }
};

// Gradient of one map's responses for one group of lanes: scale · (g - mean_g - x · mean_gx), where g is
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

// One group's gradients from[map][spaced pixel][lane] in the order in which WeightGradient reads them, for
// the pixels of row y of each strip: to[branch][tile of output channels][sample][pixel][row of the tile].
struct GradientPanels {
  template <int bytes, class T>
  CDKD_INLINE static void run(const Shape& s, const T* from, int64_t from_plane, int64_t group, int64_t y,
                              T* to) {
    constexpr int64_t lanes = kLanes<T>;
    const Tiles tiles(s.channels, kGradientRows);
    const int64_t used = s.lanes() - group * lanes < lanes ? s.lanes() - group * lanes : lanes;
    for (int64_t m = 0; m < s.branches; ++m)
      for (int64_t tile = 0; tile < tiles.count; ++tile)
        with_rows<Copy, kGradientRows>(
            tiles.rows(tile), s,
            from + (m * s.channels + tiles.first(tile)) * from_plane + (s.halo + y) * s.width * lanes,
            from_plane, used,
            to + start(s, m, tiles.first(tile)) +
                (group * lanes * s.strip_pixels() + y * s.width) * tiles.rows(tile));
  }

  // of a tile's panel
  CDKD_INLINE static int64_t start(const Shape& s, int64_t branch, int64_t first) {
    return (branch * s.channels + first) * s.samples * s.pixels();
  }

  struct Copy {
    template <int rows, class T>
    CDKD_INLINE static void run(const Shape& s, const T* from, int64_t from_plane, int64_t used, T* to) {
      for (int64_t x = 0; x < s.width; ++x) {
        T block[rows][kLanes<T>];
        for (int64_t i = 0; i < rows; ++i)
          __builtin_memcpy(block[i], from + i * from_plane + x * kLanes<T>, sizeof(block[i]));
        for (int64_t lane = 0; lane < used; ++lane)
          for (int64_t i = 0; i < rows; ++i) to[(lane * s.strip_pixels() + x) * rows + i] = block[i][lane];
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
