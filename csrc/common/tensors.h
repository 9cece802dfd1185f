// Between torch's tensors and plain memory, on any device.
#pragma once
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/arguments.h"

namespace cdkd {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

struct ElementType {
  const char* name;
  bool floating;
  Format format;
};

inline ElementType element_type(const Tensor& tensor) {
  const auto other = [](const char* name) { return ElementType{name, false, Format::kFloat32}; };
  const auto floating = [](Format format) { return ElementType{name_of(format), true, format}; };
  switch (tensor.scalar_type()) {
    case ScalarType::Double:
      return floating(Format::kFloat64);
    case ScalarType::Float:
      return floating(Format::kFloat32);
    case ScalarType::BFloat16:
      return floating(Format::kBFloat16);
    case ScalarType::Half:
      return floating(Format::kFloat16);
    case ScalarType::Byte:
      return other("uint8");
    case ScalarType::Char:
      return other("int8");
    case ScalarType::Short:
      return other("int16");
    case ScalarType::Int:
      return other("int32");
    case ScalarType::Long:
      return other("int64");
    case ScalarType::Bool:
      return other("bool");
    default:
      return other(toString(tensor.scalar_type()));
  }
}

inline Place place_of(const Tensor& tensor) {
  if (tensor.is_cpu()) return {Place::kCpu, 0};
  if (tensor.is_cuda()) return {Place::kCuda, tensor.get_device_index()};
  return {Place::kOther, 0};
}

// Check for plain memory, which sparse tensors have none of, nor has what stands for None. Of the layout of
// an op's direct arguments torch's dispatcher takes care, of those in a list nobody.
inline const Tensor& check_strided(const char* name, const Tensor& tensor) {
  if (!tensor.defined()) fail(name, "a tensor", "None");
  int32_t layout = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_layout(tensor.get(), &layout));
  if (layout != aoti_torch_layout_strided()) fail(name, "a strided tensor", "one of another layout");
  return tensor;
}

inline Tensor packed(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// Whether one element stands for all: the gradient of a mean comes as a single number, expanded.
inline bool is_repeated(const Tensor& tensor) {
  return std::all_of(tensor.strides().begin(), tensor.strides().end(),
                     [](int64_t stride) { return stride == 0; });
}

// An op's tensor, and what the checks want to know of it. `tensor` keeps the memory that a call names.
struct Input : Argument {
  Tensor tensor;

  Input(const char* name, const Tensor& given, int32_t element = -1)
      : Input(name, packed(check_strided(name, given)), element, false) {}

  // One whose single repeated element is not copied into as many.
  static Input one_or_each(const char* name, const Tensor& given) {
    const bool repeated = is_repeated(check_strided(name, given));
    return {name, repeated ? given : packed(given), -1, repeated};
  }

 private:
  Input(const char* name, Tensor contiguous, int32_t element, bool repeated)
      : Argument(describe(name, contiguous, element, repeated)), tensor(std::move(contiguous)) {}

  static Argument describe(const char* name, const Tensor& tensor, int32_t element, bool repeated) {
    const ElementType type = element_type(tensor);
    return {name,
            element,
            type.name,
            type.floating,
            type.format,
            place_of(tensor),
            {tensor.sizes().data(), tensor.dim()},
            tensor.const_data_ptr(),
            repeated};
  }
};

// Makes results where the op's first tensor lies.
class Allocator {
 public:
  using Tensor = cdkd::Tensor;
  using Input = cdkd::Input;

  explicit Allocator(const Tensor& like) : like_(like) {}

  Tensor allocate(Sizes sizes, Format format) const {
    constexpr ScalarType types[] = {ScalarType::Double, ScalarType::Float, ScalarType::BFloat16,
                                    ScalarType::Half};
    return allocate(sizes, types[static_cast<int32_t>(format)]);
  }

  Tensor allocate_bytes(Sizes sizes) const { return allocate(sizes, ScalarType::Byte); }

  // A tensor that holds no float64, which kernels that compute in float do not read.
  static Tensor narrowed(const Tensor& tensor) {
    const bool wide = tensor.scalar_type() == ScalarType::Double;
    return wide ? torch::stable::to(tensor, ScalarType::Float) : tensor;
  }

 private:
  // Uninitialised; without the dispatcher, which costs more than a row.
  Tensor allocate(Sizes sizes, ScalarType type) const {
    std::vector<int64_t> strides(sizes.count());
    int64_t stride = 1;
    for (int64_t i = sizes.count(); i-- > 0;) {
      strides[i] = stride;
      stride *= std::max<int64_t>(sizes[i], 1);
    }
    int32_t device = 0;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like_.get(), &device));
    const int32_t dtype = torch::stable::detail::to<int32_t>(torch::stable::detail::from(type));
    AtenTensorHandle handle = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(sizes.count(), sizes.data(), strides.data(), dtype,
                                                    device, like_.get_device_index(), &handle));
    return Tensor(handle);
  }

  const Tensor& like_;
};

}  // namespace cdkd
