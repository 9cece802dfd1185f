// The floating types that tensors hold.
#pragma once
#include <cstdint>

namespace cdkd {

enum class Format : int32_t { kFloat64, kFloat32, kBFloat16, kFloat16 };

constexpr const char* name_of(Format format) {
  constexpr const char* names[] = {"float64", "float32", "bfloat16", "float16"};
  return names[static_cast<int32_t>(format)];
}

// The type in which sums are kept and results given: double for float64, else float.
constexpr Format accumulator(bool wide) { return wide ? Format::kFloat64 : Format::kFloat32; }

}  // namespace cdkd
