// Checks, allocation and types of torch's tensors, whatever their device.
#pragma once
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/format.h"

namespace cdkd {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Sizes = torch::headeronly::IntHeaderOnlyArrayRef;

template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream stream;
  (stream << ... << parts);
  return stream.str();
}

inline std::string shape_text(const Tensor& tensor) {
  std::string result = "(";
  for (int64_t i = 0; i < tensor.dim(); ++i) result += (i ? ", " : "") + std::to_string(tensor.size(i));
  return result + ")";
}

// Throw what arrives in Python as a RuntimeError, in the message form of the Python checks.
template <class Came>
void check(bool condition, const char* argument, const std::string& expected, const Came& came) {
  if (!condition) throw std::runtime_error(text(argument, ": expected ", expected, ", got ", came));
}

inline void check_shape(bool condition, const char* argument, const std::string& expected,
                        const Tensor& tensor) {
  if (!condition) check(false, argument, "shape " + expected, shape_text(tensor));
}

inline Format format_of(const char* argument, const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Double:
      return Format::kFloat64;
    case ScalarType::Float:
      return Format::kFloat32;
    case ScalarType::BFloat16:
      return Format::kBFloat16;
    case ScalarType::Half:
      return Format::kFloat16;
    default:
      check(false, argument, "float32, float64, bfloat16 or float16", toString(tensor.scalar_type()));
      return Format::kFloat32;
  }
}

inline Tensor packed(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// An uninitialised contiguous tensor on the device of `like`; without the dispatcher, which costs more than a
// row.
inline Tensor allocate(const Tensor& like, Sizes sizes, ScalarType type) {
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= std::max<int64_t>(sizes[i], 1);
  }
  int32_t device = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device));
  const int32_t dtype = torch::stable::detail::to<int32_t>(torch::stable::detail::from(type));
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(sizes.size(), sizes.data(), strides.data(), dtype, device,
                                                  like.get_device_index(), &handle));
  return Tensor(handle);
}

// The sizes without the last one.
inline Sizes leading(const Tensor& tensor) { return Sizes(tensor.sizes().data(), tensor.dim() - 1); }

inline int64_t last_size(const Tensor& tensor) { return tensor.size(tensor.dim() - 1); }

constexpr ScalarType accumulator_type(bool wide) { return wide ? ScalarType::Double : ScalarType::Float; }

}  // namespace cdkd
