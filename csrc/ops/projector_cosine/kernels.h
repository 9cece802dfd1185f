// projector_cosine for CUDA, without torch.
#pragma once
#include "arguments.h"
#include "device_language.h"

namespace cdkd::cuda {

int64_t projector_cosine_workspace(const ProjectorCosine& call);
int64_t projector_cosine_backward_workspace(const ProjectorCosine& call);

// Two launches on the current device: the projections, and the cosines.
cudaError_t launch_projector_cosine(const ProjectorCosine& call, cudaStream_t stream);

// Three launches: the gradients of feature and select in parts, those of weight and bias, and the parts'
// sums. If nothing was kept, four for each quarter of the batch.
cudaError_t launch_projector_cosine_backward(const ProjectorCosine& call, cudaStream_t stream);

CDKD_EXPORT_LAUNCHER(projector_cosine, ProjectorCosine)
CDKD_EXPORT_LAUNCHER(projector_cosine_backward, ProjectorCosine)
CDKD_EXPORT_WORKSPACE(projector_cosine, ProjectorCosine)
CDKD_EXPORT_WORKSPACE(projector_cosine_backward, ProjectorCosine)
CDKD_EXPORT_FIELDS(ProjectorCosine, format, tensor_cores, relu, eps, samples, channels, positions, targets,
                   projectors, feature, weight, bias, select, teacher, cosine, products, projected, active,
                   inner, gradient, feature_gradient, weight_gradient, bias_gradient, select_gradient,
                   workspace)

}  // namespace cdkd::cuda
