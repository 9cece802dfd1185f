// What the backward passes of row losses have in common, on raw pointers: each row's derivative times the
// row's incoming gradient, and the sum of tau's.
#pragma once
#include "cuda/call.h"

namespace cdkd::cuda {

// Partial sums that the launcher needs room for.
constexpr int64_t kScaleRowsPartials = 1024;

// What meets a zero is left out: a row that a mask takes out of the loss gets no gradient, be it NaN.
struct ScaleRows {
  Rows unscaled;  // (rows, N)
  Rows scale;     // (rows,)
  int64_t rows;
  bool wide;           // compute in double
  MutableRows scaled;  // (rows, N)
  Rows weighted;       // (rows,); null: zeros
  double* partials;    // (kScaleRowsPartials,) of work, with sum
  double* sum;         // one: Σ weighted · scale; null: not wanted
};

// One launch, or two with a sum; always added in the same order.
cudaError_t launch_scale_rows(const ScaleRows& call, cudaStream_t stream);

}  // namespace cdkd::cuda
