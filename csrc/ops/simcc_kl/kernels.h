// SimCC's own loss on raw pointers; the arguments are those of cdkd_ext.ops.simcc_kl.
#pragma once
#include "cuda/call.h"

namespace cdkd::cuda {

// Accumulators are double if `wide`, else float.
struct SimccKl {
  Rows logits;  // (rows, N)
  Rows target;  // (rows,)
  int64_t rows;
  double smoothing;
  double sigma;  // 0: hard labels
  bool wide;
  void* loss;            // (rows,) accumulators
  MutableRows gradient;  // (rows, N), of each row's loss; null if not wanted
};

// One launch, on the current device.
cudaError_t launch_simcc_kl(const SimccKl& call, cudaStream_t stream);

}  // namespace cdkd::cuda
