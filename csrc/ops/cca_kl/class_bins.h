// Which teacher bins make up a student class, for any ratio of the two counts and any offset.
#pragma once
#include <cstdint>

#include "common/portable.h"

namespace cdkd {

// Bins first … last: the first by its share, those after it whole, the last by its own share. If `last`
// equals `first`, only that bin's first share counts, which is 0 for a class that takes nothing.
template <class A>
struct ClassBins {
  int32_t first;
  int32_t last;
  A first_share;
  A last_share;
};

// A place among the bins: so many whole ones lie below, and a part of the next.
template <class A>
struct ClassEdge {
  int32_t bin;
  A part;
};

// Where class j of `classes` begins, and class j - 1 ends: at j·m - offset with m = bins / classes and
// offset = whole + part. What an offset leaves outside belongs to the first or the last class. Int must hold
// bins · classes.
template <class A, class Int>
CDKD_INLINE ClassEdge<A> class_edge(Int j, Int bins, Int classes, int32_t whole, A part) {
  const int32_t end = static_cast<int32_t>(bins);
  if (j == 0) return {0, 0};
  if (j == classes) return {end, 0};
  const Int scaled = j * bins, below = scaled / classes;
  ClassEdge<A> edge{static_cast<int32_t>(below) - whole, A(scaled - below * classes) / A(classes) - part};
  if (edge.part < 0) edge = {edge.bin - 1, edge.part + 1};
  if (edge.bin < 0) return {0, 0};
  if (edge.bin >= end) return {end, 0};
  return edge;
}

template <class A>
CDKD_INLINE ClassBins<A> bins_between(ClassEdge<A> left, ClassEdge<A> right, int32_t bins) {
  if (left.bin >= right.bin) {
    const int32_t only = left.bin < bins ? left.bin : bins - 1;
    return {only, only, right.part > left.part ? right.part - left.part : A(0), 0};
  }
  const bool ends_whole = right.part == 0;
  return {left.bin, right.bin - ends_whole, 1 - left.part, ends_whole ? A(1) : right.part};
}

template <class A, class Int>
CDKD_INLINE ClassBins<A> class_bins(Int j, Int bins, Int classes, int32_t whole, A part) {
  return bins_between(class_edge(j, bins, classes, whole, part),
                      class_edge(static_cast<Int>(j + 1), bins, classes, whole, part),
                      static_cast<int32_t>(bins));
}

}  // namespace cdkd
