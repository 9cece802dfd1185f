// sau_select for CUDA, without torch.
#pragma once
#include "arguments.h"
#include "device_language.h"

namespace cdkd::cuda {

int64_t sau_select_workspace(const SauSelect& call);
int64_t sau_select_backward_workspace(const SauSelect& call);

// On the current device: one launch, in training three.
cudaError_t launch_sau_select(const SauSelect& call, cudaStream_t stream);

// Five launches: per sample back to the pooled activations, the parameters beside the convolutions, the
// feature, the convolutions, and the sums of the last two's parts; four if the feature's gradient is not
// wanted.
cudaError_t launch_sau_select_backward(const SauSelect& call, cudaStream_t stream);

CDKD_EXPORT_LAUNCHER(sau_select, SauSelect)
CDKD_EXPORT_LAUNCHER(sau_select_backward, SauSelect)
CDKD_EXPORT_WORKSPACE(sau_select, SauSelect)
CDKD_EXPORT_WORKSPACE(sau_select_backward, SauSelect)
CDKD_EXPORT_FIELDS(SauSelect, format, training, eps, samples, channels, height, width, hidden, projectors,
                   branches, kernel, feature, conv_weight, norm_weight, norm_bias, running_mean, running_var,
                   squeeze_weight, squeeze_bias, select_weight, select_bias, selection, mean, variance,
                   responses, pooled, passed, gradient, feature_gradient, conv_gradient, norm_weight_gradient,
                   norm_bias_gradient, squeeze_weight_gradient, squeeze_bias_gradient, select_weight_gradient,
                   select_bias_gradient, workspace)

}  // namespace cdkd::cuda
