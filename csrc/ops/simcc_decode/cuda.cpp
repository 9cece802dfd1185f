// simcc_decode on CUDA tensors.
#include <torch/csrc/stable/library.h>

#include "cuda/device.h"
#include "kernels.h"

namespace cdkd::cuda {

void compute(const Device& device, const SimccDecode& call) {
  check_launch(launch_simcc_decode(call, device.stream()));
}

}  // namespace cdkd::cuda

STABLE_TORCH_LIBRARY_IMPL(cdkd, CUDA, m) {
  m.impl("simcc_decode", TORCH_BOX(&cdkd::SimccDecodeOperators<cdkd::cuda::Device>::run));
}
