// Where an op's CPU kernels run. The operators of a room call `compute(device, call)` or the like, which its
// cpu.cpp defines.
#pragma once
#include <cstring>

#include "common/tensors.h"

namespace cdkd::cpu {

class Device : public Allocator {
 public:
  explicit Device(const Input& first) : Allocator(first.tensor) {
    if (first.place.kind != Place::kCpu)
      fail(first.label(), "a tensor on cpu", "one on " + text_of(first.place));
  }

  void clear(const Tensor& tensor) const {
    std::memset(tensor.mutable_data_ptr(), 0, static_cast<size_t>(tensor.numel() * tensor.element_size()));
  }

  void copy(const void* from, const Tensor& to) const {
    std::memcpy(to.mutable_data_ptr(), from, static_cast<size_t>(to.numel() * to.element_size()));
  }
};

}  // namespace cdkd::cpu
