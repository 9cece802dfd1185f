// The floating types that tensors hold.
#pragma once
#include <cstdint>

namespace cdkd {

enum class Format : int32_t { kFloat64, kFloat32, kBFloat16, kFloat16 };

}  // namespace cdkd
