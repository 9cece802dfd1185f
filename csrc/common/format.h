// The floating types that tensors hold.
#pragma once

namespace cdkd {

enum class Format { kFloat64, kFloat32, kBFloat16, kFloat16 };

}  // namespace cdkd
