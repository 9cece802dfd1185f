// simcc_kl for CUDA, without torch.
#pragma once
#include "arguments.h"
#include "device_language.h"

namespace cdkd::cuda {

// One launch, on the current device.
cudaError_t launch_simcc_kl(const SimccKl& call, cudaStream_t stream);

CDKD_EXPORT_LAUNCHER(simcc_kl, SimccKl)
CDKD_EXPORT_FIELDS(SimccKl, logits, target, rows, smoothing, sigma, wide, loss, gradient)

}  // namespace cdkd::cuda
