// Rows of any floating type, read and written as the type that a kernel computes in.
#pragma once
#include <cstdint>
#include <limits>

#include "common/half.h"
#include "common/rows.h"
#include "cpu/aligned_buffer.h"

namespace cdkd::cpu {

// The format a kernel computing in A can use in place.
template <class A>
constexpr Format native_format() {
  return sizeof(A) == 8 ? Format::kFloat64 : Format::kFloat32;
}

template <class A, class T, class Convert>
CDKD_INLINE void convert_row(const T* from, int64_t n, A* to, Convert convert) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) to[i] = static_cast<A>(convert(from[i]));
}

struct AsIs {
  template <class T>
  CDKD_INLINE T operator()(T value) const {
    return value;
  }
};
struct FromBFloat16 {
  CDKD_INLINE float operator()(uint16_t bits) const { return from_bfloat16(bits); }
};
struct FromFloat16 {
  CDKD_INLINE float operator()(uint16_t bits) const { return from_float16(bits); }
};
struct ToBFloat16 {
  CDKD_INLINE uint16_t operator()(double value) const { return to_bfloat16(static_cast<float>(value)); }
  CDKD_INLINE uint16_t operator()(float value) const { return to_bfloat16(value); }
};
struct ToFloat16 {
  CDKD_INLINE uint16_t operator()(double value) const { return to_float16(static_cast<float>(value)); }
  CDKD_INLINE uint16_t operator()(float value) const { return to_float16(value); }
};

template <class T>
CDKD_INLINE const T* elements_of(const Rows& rows, int64_t row) {
  return static_cast<const T*>(rows.data) + row * rows.length;
}
template <class T>
CDKD_INLINE T* elements_of(const MutableRows& rows, int64_t row) {
  return static_cast<T*>(rows.data) + row * rows.length;
}

// The row, filled up with -inf to a multiple of `lanes`: in place where its format and length allow, else a
// converted copy in `buffer`.
template <int lanes = 1, class A>
CDKD_INLINE const A* read_row(const Rows& rows, int64_t row, A* buffer) {
  const int64_t length = rows.length;
  if (rows.format == native_format<A>() && length % lanes == 0) return elements_of<A>(rows, row);
  for (int64_t i = length; i % lanes != 0; ++i) buffer[i] = -std::numeric_limits<A>::infinity();
  switch (rows.format) {
    case Format::kFloat64:
      convert_row(elements_of<double>(rows, row), length, buffer, AsIs());
      break;
    case Format::kFloat32:
      convert_row(elements_of<float>(rows, row), length, buffer, AsIs());
      break;
    case Format::kBFloat16:
      convert_row(elements_of<uint16_t>(rows, row), length, buffer, FromBFloat16());
      break;
    case Format::kFloat16:
      convert_row(elements_of<uint16_t>(rows, row), length, buffer, FromFloat16());
      break;
  }
  return buffer;
}

template <class A>
CDKD_INLINE A read_scalar(const Rows& scalars, int64_t index) {
  A buffer = 0;
  return *read_row(scalars, index, &buffer);
}

// Where to compute the row in whole vectors: in place, or in `buffer` if write_row() has to copy it.
template <int lanes = 1, class A>
CDKD_INLINE A* target_row(const MutableRows& rows, int64_t row, A* buffer) {
  return rows.format == native_format<A>() && rows.length % lanes == 0 ? elements_of<A>(rows, row) : buffer;
}

// Copy what was computed in `buffer`; nothing to do if it was computed in place.
template <class A>
CDKD_INLINE void write_row(const MutableRows& rows, int64_t row, const A* values) {
  const int64_t length = rows.length;
  if (rows.format == native_format<A>() && values == elements_of<A>(rows, row)) return;
  switch (rows.format) {
    case Format::kFloat64:
      convert_row(values, length, elements_of<double>(rows, row), AsIs());
      break;
    case Format::kFloat32:
      convert_row(values, length, elements_of<float>(rows, row), AsIs());
      break;
    case Format::kBFloat16:
      convert_row(values, length, elements_of<uint16_t>(rows, row), ToBFloat16());
      break;
    case Format::kFloat16:
      convert_row(values, length, elements_of<uint16_t>(rows, row), ToFloat16());
      break;
  }
}

// One thread's working memory: uninitialised arrays handed out one after the other, each a whole number of
// vectors.
template <class A>
class Scratch {
 public:
  static constexpr int64_t kStep = 64 / static_cast<int64_t>(sizeof(A));

  Scratch(int64_t arrays, int64_t longest)
      : memory_(arrays * round_up(longest, kStep)), next_(memory_.data()) {}

  A* take(int64_t size) {
    A* taken = next_;
    next_ += round_up(size, kStep);
    return taken;
  }

 private:
  AlignedBuffer<A> memory_;
  A* next_;
};

}  // namespace cdkd::cpu
