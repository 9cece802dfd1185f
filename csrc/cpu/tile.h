// The register tile of every matrix product here: `rows` x (`vectors` vectors) sums that stay in registers
// over the depth.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/isa.h"
#include "cpu/vector.h"

namespace cdkd::cpu {

template <class T, int bytes, int rows, int vectors>
struct Tile {
  using V = Vector<T, bytes>;
  static constexpr int lanes = VectorOf<T, bytes>::lanes;
  V sum[rows][vectors];

  CDKD_INLINE void zero() {
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < vectors; ++j) sum[i][j] = V{};
  }

  CDKD_INLINE void read(const T* from, ptrdiff_t row_stride) {
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < vectors; ++j) load(sum[i][j], from + i * row_stride + j * lanes);
  }

  CDKD_INLINE void write(T* to, ptrdiff_t row_stride) const {
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < vectors; ++j) store(to + i * row_stride + j * lanes, sum[i][j]);
  }

  // sum[i][:] += Σ_d a[d * a_step + i] · b[d * b_step + :]
  CDKD_INLINE void add(const T* a, ptrdiff_t a_step, const T* b, ptrdiff_t b_step, int64_t depth) {
    for (int64_t d = 0; d < depth; ++d) {
      V right[vectors];
      for (int j = 0; j < vectors; ++j) load(right[j], b + j * lanes);
      for (int i = 0; i < rows; ++i)
        for (int j = 0; j < vectors; ++j) sum[i][j] += a[i] * right[j];
      a += a_step;
      b += b_step;
    }
  }
};

}  // namespace cdkd::cpu
