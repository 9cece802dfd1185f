// Memory that a call names, on any device: rows of one of the floating types.
#pragma once
#include <cstdint>

#include "common/format.h"

namespace cdkd {

// A contiguous matrix of `length` columns; of a single one, a list of scalars.
struct Rows {
  const void* data;
  int32_t length;
  Format format;
};

struct MutableRows {
  void* data;
  int32_t length;
  Format format;
};

}  // namespace cdkd
