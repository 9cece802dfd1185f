// Vectors of any width, by the compiler's own extension: loads, stores and sums over the lanes.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "common/portable.h"

namespace cdkd::cpu {

template <class T, int bytes>
struct VectorOf {
  typedef T type __attribute__((vector_size(bytes)));
  static constexpr int lanes = bytes / static_cast<int>(sizeof(T));
};

template <class T, int bytes>
using Vector = typename VectorOf<T, bytes>::type;

// The integer of a floating type's size: what comparisons of its vectors give.
template <class T>
using Bits = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;

template <class V, class T>
CDKD_INLINE void load(V& v, const T* p) {
  __builtin_memcpy(&v, p, sizeof(V));
}

template <class V, class T>
CDKD_INLINE void store(T* p, const V& v) {
  __builtin_memcpy(p, &v, sizeof(V));
}

// Lanes first, first + 1, … of a vector.
template <int first, class V, int... lane>
CDKD_INLINE auto lanes_from(const V& v, std::integer_sequence<int, lane...>) {
  return __builtin_shufflevector(v, v, (first + lane)...);
}

// Folds the upper half onto the lower until one lane is left: always the same order. Halves are taken by
// shuffles, for compilers send a copy of memory through memory.
template <class T, int bytes, class Fold>
CDKD_INLINE T fold_lanes(const Vector<T, bytes>& v, Fold fold) {
  constexpr int half = VectorOf<T, bytes>::lanes / 2;
  if constexpr (half == 1) {
    return fold(v[0], v[1]);
  } else {
    using Half = std::make_integer_sequence<int, half>;
    return fold_lanes<T, bytes / 2>(fold(lanes_from<0>(v, Half()), lanes_from<half>(v, Half())), fold);
  }
}

struct Add {
  template <class V>
  CDKD_INLINE V operator()(const V& a, const V& b) const {
    return a + b;
  }
};
struct Larger {
  template <class V>
  CDKD_INLINE V operator()(const V& a, const V& b) const {
    return a > b ? a : b;
  }
};
struct Smaller {
  template <class V>
  CDKD_INLINE V operator()(const V& a, const V& b) const {
    return a < b ? a : b;
  }
};

// 0, 1, 2, … in the lanes.
template <class T, int bytes>
CDKD_INLINE Vector<T, bytes> lane_numbers() {
  Vector<T, bytes> numbers;
  for (int lane = 0; lane < VectorOf<T, bytes>::lanes; ++lane) numbers[lane] = static_cast<T>(lane);
  return numbers;
}

}  // namespace cdkd::cpu
