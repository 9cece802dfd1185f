// projector_cosine on CUDA tensors.
#include <torch/csrc/stable/library.h>

#include "cuda/device.h"
#include "kernels.h"

namespace cdkd::cuda {

void choose_tensor_cores(const Device& device, ProjectorCosine& call) {
  call.tensor_cores = call.format == Format::kFloat16 || device.capability() >= 8;
}

void compute(const Device& device, ProjectorCosine call) {
  choose_tensor_cores(device, call);
  const Tensor workspace = device.allocate_bytes({projector_cosine_workspace(call)});
  call.workspace = workspace.mutable_data_ptr();
  check_launch(launch_projector_cosine(call, device.stream()));
}

void compute_backward(const Device& device, ProjectorCosine call) {
  choose_tensor_cores(device, call);
  const Tensor workspace = device.allocate_bytes({projector_cosine_backward_workspace(call)});
  call.workspace = workspace.mutable_data_ptr();
  check_launch(launch_projector_cosine_backward(call, device.stream()));
}

}  // namespace cdkd::cuda

STABLE_TORCH_LIBRARY_IMPL(cdkd, CUDA, m) {
  using Operators = cdkd::ProjectorCosineOperators<cdkd::cuda::Device>;
  m.impl("projector_cosine", TORCH_BOX(&Operators::plain));
  m.impl("projector_cosine_forward", TORCH_BOX(&Operators::forward));
  m.impl("projector_cosine_backward", TORCH_BOX(&Operators::backward));
}
