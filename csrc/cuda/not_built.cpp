// Stands in for the CUDA kernels in a build without nvcc: says how to get them.
#include <torch/csrc/stable/library.h>

#include <cstring>
#include <stdexcept>
#include <string>

#include "schemas.h"

namespace {

void not_built(StableIValue*, uint64_t, uint64_t) {
  throw std::runtime_error(
      "cdkd: this build has no CUDA kernels. Install the CUDA toolkit (nvcc) and run "
      "`CMAKE_ARGS=-DCDKD_CUDA=ON pip "
      "install --force-reinstall --no-deps .` in the checkout, or move the tensors to the CPU.");
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cdkd, CUDA, m) {
  for (const char* const* schema = cdkd::kSchemas; *schema; ++schema)
    m.impl(std::string(*schema, std::strcspn(*schema, "(")).c_str(), &not_built);
}
