// sau_select on raw pointers; the arguments are those of cdkd_ext.ops.sau_select. Letters: B samples, C
// channels, M branches, d hidden units, K projectors.
#pragma once
#include <cstdint>

#include "cuda/call.h"

namespace cdkd::cuda {

constexpr int kMaxBranches = 32;
constexpr int kMaxKernel = 127;

// All tensors contiguous. Numbers called wide are float, or double if the format is float64.
struct SauSelect {
  Format format;  // of feature and conv_weight
  bool training;  // normalise with the batch's statistics
  double eps;
  int64_t samples, channels, height, width, hidden, projectors;
  int32_t branches;
  int32_t kernel[kMaxBranches];           // odd, at most kMaxKernel
  const void* feature;                    // (B, C, h, w)
  const void* conv_weight[kMaxBranches];  // (C, C, k, k)
  const void* norm_weight;                // (M, C) wide
  const void* norm_bias;                  // (M, C) wide
  const void* running_mean;               // (M, C) wide
  const void* running_var;                // (M, C) wide
  const void* squeeze_weight;             // (d, C) wide
  const void* squeeze_bias;               // (d,) wide
  const void* select_weight;              // (K, C, d) wide
  const void* select_bias;                // (K, C) wide

  // written by the forward pass, read by the backward one; all wide
  void* selection;  // (B, K, C)
  void* mean;       // (M, C), what normalised
  void* variance;   // (M, C)
  void* responses;  // (B, M·C, h, w), of the convolutions; may be null if not training
  void* pooled;     // (B, C)
  void* passed;  // (2, M, C, B): pixels that pass the ReLU, and the sum of their normalised responses; null
                 // if responses are

  // of the backward pass; all wide
  const void* gradient;               // (B, K, C), of the selection
  void* feature_gradient;             // (B, C, h, w); null if not wanted
  void* conv_gradient[kMaxBranches];  // (C, C, k, k)
  void* norm_weight_gradient;         // (M, C)
  void* norm_bias_gradient;           // (M, C)
  void* squeeze_weight_gradient;      // (d, C)
  void* squeeze_bias_gradient;        // (d,)
  void* select_weight_gradient;       // (K, C, d)
  void* select_bias_gradient;         // (K, C)

  void* workspace;  // memory of the size told below, aligned to 16 bytes
};

int64_t sau_select_workspace(const SauSelect& call);
int64_t sau_select_backward_workspace(const SauSelect& call);

// On the current device: one launch, in training three.
cudaError_t launch_sau_select(const SauSelect& call, cudaStream_t stream);

// Five launches: per sample back to the pooled activations, the parameters beside the convolutions, the
// feature, the convolutions, and the sums of the last two's parts; four if the feature's gradient is not
// wanted.
cudaError_t launch_sau_select_backward(const SauSelect& call, cudaStream_t stream);

}  // namespace cdkd::cuda
