// scale_rows on CUDA tensors, for the backward passes of the row losses.
#pragma once
#include <torch/csrc/stable/tensor.h>

namespace cdkd::cuda {

// rows (…, N) times scale (…,), in the type of rows. With `weighted` (…,), `sum` becomes the float64 scalar Σ
// weighted · scale: 0 if `weighted` is empty.
torch::stable::Tensor scale_rows(const torch::stable::Tensor& rows, const torch::stable::Tensor& scale,
                                 const torch::stable::Tensor* weighted = nullptr,
                                 const torch::stable::Tensor* sum = nullptr);

}  // namespace cdkd::cuda
