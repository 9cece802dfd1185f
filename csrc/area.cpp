#include "area.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/portable.h"
#include "cpu/isa.h"

namespace cdkd {
namespace {

constexpr ptrdiff_t kChannels = 3;

// The rows (or columns) [begin, begin + weights.size()) of the image that one of the crop covers.
struct Covered {
  ptrdiff_t begin = 0;
  std::vector<float> weights;
};

std::vector<Covered> covered(const Axis& axis, ptrdiff_t size) {
  std::vector<Covered> all(axis.count);
  // over the width of a pixel of the image the mean is what linear interpolation gives: none is narrower
  const double half = std::max(0.5 / std::abs(axis.scale), 0.5), last = static_cast<double>(size) - 1;
  for (ptrdiff_t i = 0; i < axis.count; ++i) {
    const double middle = (static_cast<double>(i) - axis.offset) / axis.scale;
    const double low = middle - half, high = middle + half;
    // of an image that is far away nothing is left
    const double begin = std::min(last + 1, std::max(0.0, std::ceil(low - 0.5)));
    const double end = std::min(last, std::max(-1.0, std::floor(high + 0.5))) + 1;
    all[i].begin = static_cast<ptrdiff_t>(begin);
    for (double place = begin; place < end; ++place) {
      const double shared = std::min(high, place + 0.5) - std::max(low, place - 0.5);
      all[i].weights.push_back(static_cast<float>(std::max(shared, 0.0) / (2 * half)));
    }
  }
  return all;
}

// one multiplication and one addition, never fused, so that all versions round alike (-ffp-contract=off)
CDKD_INLINE void add_row_body(const uint8_t* row, float weight, ptrdiff_t size, float* sums) {
  for (ptrdiff_t i = 0; i < size; ++i) sums[i] += weight * static_cast<float>(row[i]);
}

using AddRow = void (*)(const uint8_t*, float, ptrdiff_t, float*);

void add_row_baseline(const uint8_t* row, float weight, ptrdiff_t size, float* sums) {
  add_row_body(row, weight, size, sums);
}

#if CDKD_HAS_ISA
CDKD_TARGET("avx2") void add_row_avx2(const uint8_t* row, float weight, ptrdiff_t size, float* sums) {
  add_row_body(row, weight, size, sums);
}
#endif

AddRow widest() {
#if CDKD_HAS_ISA
  if (cpu::isa() != cpu::Isa::baseline) return add_row_avx2;
#endif
  return add_row_baseline;
}

uint8_t rounded(float value) { return static_cast<uint8_t>(std::min(std::max(value, 0.0f), 255.0f) + 0.5f); }

}  // namespace

void area_crop(const Image& image, const Axis& columns, const Axis& rows, uint8_t* crop) {
  const AddRow add_row = widest();
  const std::vector<Covered> across = covered(columns, image.width), down = covered(rows, image.height);
  ptrdiff_t begin = image.width, end = 0;
  for (const Covered& column : across) {
    if (column.weights.empty()) continue;
    begin = std::min(begin, column.begin);
    end = std::max(end, column.begin + static_cast<ptrdiff_t>(column.weights.size()));
  }
  begin = std::min(begin, end);
  const ptrdiff_t size = (end - begin) * kChannels;
  std::vector<float> sums(size);
  for (const Covered& row : down) {
    std::fill(sums.begin(), sums.end(), 0.0f);
    for (size_t k = 0; k < row.weights.size(); ++k) {
      const ptrdiff_t place = row.begin + static_cast<ptrdiff_t>(k);
      add_row(image.data + place * image.row_stride + begin * kChannels, row.weights[k], size, sums.data());
    }
    for (const Covered& column : across) {
      float means[kChannels] = {};
      ptrdiff_t place = (column.begin - begin) * kChannels;
      for (const float weight : column.weights) {
        for (ptrdiff_t c = 0; c < kChannels; ++c) means[c] += weight * sums[place++];
      }
      for (const float mean : means) *crop++ = rounded(mean);
    }
  }
}

}  // namespace cdkd
