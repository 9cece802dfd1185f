// Where a SimCC bin goes when the image is mirrored.
#pragma once
#include <cmath>
#include <cstdint>

namespace cdkd {

// Sum of a bin and its mirror image. Pixel x mirrors to width - 1 - x, so bin k·x to k·(width - 1) - k·x:
// with bins = k·width that is k - 1 bins away from reversing the axis. The width is the smallest one with so
// many bins (they are k·width rounded down); a fractional sum rounds half to even.
inline int64_t mirror_sum(int64_t bins, double split_ratio) {
  const double width = std::ceil(static_cast<double>(bins) / split_ratio - 1e-6);
  return static_cast<int64_t>(std::nearbyint(split_ratio * (width - 1)));
}

}  // namespace cdkd
