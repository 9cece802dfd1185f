// Where an op's CPU kernels run. The operators of a room call `compute(device, call)` or the like, which its
// cpu.cpp defines.
#pragma once
#include <algorithm>

#include "common/tensors.h"

namespace cdkd::cpu {

class Device : public Allocator {
 public:
  explicit Device(const Input& first) : Allocator(first.tensor) {
    if (first.place.kind != Place::kCpu)
      fail(first.label(), "a tensor on cpu", "one on " + text_of(first.place));
  }

  void clear(const Tensor& tensor) const {
    // of an empty tensor there is no address, which memset and memcpy may not be given
    std::fill_n(static_cast<char*>(tensor.mutable_data_ptr()), bytes(tensor), '\0');
  }

  void copy(const void* from, const Tensor& to) const {
    std::copy_n(static_cast<const char*>(from), bytes(to), static_cast<char*>(to.mutable_data_ptr()));
  }

 private:
  static int64_t bytes(const Tensor& tensor) { return tensor.numel() * tensor.element_size(); }
};

}  // namespace cdkd::cpu
