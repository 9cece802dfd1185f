// sau_select on CUDA tensors.
#include <torch/csrc/stable/library.h>

#include "cuda/device.h"
#include "kernels.h"

namespace cdkd::cuda {

void compute(const Device& device, SauSelect call) {
  const Tensor workspace = device.allocate_bytes({sau_select_workspace(call)});
  call.workspace = workspace.mutable_data_ptr();
  check_launch(launch_sau_select(call, device.stream()));
}

void compute_backward(const Device& device, SauSelect call) {
  const Tensor workspace = device.allocate_bytes({sau_select_backward_workspace(call)});
  call.workspace = workspace.mutable_data_ptr();
  check_launch(launch_sau_select_backward(call, device.stream()));
}

}  // namespace cdkd::cuda

STABLE_TORCH_LIBRARY_IMPL(cdkd, CUDA, m) {
  using Operators = cdkd::SauSelectOperators<cdkd::cuda::Device>;
  m.impl("sau_select", TORCH_BOX(&Operators::plain));
  m.impl("sau_select_forward", TORCH_BOX(&Operators::forward));
  m.impl("sau_select_backward", TORCH_BOX(&Operators::backward));
}
