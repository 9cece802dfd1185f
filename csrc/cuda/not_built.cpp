// Stands in for the CUDA kernels in a build without nvcc: says how to get them.
#include <torch/csrc/stable/library.h>

#include <stdexcept>

namespace {

void not_built(StableIValue*, uint64_t, uint64_t) {
  throw std::runtime_error(
      "cdkd: this build has no CUDA kernels. Install the CUDA toolkit (nvcc) and run "
      "`CMAKE_ARGS=-DCDKD_CUDA=ON pip "
      "install --force-reinstall --no-deps .` in the checkout, or move the tensors to the CPU.");
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cdkd, CUDA, m) {
  for (const char* op :
       {"cca_kl", "cca_kl_gradients", "cca_kl_backward", "simcc_kl", "simcc_kl_gradients",
        "simcc_kl_backward", "simcc_decode", "projector_cosine", "projector_cosine_forward",
        "projector_cosine_backward", "sau_select", "sau_select_forward", "sau_select_backward"})
    m.impl(op, &not_built);
}
