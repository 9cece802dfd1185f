// The launchers and the scheduler's settings as C functions, for ctypes.
#include <exception>
#include <string>

#include "ops/cca_kl/kernels.h"
#include "ops/projector_cosine/kernels.h"
#include "ops/sau_select/kernels.h"
#include "ops/scale_rows/kernels.h"
#include "ops/simcc_decode/kernels.h"
#include "ops/simcc_kl/kernels.h"

namespace {

// Null, or what went wrong; valid until the next call.
template <class Call>
const char* run(cudaError_t (*launcher)(const Call&, cudaStream_t), const Call& call) {
  static std::string message;
  try {
    launcher(call, nullptr);
    return nullptr;
  } catch (const std::exception& error) {
    message = error.what();
    return message.c_str();
  }
}

}  // namespace

#define CDKD_EXPORT extern "C" __attribute__((visibility("default")))
#define CDKD_EXPORT_OP(name, Call)                                    \
  CDKD_EXPORT const char* cdkd_##name(const cdkd::cuda::Call* call) { \
    return run(&cdkd::cuda::launch_##name, *call);                    \
  }

CDKD_EXPORT_OP(cca_kl, CcaKl)
CDKD_EXPORT_OP(projector_cosine, ProjectorCosine)
CDKD_EXPORT_OP(projector_cosine_backward, ProjectorCosine)
CDKD_EXPORT_OP(sau_select, SauSelect)
CDKD_EXPORT_OP(sau_select_backward, SauSelect)
CDKD_EXPORT_OP(scale_rows, ScaleRows)
CDKD_EXPORT_OP(simcc_decode, SimccDecode)
CDKD_EXPORT_OP(simcc_kl, SimccKl)

// Bytes of the workspace that the launcher wants.
#define CDKD_EXPORT_WORKSPACE(name, Call)                                     \
  CDKD_EXPORT int64_t cdkd_##name##_workspace(const cdkd::cuda::Call* call) { \
    return cdkd::cuda::name##_workspace(*call);                               \
  }

CDKD_EXPORT_WORKSPACE(projector_cosine, ProjectorCosine)
CDKD_EXPORT_WORKSPACE(projector_cosine_backward, ProjectorCosine)
CDKD_EXPORT_WORKSPACE(sau_select, SauSelect)
CDKD_EXPORT_WORKSPACE(sau_select_backward, SauSelect)

CDKD_EXPORT void cdkd_configure(uint64_t schedule, uint64_t max_blocks) {
  cdkd::emulation::configure(schedule, max_blocks);
}
CDKD_EXPORT void cdkd_clear_launches() { cdkd::emulation::clear_launches(); }
CDKD_EXPORT size_t cdkd_copy_launches(cdkd::emulation::Launch* launches, size_t capacity) {
  return cdkd::emulation::copy_launches(launches, capacity);
}
