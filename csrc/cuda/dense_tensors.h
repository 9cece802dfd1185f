// What the dense ops ask of tensors beyond tensors.h.
#pragma once
#include "cuda/tensors.h"

namespace cdkd::cuda {

inline void check_sizes(const char* argument, const Tensor& tensor, const std::vector<int64_t>& sizes) {
  bool matches = tensor.dim() == static_cast<int64_t>(sizes.size());
  std::string expected = "(";
  for (size_t i = 0; i < sizes.size(); ++i) {
    matches = matches && tensor.size(static_cast<int64_t>(i)) == sizes[i];
    expected += (i ? ", " : "") + std::to_string(sizes[i]);
  }
  check_shape(matches, argument, expected + ")", tensor);
}

// Fill with zeros on the stream.
inline void clear(const Tensor& tensor, const Place& place) {
  const int64_t bytes = tensor.numel() * tensor.element_size();
  if (bytes > 0)
    check_launch(cudaMemsetAsync(tensor.mutable_data_ptr(), 0, static_cast<size_t>(bytes), place.stream()));
}

// Fill from memory of the device.
inline void copy(const void* from, const Tensor& to, const Place& place) {
  const int64_t bytes = to.numel() * to.element_size();
  if (bytes > 0)
    check_launch(cudaMemcpyAsync(to.mutable_data_ptr(), from, static_cast<size_t>(bytes),
                                 cudaMemcpyDeviceToDevice, place.stream()));
}

// Major compute capability of the current device.
inline int compute_capability() {
  int device = 0, major = 0;
  check_launch(cudaGetDevice(&device));
  check_launch(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  return major;
}

}  // namespace cdkd::cuda
