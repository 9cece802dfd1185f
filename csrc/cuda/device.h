// Where an op's CUDA kernels run: its first tensor's device, on the caller's stream there. The operators of a
// room call `compute(device, call)` or the like, which its cuda.cpp defines.
#pragma once
#include <cuda_runtime_api.h>
#include <torch/csrc/stable/accelerator.h>

#include "common/tensors.h"

// Only a torch with CUDA has it; weak, the library also loads under one without.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void**);

namespace cdkd::cuda {

inline void check_launch(cudaError_t error) {
  if (error != cudaSuccess)
    throw std::runtime_error(text("cdkd: a CUDA kernel did not start: ", cudaGetErrorString(error)));
}

class Device : public Allocator {
 public:
  explicit Device(const Input& first) : Allocator(first.tensor), guard_(index_of(first)) {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(first.place.index, &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  cudaStream_t stream() const { return stream_; }

  // Fill with zeros.
  void clear(const Tensor& tensor) const {
    const int64_t bytes = tensor.numel() * tensor.element_size();
    if (bytes > 0)
      check_launch(cudaMemsetAsync(tensor.mutable_data_ptr(), 0, static_cast<size_t>(bytes), stream_));
  }

  // Fill from memory of the device.
  void copy(const void* from, const Tensor& to) const {
    const int64_t bytes = to.numel() * to.element_size();
    if (bytes > 0)
      check_launch(cudaMemcpyAsync(to.mutable_data_ptr(), from, static_cast<size_t>(bytes),
                                   cudaMemcpyDeviceToDevice, stream_));
  }

  // Major compute capability.
  int capability() const {
    int device = 0, major = 0;
    check_launch(cudaGetDevice(&device));
    check_launch(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    return major;
  }

 private:
  static int32_t index_of(const Input& first) {
    if (first.place.kind != Place::kCuda)
      fail(first.label(), "a tensor on cuda", "one on " + text_of(first.place));
    if (aoti_torch_get_current_cuda_stream == nullptr)
      fail(first.label(), "a torch that has CUDA", "one without");
    return first.place.index;
  }

  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_ = nullptr;
};

}  // namespace cdkd::cuda
