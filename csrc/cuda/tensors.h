// Between torch's CUDA tensors and the launchers' pointers.
#pragma once
#include <cuda_runtime_api.h>
#include <torch/csrc/stable/accelerator.h>

#include "common/tensors.h"
#include "cuda/call.h"

// Only a torch with CUDA has it; weak, the library also loads under one without.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void**);

namespace cdkd::cuda {

// The device and stream on which an op runs: its first tensor's device, and the caller's stream there.
class Place {
 public:
  Place(const char* argument, const Tensor& tensor)
      : device_(checked_device(argument, tensor)), guard_(device_) {
    check(aoti_torch_get_current_cuda_stream != nullptr, argument, "a torch that has CUDA", "one without");
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device_, &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  cudaStream_t stream() const { return stream_; }

  void check_here(const char* argument, const Tensor& tensor) const {
    const int32_t device = checked_device(argument, tensor);
    check(device == device_, argument, text("a tensor on cuda:", device_), text("one on cuda:", device));
  }

 private:
  static int32_t checked_device(const char* argument, const Tensor& tensor) {
    check(tensor.is_cuda(), argument, "a CUDA tensor", "one on another device");
    return tensor.get_device_index();
  }

  int32_t device_;
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_ = nullptr;
};

inline void check_launch(cudaError_t error) {
  if (error != cudaSuccess)
    throw std::runtime_error(text("cdkd: a CUDA kernel did not start: ", cudaGetErrorString(error)));
}

inline bool same_shape(const Tensor& a, const Tensor& b) {
  return a.dim() == b.dim() && std::equal(a.sizes().begin(), a.sizes().end(), b.sizes().begin());
}

// Whether all sizes but the last agree.
inline bool same_rows(const Tensor& a, const Tensor& b) {
  return a.dim() == b.dim() && std::equal(a.sizes().begin(), a.sizes().end() - 1, b.sizes().begin());
}

// Whether `scalars` has the shape of `rows` without its last size.
inline bool is_one_per_row(const Tensor& scalars, const Tensor& rows) {
  return scalars.dim() == rows.dim() - 1 &&
         std::equal(scalars.sizes().begin(), scalars.sizes().end(), rows.sizes().begin());
}

inline bool is_wide(const Tensor& tensor) { return tensor.scalar_type() == ScalarType::Double; }

// Within a row, kernels count in 32 bits.
inline int32_t row_length(const char* argument, int64_t length) {
  check(length <= (int64_t{1} << 30), argument, "at most 2^30 bins", length);
  return static_cast<int32_t>(length);
}

// View a contiguous tensor as rows along its last axis.
inline Rows rows_of(const char* argument, const Tensor& tensor) {
  return {tensor.const_data_ptr(), row_length(argument, last_size(tensor)), format_of(argument, tensor)};
}

inline MutableRows mutable_rows_of(const char* argument, const Tensor& tensor) {
  return {tensor.mutable_data_ptr(), row_length(argument, last_size(tensor)), format_of(argument, tensor)};
}

// View a contiguous tensor as a list of scalars.
inline Rows scalars_of(const char* argument, const Tensor& tensor) {
  return {tensor.const_data_ptr(), 1, format_of(argument, tensor)};
}

}  // namespace cdkd::cuda
