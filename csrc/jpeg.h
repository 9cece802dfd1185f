// How far a JPEG's picture reaches, and whether all of it is there (ITU-T T.81). Decoders fill what is
// missing with grey and say so to nobody, so the codes of every scan are counted here; no pixel is computed.
#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

namespace cdkd {

struct JpegExtent {
  int64_t height;
  int64_t width;
  int64_t end;  // of the image; what follows, such as a phone's film, is no part of it
  bool closed;  // by an end marker
  bool whole;   // every scan has the codes of all its blocks, and no bit of a coefficient lacks its scan
};

// The extent of the JPEG that `content` begins with; none if it holds no image that could be one.
std::optional<JpegExtent> jpeg_extent(std::string_view content);

}  // namespace cdkd
