// scale_rows for CUDA, without torch.
#pragma once
#include "arguments.h"
#include "device_language.h"

namespace cdkd::cuda {

// Partial sums that the launcher needs room for.
constexpr int64_t kScaleRowsPartials = 1024;

// One launch on the current device, or two with a sum.
cudaError_t launch_scale_rows(const ScaleRows& call, cudaStream_t stream);

CDKD_EXPORT_LAUNCHER(scale_rows, ScaleRows)
CDKD_EXPORT_FIELDS(ScaleRows, unscaled, scale, scale_step, rows, wide, scaled, weighted, partials, sum)

}  // namespace cdkd::cuda
