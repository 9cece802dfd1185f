// projector_cosine on raw pointers; the arguments are those of cdkd_ext.ops.projector_cosine. Letters: B
// samples, C channels, S positions of the feature, T of the teacher, K projectors.
#pragma once
#include <cstdint>

#include "cuda/call.h"

namespace cdkd::cuda {

// All tensors contiguous. Numbers called wide are float, or double if the format is float64.
struct ProjectorCosine {
  Format format;      // of feature, weight and teacher
  bool tensor_cores;  // for 16-bit formats; bfloat16 needs compute capability 8.0
  bool relu;
  double eps;
  int64_t samples, channels, positions, targets, projectors;
  const void* feature;  // (B, C, S)
  const void* weight;   // (K, T, S)
  const void* bias;     // (K, T) wide
  const void* select;   // (B, K, C) wide
  const void* teacher;  // (B, C, T)

  // written by the forward pass, read by the backward one
  void* cosine;     // (B,) wide
  void* products;   // (B, 3) wide: <output, teacher>, <output, output>, <teacher, teacher>
  void* projected;  // (B·C, T) wide: Σ_k select · activation; null if not kept, then the backward pass
                    // projects again
  uint8_t* active;  // (planes of 8 projectors, B·C, T): bit k % 8 is set where the ReLU passes; null likewise

  // of the backward pass; null if not wanted
  const void* gradient;    // (B,) wide, of the cosines
  void* feature_gradient;  // (B, C, S) wide
  void* weight_gradient;   // (K, T, S) wide; together with the bias's
  void* bias_gradient;     // (K, T) wide
  void* select_gradient;   // (B, K, C) wide; always wanted

  void* workspace;  // memory of the size told below, aligned to 16 bytes
};

int64_t projector_cosine_workspace(const ProjectorCosine& call);
int64_t projector_cosine_backward_workspace(const ProjectorCosine& call);

// Two launches on the current device: the projections, and the cosines.
cudaError_t launch_projector_cosine(const ProjectorCosine& call, cudaStream_t stream);

// Three launches: the gradients of feature and select in parts, those of weight and bias, and the parts'
// sums. If nothing was kept, four for each quarter of the batch.
cudaError_t launch_projector_cosine_backward(const ProjectorCosine& call, cudaStream_t stream);

}  // namespace cdkd::cuda
