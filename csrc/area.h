// Crops whose pixels are means over the area of the image that they cover, for crops that are not turned.
#pragma once
#include <cstddef>
#include <cstdint>

namespace cdkd {

// Three bytes a pixel without gaps between them; rows are `row_stride` bytes apart.
struct Image {
  const uint8_t* data;
  ptrdiff_t height, width, row_stride;
};

// `count` rows or columns of a crop; coordinates of the image times `scale`, plus `offset`, are the crop's.
struct Axis {
  double scale, offset;
  ptrdiff_t count;
};

// Writes (rows.count, columns.count, 3) bytes: the means of the image's pixels, squares around their centres,
// over the squares around the centres of the crop's pixels, rounded; outside of the image it is black. Where
// a pixel of the crop is no larger than one of the image, that is what bilinear interpolation gives. The same
// bytes on every processor.
void area_crop(const Image& image, const Axis& columns, const Axis& rows, uint8_t* crop);

}  // namespace cdkd
