// simcc_kl on CUDA tensors.
#include <torch/csrc/stable/library.h>

#include "cuda/device.h"
#include "kernels.h"

namespace cdkd::cuda {

void compute(const Device& device, const SimccKl& call) {
  check_launch(launch_simcc_kl(call, device.stream()));
}

}  // namespace cdkd::cuda

STABLE_TORCH_LIBRARY_IMPL(cdkd, CUDA, m) {
  using Operators = cdkd::SimccKlOperators<cdkd::cuda::Device>;
  m.impl("simcc_kl", TORCH_BOX(&Operators::plain));
  m.impl("simcc_kl_gradients", TORCH_BOX(&Operators::gradients));
  m.impl("simcc_kl_backward", TORCH_BOX(&Operators::backward));
}
