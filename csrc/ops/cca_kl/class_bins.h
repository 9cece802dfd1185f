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
// units of 1 / (2·classes), which Int must hold: 2·bins·classes of them.
template <class A, class Int = int64_t>
CDKD_INLINE ClassBins<A> class_bins(Int j, Int bins, Int classes, bool centered) {
  const Int unit = 2 * classes;
  const Int shift = centered ? bins - classes : 0;
  const Int left = j == 0 ? 0 : 2 * j * bins - shift;
  const Int right = j == classes - 1 ? bins * unit : 2 * (j + 1) * bins - shift;
  const Int first = left / unit;
  const Int last = (right - 1) / unit;
  return {first, last, A((first + 1) * unit - left) / A(unit), A(right - last * unit) / A(unit)};
}

}  // namespace cdkd
