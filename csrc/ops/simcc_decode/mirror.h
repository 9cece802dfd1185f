// Where a SimCC bin goes when the image is mirrored.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

namespace cdkd {

// Sum of a bin and its mirror image. Pixel x mirrors to width - 1 - x, so bin k·x to k·(width - 1) - k·x:
// with bins = k·width that is k - 1 bins away from reversing the axis. The width is the smallest one with so
// many bins (they are k·width rounded down); a fractional sum rounds half to even. A sum by which no bin has
// a mirror image is -1 or 2·bins - 1, so that it fits in the integers of every kernel.
inline int64_t mirror_sum(int64_t bins, double split_ratio) {
  const double width = std::ceil(static_cast<double>(bins) / split_ratio - 1e-6);
  const double sum = std::nearbyint(split_ratio * (width - 1));
  return static_cast<int64_t>(std::clamp(sum, -1.0, 2.0 * static_cast<double>(bins) - 1));
}

}  // namespace cdkd
