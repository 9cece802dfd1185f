// Products of 64 x 64 tiles by a block of 128 threads: on tensor cores for 16-bit numbers, else in registers.
// All tiles are 64 bytes deep. A "deep" tile in shared memory keeps the depth contiguous, a "wide" one its 64
// rows or columns; 16 bytes of padding per line keep the threads of a warp on different banks.
#pragma once
#include <cstdint>
#include <type_traits>

#include "tensor_core.h"

namespace cdkd::cuda::projector {

constexpr int kThreads = 128;
constexpr int kTile = 64;

template <class In>
using Accumulate = std::conditional_t<std::is_same_v<In, double>, double, float>;

template <class In>
constexpr int kDepth = 64 / static_cast<int>(sizeof(In));

// Which kernels are compiled for a device: bfloat16 goes to tensor cores where they take it.
template <class In, bool tensor>
#if defined(__CUDA_ARCH__)
constexpr bool kCompiled = !std::is_same_v<In, BFloat16> || tensor == (__CUDA_ARCH__ >= 800);
#else
constexpr bool kCompiled = true;
#endif

// The launcher took a kernel that is not compiled.
CDKD_DEVICE void not_compiled() {
#if defined(__CUDA_ARCH__)
  __trap();
#endif
}

// Lines of tiles whose elements have `size` bytes.
CDKD_INLINE constexpr int padded(int elements, int size) { return elements + 16 / size; }

// Fill `rows` x `columns` of a tile with what lies `from_stride` apart at `from`, zeros beyond the rows and
// columns that are left. vectors: lines begin at 16-byte boundaries and hold whole vectors.
template <int rows, int columns, int stride, class In>
CDKD_DEVICE void load_tile(In* to, const In* from, int64_t from_stride, int64_t rows_left,
                           int64_t columns_left, bool vectors) {
  const int thread = static_cast<int>(threadIdx.x);
  if (vectors) {
    constexpr int size = Vector<In>::kSize, per_row = columns / size;
    CDKD_UNROLL
    for (int i = 0; i < rows * per_row / kThreads; ++i) {
      const int slot = thread + i * kThreads, r = slot / per_row, c = slot % per_row * size;
      const bool exists = r < rows_left && c < columns_left;
      copy_vector(to + r * stride + c, exists ? from + r * from_stride + c : from, exists);
    }
  } else {
    CDKD_NO_UNROLL
    for (int slot = thread; slot < rows * columns; slot += kThreads) {
      const int r = slot / columns, c = slot % columns;
      to[r * stride + c] = r < rows_left && c < columns_left ? load(from + r * from_stride + c) : In{};
    }
  }
}

// The way back.
template <int rows, int columns, int stride, bool add, class T>
CDKD_DEVICE void store_tile(T* to, const T* from, int64_t to_stride, int64_t rows_left, int64_t columns_left,
                            bool vectors) {
  const int thread = static_cast<int>(threadIdx.x);
  if (vectors) {
    constexpr int size = Vector<T>::kSize, per_row = columns / size;
    CDKD_NO_UNROLL
    for (int i = 0; i < rows * per_row / kThreads; ++i) {
      const int slot = thread + i * kThreads, r = slot / per_row, c = slot % per_row * size;
      if (r >= rows_left || c >= columns_left) continue;
      Vector<T> value = *reinterpret_cast<const Vector<T>*>(from + r * stride + c);
      Vector<T>* const target = reinterpret_cast<Vector<T>*>(to + r * to_stride + c);
      if constexpr (add) {
        const Vector<T> old = load(target);
        CDKD_UNROLL
        for (int e = 0; e < size; ++e) value.at[e] += old.at[e];
      }
      store(target, value);
    }
  } else {
    CDKD_NO_UNROLL
    for (int slot = thread; slot < rows * columns; slot += kThreads) {
      const int r = slot / columns, c = slot % columns;
      if (r >= rows_left || c >= columns_left) continue;
      T* const target = to + r * to_stride + c;
      T value = from[r * stride + c];
      if constexpr (add) value += load(target);
      store(target, value);
    }
  }
}

// Neighbouring elements of shared memory, read at once.
template <int count, class T>
struct alignas(count * sizeof(T)) Pack {
  T at[count];
};

// Elements of the tile that a thread owns: row(i) and column(j). kLanes neighbouring lanes own one row's
// columns, or the half of them that part() tells of kParts.
template <bool tensor>
struct Place;

template <>
struct Place<true> {
  static constexpr int kRows = 4, kColumns = 8, kLanes = 4, kParts = 2;
  CDKD_DEVICE static int row(int i) {
    const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
    return warp / 2 * 32 + i * 8 + lane / 4;
  }
  CDKD_DEVICE static int column(int j) {
    const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
    return warp % 2 * 32 + j / 2 * 8 + lane % 4 * 2 + j % 2;
  }
  CDKD_DEVICE static int part() { return static_cast<int>(threadIdx.x) / kWarp % 2; }
};

template <>
struct Place<false> {
  static constexpr int kRows = 8, kColumns = 4, kLanes = 16, kParts = 1;
  CDKD_DEVICE static int row(int i) { return static_cast<int>(threadIdx.x) / 16 + i * 8; }
  CDKD_DEVICE static int column(int j) { return static_cast<int>(threadIdx.x) % 16 + j * 16; }
  CDKD_DEVICE static int part() { return 0; }
};

// Sum over the lanes that own a row.
template <int lanes, class T>
CDKD_DEVICE T sum_over_lanes(T value) {
  CDKD_UNROLL
  for (int distance = lanes / 2; distance > 0; distance /= 2)
    value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}

// sums += a · b over `depth`, a and b wide or deep.
template <bool a_wide, bool b_wide, int depth, class A, class B, class T>
CDKD_DEVICE void multiply_plain(const A* a, const B* b, T (&sums)[8][4]) {
  using P = Place<false>;
  constexpr int together = sizeof(T) == 8 ? 2 : 4;  // of the depth, read as one vector of a deep tile
  constexpr int a_stride = padded(a_wide ? kTile : depth, sizeof(A));
  constexpr int b_stride = padded(b_wide ? kTile : depth, sizeof(B));
  CDKD_NO_UNROLL
  for (int k = 0; k < depth; k += together) {
    T columns[P::kColumns][together];
    CDKD_UNROLL
    for (int j = 0; j < P::kColumns; ++j) {
      if constexpr (b_wide) {
        CDKD_UNROLL
        for (int d = 0; d < together; ++d) columns[j][d] = widen(b[(k + d) * b_stride + P::column(j)]);
      } else {
        const auto pack = *reinterpret_cast<const Pack<together, B>*>(b + P::column(j) * b_stride + k);
        CDKD_UNROLL
        for (int d = 0; d < together; ++d) columns[j][d] = widen(pack.at[d]);
      }
    }
    CDKD_UNROLL
    for (int i = 0; i < P::kRows; ++i) {
      T row[together];
      if constexpr (a_wide) {
        CDKD_UNROLL
        for (int d = 0; d < together; ++d) row[d] = widen(a[(k + d) * a_stride + P::row(i)]);
      } else {
        const auto pack = *reinterpret_cast<const Pack<together, A>*>(a + P::row(i) * a_stride + k);
        CDKD_UNROLL
        for (int d = 0; d < together; ++d) row[d] = widen(pack.at[d]);
      }
      CDKD_UNROLL
      for (int d = 0; d < together; ++d) CDKD_UNROLL
      for (int j = 0; j < P::kColumns; ++j) sums[i][j] += row[d] * columns[j][d];
    }
  }
}

template <bool a_wide, bool b_wide, int depth, class In>
CDKD_DEVICE void multiply_tensor(const In* a, const In* b, float (&sums)[4][8]) {
  constexpr int a_stride = padded(a_wide ? kTile : depth, sizeof(In));
  constexpr int b_stride = padded(b_wide ? kTile : depth, sizeof(In));
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int inside = lane % 8, odd = lane / 8 % 2 * 8,
            upper = lane / 16 * 8;  // of the matrix that this lane points at
  CDKD_UNROLL
  for (int k = 0; k < depth; k += 16) {
    uint32_t rows[2][4], columns[2][4];
    CDKD_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int m = warp / 2 * 32 + i * 16;
      load_matrices<a_wide>(a_wide ? a + (k + inside + upper) * a_stride + m + odd
                                   : a + (m + inside + odd) * a_stride + k + upper,
                            rows[i]);
    }
    CDKD_UNROLL
    for (int j = 0; j < 2; ++j) {
      const int n = warp % 2 * 32 + j * 16;
      load_matrices<b_wide>(b_wide ? b + (k + inside + odd) * b_stride + n + upper
                                   : b + (n + inside + upper) * b_stride + k + odd,
                            columns[j]);
    }
    CDKD_UNROLL
    for (int i = 0; i < 2; ++i) CDKD_UNROLL
    for (int j = 0; j < 4; ++j)
      multiply_matrices<In>(sums[2 * i][2 * j], sums[2 * i][2 * j + 1], sums[2 * i + 1][2 * j],
                            sums[2 * i + 1][2 * j + 1], rows[i], columns[j / 2][j % 2 * 2],
                            columns[j / 2][j % 2 * 2 + 1]);
  }
}

// sums += a · b: a (rows, depth) and b (depth, columns), each wide or deep.
template <bool tensor, bool a_wide, bool b_wide, int depth, class A, class B, class T>
CDKD_DEVICE void multiply(const A* a, const B* b, T (&sums)[Place<tensor>::kRows][Place<tensor>::kColumns]) {
  if constexpr (tensor)
    multiply_tensor<a_wide, b_wide, depth>(a, b, sums);
  else
    multiply_plain<a_wide, b_wide, depth>(a, b, sums);
}

}  // namespace cdkd::cuda::projector
