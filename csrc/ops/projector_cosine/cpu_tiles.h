// The three matrix products, tile by tile. Letters: R rows (sample and channel), S
// positions of the feature, T of the teacher, K projectors. A map of one projector, R x T, never exists: only
// a tile of it, in cache.
#pragma once

#include "cpu/aligned_buffer.h"
#include "cpu/tile.h"
#include "cpu/widen.h"

namespace cdkd::cpu::projector {

constexpr int64_t kRows = 6;      // rows of a register tile
constexpr int64_t kPadding = 32;  // the widest register tile has this many columns
constexpr int64_t kChunk = 256;   // teacher positions projected at a time
constexpr int64_t kTogether =
    48;  // rows projected at a time: their weights stay in the innermost cache meanwhile
constexpr int64_t kSlice = 48;     // teacher positions of one task of the weight's gradient
constexpr int64_t kDepth = 256;    // depth of a product between two visits of its sums in memory
constexpr int64_t kBlock = 192;    // rows of one task of the feature's gradient, at most
constexpr int64_t kColumns = 512;  // and its columns

template <class T, int bytes>
constexpr int64_t kWide = 2 * VectorOf<T, bytes>::lanes;  // columns of a register tile

// All tensors contiguous. Rows count from the first row of a slab of samples; projected, active and the
// packed features belong to the slab, everything else to the whole batch.
template <class T, class In>
struct Problem {
  int64_t channels, positions, targets, projectors;
  int64_t first_row, rows;  // of the slab
  bool relu;
  const In* feature;  // (rows of the batch, S)
  const In* weight;   // (K, T, S)
  const T* bias;      // (K, T)
  const T* select;    // (B, K, C)
  const In* teacher;  // (rows of the batch, T)
  T* projected;       // (rows, T): Σ_k select · activation; null when nobody will read it
  uint8_t* active;    // (planes of 8 projectors, rows, T): bit k % 8 is set where the ReLU passes
  const T*
      teacher_scale;  // (B,): the gradient of the output is teacher_scale · teacher - output_scale · output
  const T* output_scale;  // (B,)

  CDKD_INLINE T selected(int64_t row, int64_t k) const {
    const int64_t global = first_row + row;
    return select[(global / channels * projectors + k) * channels + global % channels];
  }
  CDKD_INLINE const In* teacher_row(int64_t row) const { return teacher + (first_row + row) * targets; }
  CDKD_INLINE const In* feature_row(int64_t row) const { return feature + (first_row + row) * positions; }
};

// The sums that one row contributes: <teacher, a_k> and <output, a_k> for each projector, then <output,
// teacher>, <output, output>, <teacher, teacher>.
constexpr int64_t row_sums(int64_t projectors) { return 2 * projectors + 3; }

// to[panel][s][row] from the feature's rows, zeros in the rows that do not exist.
struct PackFeatureRows {
  template <int bytes, class T, class In>
  CDKD_INLINE static void run(const Problem<T, In>& p, T* to) {
    for (int64_t first = 0; first < p.rows; first += kRows)
      for (int64_t i = 0; i < kRows; ++i) {
        T* panel = to + first * p.positions + i;
        if (first + i < p.rows) {
          const In* from = p.feature_row(first + i);
          for (int64_t s = 0; s < p.positions; ++s) panel[s * kRows] = widen(from[s]);
        } else {
          for (int64_t s = 0; s < p.positions; ++s) panel[s * kRows] = 0;
        }
      }
  }
};

// to[panel][row][column] from a row-major matrix, zeros beyond its columns. Row by row: that reads whole
// cache lines in order.
template <int bytes, class T, class In>
CDKD_INLINE void pack_columns(const In* from, int64_t stride, int64_t rows, int64_t columns, T* to) {
  constexpr int64_t wide = kWide<T, bytes>;
  const int64_t whole = columns / wide * wide;
  for (int64_t r = 0; r < rows; ++r) {
    const In* row = from + r * stride;
    T* panel = to + r * wide;
    for (int64_t first = 0; first < whole; first += wide, panel += rows * wide)
      for (int64_t j = 0; j < wide; ++j) panel[j] = widen(row[first + j]);
    if (whole < columns)
      for (int64_t j = 0; j < wide; ++j) panel[j] = whole + j < columns ? widen(row[whole + j]) : T(0);
  }
}

struct PackFeatureColumns {
  template <int bytes, class T, class In>
  CDKD_INLINE static void run(const Problem<T, In>& p, T* to) {
    pack_columns<bytes>(p.feature_row(0), p.positions, p.rows, p.positions, to);
  }
};

template <class T>
struct ProjectScratch {
  T* weight;      // (K, panels of the chunk, S, columns of a panel)
  T* activation;  // (K, kTogether, kChunk)
  T* bias;        // (K, kChunk)
  static int64_t size(int64_t projectors, int64_t positions) {
    return projectors * kChunk * (positions + kTogether + 1);
  }
  ProjectScratch(T* memory, int64_t projectors, int64_t positions)
      : weight(memory),
        activation(memory + projectors * kChunk * positions),
        bias(activation + projectors * kTogether * kChunk) {}
};

// Adds <a, c> and <b, c> over one chunk to sums[0] and sums[1]; several vectors at once, or each addition
// would wait for the one before.
template <int bytes, class T>
CDKD_INLINE void add_products(const T* a, const T* b, const T* c, T* sums) {
  using V = Vector<T, bytes>;
  constexpr int64_t lanes = VectorOf<T, bytes>::lanes;
  V first[2] = {}, second[2] = {};
  for (int64_t t = 0; t < kChunk; t += 2 * lanes)
    for (int64_t i = 0; i < 2; ++i) {
      V x, y, z;
      load(x, a + t + i * lanes);
      load(y, b + t + i * lanes);
      load(z, c + t + i * lanes);
      first[i] += x * z;
      second[i] += y * z;
    }
  const V x = first[0] + first[1], y = second[0] + second[1];
  for (int64_t lane = 0; lane < lanes; ++lane) sums[0] += x[lane];
  for (int64_t lane = 0; lane < lanes; ++lane) sums[1] += y[lane];
}

// One row of a chunk: activation[k] holds the row's products and becomes the activations.
template <int bytes, class T, class In>
CDKD_INLINE void finish_row(const Problem<T, In>& p, int64_t row, int64_t first, int64_t count, T* activation,
                            const T* bias, T* sums) {
  T output[kChunk], teacher[kChunk];
  uint32_t active[kChunk];
  const In* from = p.teacher_row(row) + first;
  for (int64_t t = 0; t < count; ++t) teacher[t] = widen(from[t]);
  for (int64_t t = count; t < kChunk; ++t) teacher[t] = 0;
  for (int64_t t = 0; t < kChunk; ++t) output[t] = 0;
  for (int64_t t = 0; t < kChunk; ++t) active[t] = 0;
  for (int64_t k = 0; k < p.projectors; ++k) {
    T* a = activation + k * kTogether * kChunk;
    for (int64_t t = count; t < kChunk; ++t) a[t] = 0;
    const T* b = bias + k * kChunk;
    const T weight = p.selected(row, k);
    const uint32_t bit = 1u << (k % 8);
    if (p.relu) {
      for (int64_t t = 0; t < kChunk; ++t) {
        const T value = a[t] + b[t];
        a[t] = value <= 0 ? T(0) : value;  // a NaN stays
        active[t] |= value <= 0 ? 0u : bit;
        output[t] += weight * a[t];
      }
    } else {
      for (int64_t t = 0; t < kChunk; ++t) {
        a[t] += b[t];
        output[t] += weight * a[t];
      }
    }
    if (p.active != nullptr && (k % 8 == 7 || k == p.projectors - 1)) {
      uint8_t* to = p.active + (k / 8 * p.rows + row) * p.targets + first;
      for (int64_t t = 0; t < count; ++t) to[t] = static_cast<uint8_t>(active[t]);
      for (int64_t t = 0; t < kChunk; ++t) active[t] = 0;
    }
  }
  if (p.projected != nullptr) {
    T* to = p.projected + row * p.targets + first;
    for (int64_t t = 0; t < count; ++t) to[t] = output[t];
  }
  if (sums == nullptr) return;
  for (int64_t k = 0; k < p.projectors; ++k)
    add_products<bytes>(teacher, output, activation + k * kTogether * kChunk, sums + 2 * k);
  T teacher_squared[2] = {};
  add_products<bytes>(teacher, output, output, sums + 2 * p.projectors);
  add_products<bytes>(teacher, teacher, teacher, teacher_squared);
  sums[2 * p.projectors + 2] += teacher_squared[0];
}

// Projects all rows of the slab at kChunk teacher positions from `first` on. features: PackFeatureRows;
// sums: (rows, row_sums) added to, or null.
struct Project {
  template <int bytes, class T, class In>
  CDKD_INLINE static void run(const Problem<T, In>& p, const T* features, int64_t first,
                              const ProjectScratch<T>& scratch, T* sums) {
    constexpr int64_t wide = kWide<T, bytes>;
    const int64_t count = p.targets - first < kChunk ? p.targets - first : kChunk;
    for (int64_t k = 0; k < p.projectors; ++k) {
      pack_weight<bytes>(p, k, first, count, scratch.weight + k * kChunk * p.positions);
      for (int64_t t = 0; t < kChunk; ++t)
        scratch.bias[k * kChunk + t] = t < count ? p.bias[k * p.targets + first + t] : T(0);
    }
    for (int64_t row = 0; row < p.rows; row += kTogether) {
      const int64_t rows = p.rows - row < kTogether ? p.rows - row : kTogether;
      for (int64_t k = 0; k < p.projectors; ++k)
        for (int64_t column = 0; column < count; column += wide)
          for (int64_t r = 0; r < rows; r += kRows) {
            Tile<T, bytes, kRows, 2> tile;
            tile.zero();
            tile.add(features + (row + r) * p.positions, kRows,
                     scratch.weight + (k * kChunk + column) * p.positions, wide, p.positions);
            tile.write(scratch.activation + (k * kTogether + r) * kChunk + column, kChunk);
          }
      for (int64_t r = 0; r < rows; ++r) {
        T* sum = sums == nullptr ? nullptr : sums + (row + r) * row_sums(p.projectors);
        finish_row<bytes>(p, row + r, first, count, scratch.activation + r * kChunk, scratch.bias, sum);
      }
    }
  }

  // to[panel][s][column]: the transpose of `count` rows of W_k, zeros beyond them
  template <int bytes, class T, class In>
  CDKD_INLINE static void pack_weight(const Problem<T, In>& p, int64_t k, int64_t first, int64_t count,
                                      T* to) {
    constexpr int64_t wide = kWide<T, bytes>;
    const In* from = p.weight + (k * p.targets + first) * p.positions;
    for (int64_t panel = 0; panel < kChunk; panel += wide, to += wide * p.positions)
      for (int64_t j = 0; j < wide; ++j) {
        const In* row = from + (panel + j) * p.positions;
        if (panel + j < count) {
          for (int64_t s = 0; s < p.positions; ++s) to[s * wide + j] = widen(row[s]);
        } else {
          for (int64_t s = 0; s < p.positions; ++s) to[s * wide + j] = 0;
        }
      }
  }
};

// to[t] = the gradient of projector k's product (before bias and activation) of one row, at `count` teacher
// positions.
template <class T, class In>
CDKD_INLINE void product_gradient(const Problem<T, In>& p, int64_t row, int64_t k, int64_t first,
                                  int64_t count, T* to) {
  const int64_t sample = (p.first_row + row) / p.channels;
  const T weight = p.selected(row, k);
  const T with_teacher = p.teacher_scale[sample] * weight;
  const T with_output = p.output_scale[sample] * weight;
  const In* teacher = p.teacher_row(row) + first;
  const T* output = p.projected + row * p.targets + first;
  if (p.relu) {
    const uint8_t* active = p.active + (k / 8 * p.rows + row) * p.targets + first;
    const uint32_t bit = 1u << (k % 8);
    for (int64_t t = 0; t < count; ++t) {
      const T value = with_teacher * widen(teacher[t]) - with_output * output[t];
      to[t] = (active[t] & bit) != 0 ? value : T(0);
    }
  } else {
    for (int64_t t = 0; t < count; ++t) to[t] = with_teacher * widen(teacher[t]) - with_output * output[t];
  }
}

template <class T>
struct WeightScratch {
  T* gradient;  // (panels of kRows positions, kDepth rows, kRows)
  T* sums;      // (K, kSlice, columns)
  T* bias;      // (K, kSlice)
  static int64_t size(int64_t projectors, int64_t positions) {
    return kSlice * (kDepth + projectors * (round_up(positions, kPadding) + 1));
  }
  WeightScratch(T* memory, int64_t projectors, int64_t positions)
      : gradient(memory),
        sums(memory + kSlice * kDepth),
        bias(sums + projectors * kSlice * round_up(positions, kPadding)) {}
};

// Gradients of all weights and biases at kSlice teacher positions from `first` on, over the rows of the slab,
// added to what is there or written. features: PackFeatureColumns.
struct WeightGradient {
  template <int bytes, class T, class In>
  CDKD_INLINE static void run(const Problem<T, In>& p, const T* features, int64_t first, bool add,
                              const WeightScratch<T>& scratch, T* weight, T* bias) {
    constexpr int64_t wide = kWide<T, bytes>;
    const int64_t columns = round_up(p.positions, kPadding);
    const int64_t count = p.targets - first < kSlice ? p.targets - first : kSlice;
    T row_gradient[kSlice];
    for (int64_t t = 0; t < kSlice; ++t) row_gradient[t] = 0;
    for (int64_t i = 0; i < p.projectors * kSlice * columns; ++i) scratch.sums[i] = 0;
    for (int64_t i = 0; i < p.projectors * kSlice; ++i) scratch.bias[i] = 0;
    const int64_t most = divide_up(p.rows, divide_up(p.rows, kDepth));  // of nearly equal depth
    for (int64_t start = 0; start < p.rows; start += most) {
      const int64_t depth = p.rows - start < most ? p.rows - start : most;
      for (int64_t k = 0; k < p.projectors; ++k) {
        T* sums = scratch.sums + k * kSlice * columns;
        for (int64_t r = 0; r < depth; ++r) {
          product_gradient(p, start + r, k, first, count, row_gradient);
          for (int64_t t = 0; t < kSlice; ++t) scratch.bias[k * kSlice + t] += row_gradient[t];
          for (int64_t panel = 0; panel < kSlice; panel += kRows)
            __builtin_memcpy(scratch.gradient + panel * kDepth + r * kRows, row_gradient + panel,
                             kRows * sizeof(T));
        }
        for (int64_t column = 0; column < p.positions; column += wide)
          for (int64_t t = 0; t < count; t += kRows) {
            Tile<T, bytes, kRows, 2> tile;
            tile.read(sums + t * columns + column, columns);
            tile.add(scratch.gradient + t * kDepth, kRows, features + column * p.rows + start * wide, wide,
                     depth);
            tile.write(sums + t * columns + column, columns);
          }
      }
    }
    for (int64_t k = 0; k < p.projectors; ++k)
      for (int64_t t = 0; t < count; ++t) {
        T* to = weight + (k * p.targets + first + t) * p.positions;
        T* bias_to = bias + k * p.targets + first + t;
        const T* from = scratch.sums + (k * kSlice + t) * columns;
        const T bias_sum = scratch.bias[k * kSlice + t];
        if (add) {
          for (int64_t s = 0; s < p.positions; ++s) to[s] += from[s];
          *bias_to += bias_sum;
        } else {
          for (int64_t s = 0; s < p.positions; ++s) to[s] = from[s];
          *bias_to = bias_sum;
        }
      }
  }
};

template <class T>
struct FeatureScratch {
  T* gradient;  // (panels of kRows rows, kDepth positions, kRows)
  T* weight;    // (panels of columns, kDepth positions, columns of a panel)
  T* sums;      // (block, columns)
  static int64_t columns(int64_t positions) {
    return round_up(positions < kColumns ? positions : kColumns, kPadding);
  }
  static int64_t size(int64_t block, int64_t positions) {
    return block * kDepth + (kDepth + block) * columns(positions);
  }
  FeatureScratch(T* memory, int64_t block, int64_t positions)
      : gradient(memory), weight(memory + block * kDepth), sums(weight + kDepth * columns(positions)) {}
};

// Gradient of the feature in `block` rows (a multiple of kRows) from `row` and kColumns columns from `column`
// on. to: (rows of the batch, S).
struct FeatureGradient {
  template <int bytes, class T, class In>
  CDKD_INLINE static void run(const Problem<T, In>& p, int64_t block, int64_t row, int64_t column,
                              const FeatureScratch<T>& scratch, T* to) {
    constexpr int64_t wide = kWide<T, bytes>;
    const int64_t rows = p.rows - row < block ? p.rows - row : block;
    const int64_t some = p.positions - column < kColumns ? p.positions - column : kColumns;
    const int64_t columns = FeatureScratch<T>::columns(p.positions);
    for (int64_t i = 0; i < block * columns; ++i) scratch.sums[i] = 0;
    for (int64_t i = 0; i < block * kDepth; ++i) scratch.gradient[i] = 0;
    for (int64_t start = 0; start < p.targets; start += kDepth)
      for (int64_t k = 0; k < p.projectors; ++k) {
        const int64_t depth = p.targets - start < kDepth ? p.targets - start : kDepth;
        for (int64_t r = 0; r < rows; ++r) {
          T row_gradient[kDepth];
          product_gradient(p, row + r, k, start, depth, row_gradient);
          T* panel = scratch.gradient + r / kRows * kRows * kDepth + r % kRows;
          for (int64_t t = 0; t < depth; ++t) panel[t * kRows] = row_gradient[t];
        }
        const In* weight = p.weight + (k * p.targets + start) * p.positions + column;
        pack_columns<bytes>(weight, p.positions, depth, some, scratch.weight);
        for (int64_t c = 0; c < some; c += wide)
          for (int64_t r = 0; r < rows; r += kRows) {
            Tile<T, bytes, kRows, 2> tile;
            tile.read(scratch.sums + r * columns + c, columns);
            tile.add(scratch.gradient + r * kDepth, kRows, scratch.weight + c * depth, wide, depth);
            tile.write(scratch.sums + r * columns + c, columns);
          }
      }
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t s = 0; s < some; ++s)
        to[(p.first_row + row + r) * p.positions + column + s] = scratch.sums[r * columns + s];
  }
};

}  // namespace cdkd::cpu::projector
