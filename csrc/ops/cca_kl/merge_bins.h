// Sum a row of teacher bins into the student's classes.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "class_bins.h"
#include "cpu/aligned_buffer.h"
#include "cpu/vector.h"

namespace cdkd::cpu {

// Zeros in front of a row of bins and behind it, a cache line of floats: as far as blocks reach beyond.
constexpr int64_t kMargin = 16;

// The intervals of all classes are blocks of `ratio` bins, `reach` - 1/2 bins down if `half`, else `reach`.
struct Blocks {
  int64_t ratio;
  int64_t reach;
  bool half;
};

// Ratios that halving and a last division by three bring to one, and shifts by half bins: the fast way.
inline bool merges_in_blocks(int64_t bins, int64_t classes, const Blocks& blocks, double offset_part) {
  if (bins % classes || (offset_part != 0 && offset_part != 0.5)) return false;
  if (blocks.reach <= -kMargin || blocks.reach > kMargin) return false;
  int64_t ratio = blocks.ratio;
  while (ratio % 2 == 0) ratio /= 2;
  return ratio == 1 || ratio == 3;
}

// halves[i] = bins[2i] + bins[2i + 1].
template <int bytes>
CDKD_INLINE void sum_neighbours(const double* bins, int64_t count, double* halves) {
  for (int64_t i = 0; i < count; ++i) halves[i] = bins[2 * i] + bins[2 * i + 1];
}

// Compilers reorder across the 128-bit lanes twice, before adding; once, after it, is enough. AVX-512 takes
// any 16 of 32 floats in one instruction.
template <int bytes>
CDKD_INLINE void sum_neighbours(const float* bins, int64_t count, float* halves) {
  using V = Vector<float, bytes >= 32 ? bytes : 32>;
  constexpr int lanes = sizeof(V) / sizeof(float);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    V a, b;
    load(a, bins + 2 * i);
    load(b, bins + 2 * i + lanes);
    if constexpr (lanes == 16) {
      store(halves + i,
            V(__builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
              __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)));
    } else {
      const V in_lanes = __builtin_shufflevector(a, b, 0, 2, 8, 10, 4, 6, 12, 14) +
                         __builtin_shufflevector(a, b, 1, 3, 9, 11, 5, 7, 13, 15);
      store(halves + i, V(__builtin_shufflevector(in_lanes, in_lanes, 0, 1, 4, 5, 2, 3, 6, 7)));
    }
  }
  for (; i < count; ++i) halves[i] = bins[2 * i] + bins[2 * i + 1];
}

// Sum blocks of `ratio` bins, by halves as long as it is even.
template <int bytes, class A>
CDKD_INLINE void sum_blocks(const A* bins, int64_t classes, int64_t ratio, A* work, A* merged) {
  for (; ratio % 2 == 0; ratio /= 2) {
    const int64_t count = classes * (ratio / 2);
    A* halves = count == classes ? merged : work;
    sum_neighbours<bytes>(bins, count, halves);
    bins = halves;
    work += count;
  }
  if (ratio == 3) {
#pragma omp simd
    for (int64_t i = 0; i < classes; ++i) merged[i] = bins[3 * i] + bins[3 * i + 1] + bins[3 * i + 2];
  } else if (bins != merged) {
#pragma omp simd
    for (int64_t i = 0; i < classes; ++i) merged[i] = bins[i];
  }
}

// A block that begins half a bin lower is one of the means of each bin and the next. What lies below the
// first block or above the last belongs to them. `bins` has its margins; `work` holds 2 · (N_t + 2 ·
// kMargin).
template <int bytes, class A>
CDKD_INLINE void merge_blocks(const A* bins, int64_t classes, const Blocks& blocks, A* work, A* merged) {
  const int64_t reach = blocks.reach;
  if (reach == 0 && !blocks.half) return sum_blocks<bytes>(bins, classes, blocks.ratio, work, merged);
  const int64_t count = classes * blocks.ratio;
  const int64_t begin = std::min<int64_t>(-reach, blocks.half ? -1 : 0);
  const int64_t end = std::max(count - reach, count);
  const A* from = bins;
  if (blocks.half) {
    A* means = work + kMargin;
    work += count + 2 * kMargin;
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) means[i] = A(0.5) * (bins[i] + bins[i + 1]);
    from = means;
  }
  sum_blocks<bytes>(from - reach, classes, blocks.ratio, work, merged);
  for (int64_t i = begin; i < -reach; ++i) merged[0] += from[i];
  for (int64_t i = count - reach; i < count; ++i) merged[classes - 1] += from[i];
}

// What each class is made of, for any ratio. Where inner classes take few bins, their shares lie in columns,
// so that a vector holds as many classes as it has lanes.
template <class A>
class ClassShares {
 public:
  // By offset_whole + offset_part the intervals are moved down.
  ClassShares(int64_t bins, int64_t classes, int32_t offset_whole, A offset_part) {
    if (bins * classes <= UINT32_MAX) {
      divide<uint32_t>(bins, classes, offset_whole, offset_part);
    } else {
      divide<int64_t>(bins, classes, offset_whole, offset_part);
    }
    const int64_t most = divide_up(bins, classes) + 1;
    if (most > kColumns || classes < 3) return;
    columns_ = most;
    shares_.assign(most * classes, A(0));
    first_.assign(classes, 0);
    for (int64_t j = 1; j < classes - 1; ++j) {
      const ClassBins<A>& part = parts_[j];
      first_[j] = part.first;
      shares_[j] = part.first_share;
      for (int64_t i = part.first + 1; i < part.last; ++i) shares_[(i - part.first) * classes + j] = 1;
      if (part.last > part.first) shares_[(part.last - part.first) * classes + j] = part.last_share;
    }
  }

  CDKD_INLINE void merge(const A* bins, A* merged) const {
    const int64_t classes = static_cast<int64_t>(parts_.size());
    if (columns_ == 0) {
      for (int64_t j = 0; j < classes; ++j) merged[j] = sum(bins, j);
      return;
    }
    const int32_t* first = first_.data();
    const A* shares = shares_.data();
#pragma omp simd
    for (int64_t j = 0; j < classes; ++j) merged[j] = shares[j] * bins[first[j]];
    for (int64_t column = 1; column < columns_; ++column) {
      ++bins;
      shares += classes;
#pragma omp simd
      for (int64_t j = 0; j < classes; ++j) merged[j] += shares[j] * bins[first[j]];
    }
    bins -= columns_ - 1;
    merged[0] = sum(bins, 0);
    merged[classes - 1] = sum(bins, classes - 1);
  }

 private:
  static constexpr int64_t kColumns = 8;  // fewer than kMargin: a row's end is read beyond, by shares of zero

  static constexpr int64_t kLong = 64;  // from here on one sum would round too often

  // Whole bins from *i on, as many as make whole vectors, each lane on its own.
  CDKD_INLINE static A sum_whole(const A* bins, int64_t* i, int64_t end) {
    constexpr int kLanes = 16;
    A lanes[kLanes] = {};
    for (; *i + kLanes <= end; *i += kLanes) {
#pragma omp simd
      for (int k = 0; k < kLanes; ++k) lanes[k] += bins[*i + k];
    }
    for (int width = kLanes / 2; width > 0; width /= 2)
      for (int k = 0; k < width; ++k) lanes[k] += lanes[k + width];
    return lanes[0];
  }

  template <class Int>
  void divide(int64_t bins, int64_t classes, int32_t whole, A part) {
    const Int n = static_cast<Int>(bins), count = static_cast<Int>(classes);
    parts_.reserve(classes);
    ClassEdge<A> left{0, 0};
    for (Int j = 1; j <= count; ++j) {
      const ClassEdge<A> right = class_edge(j, n, count, whole, part);
      parts_.push_back(bins_between(left, right, static_cast<int32_t>(bins)));
      left = right;
    }
  }

  CDKD_INLINE A sum(const A* bins, int64_t j) const {
    const ClassBins<A> part = parts_[j];
    A sum = part.first_share * bins[part.first];
    int64_t i = part.first + 1;
    if (part.last - i >= kLong) sum += sum_whole(bins, &i, part.last);
    for (; i < part.last; ++i) sum += bins[i];
    return part.last > part.first ? sum + part.last_share * bins[part.last] : sum;
  }

  std::vector<ClassBins<A>> parts_;  // (N_s,)
  std::vector<int32_t> first_;       // (N_s,) first bins
  std::vector<A> shares_;            // (columns, N_s) of it and those after it; 0 of the first and last class
  int64_t columns_ = 0;              // none: by parts_
};

}  // namespace cdkd::cpu
