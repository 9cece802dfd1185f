// Which teacher bins make up a student class, for any ratio of the two counts.
#pragma once
#include <cstdint>

#include "common/portable.h"

namespace cdkd {

// Bins first … last, the two ends by their share, those between whole. `last` may equal `first`: then the
// class is that one whole bin.
template <class A>
struct ClassBins {
  int64_t first;
  int64_t last;
  A first_share;
  A last_share;
};

// Class j of `classes` covers [j·m, (j + 1)·m) with m = bins / classes, moved down by (m - 1) / 2 if
// centered; what that leaves outside belongs to the first or the last class. Exact: edges are integers in
// units of 1 / (2·classes).
template <class A>
CDKD_INLINE ClassBins<A> class_bins(int64_t j, int64_t bins, int64_t classes, bool centered) {
  const int64_t unit = 2 * classes;
  const int64_t shift = centered ? bins - classes : 0;
  const int64_t left = j == 0 ? 0 : 2 * j * bins - shift;
  const int64_t right = j == classes - 1 ? bins * unit : 2 * (j + 1) * bins - shift;
  const int64_t first = left / unit;
  const int64_t last = (right - 1) / unit;
  return {first, last, A((first + 1) * unit - left) / A(unit), A(right - last * unit) / A(unit)};
}

}  // namespace cdkd
