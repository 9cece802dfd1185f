// simcc_decode for CUDA, without torch.
#pragma once
#include "arguments.h"
#include "device_language.h"

namespace cdkd::cuda {

// One launch, on the current device. A joint whose counterpart is none of the J becomes NaN.
cudaError_t launch_simcc_decode(const SimccDecode& call, cudaStream_t stream);

CDKD_EXPORT_LAUNCHER(simcc_decode, SimccDecode)
CDKD_EXPORT_FIELDS(DecodeAxis, logits, mirrored)
CDKD_EXPORT_FIELDS(SimccDecode, x, y, mirror_sum, permutation, batch, joints, split_ratio, to_image, score,
                   wide, keypoints, scores)

}  // namespace cdkd::cuda
