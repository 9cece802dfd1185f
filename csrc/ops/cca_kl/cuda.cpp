// cca_kl on CUDA tensors.
#include <torch/csrc/stable/library.h>

#include "cuda/device.h"
#include "kernels.h"

namespace cdkd::cuda {

void compute(const Device& device, const CcaKl& call) { check_launch(launch_cca_kl(call, device.stream())); }

}  // namespace cdkd::cuda

STABLE_TORCH_LIBRARY_IMPL(cdkd, CUDA, m) {
  using Operators = cdkd::CcaKlOperators<cdkd::cuda::Device>;
  m.impl("cca_kl", TORCH_BOX(&Operators::plain));
  m.impl("cca_kl_gradients", TORCH_BOX(&Operators::gradients));
  m.impl("cca_kl_backward", TORCH_BOX(&Operators::backward));
}
