// cca_kl for CUDA, without torch.
#pragma once
#include "arguments.h"
#include "device_language.h"

namespace cdkd::cuda {

// One launch, on the current device.
cudaError_t launch_cca_kl(const CcaKl& call, cudaStream_t stream);

CDKD_EXPORT_LAUNCHER(cca_kl, CcaKl)
CDKD_EXPORT_FIELDS(CcaKl, student, teacher, tau, weights, rows, offset_part, offset_whole, probabilities,
                   wide, loss, student_gradient, tau_gradient)

}  // namespace cdkd::cuda
