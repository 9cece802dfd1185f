// What the backward passes of row losses have in common: each row's derivative times the row's incoming
// gradient.
#pragma once
#include <torch/csrc/stable/tensor.h>

namespace cdkd::cpu {

// In both, what meets a zero is left out: a row that a mask takes out of the loss gets no gradient, be it
// NaN.

// rows (…, N) times scale (…,), in the type of rows.
torch::stable::Tensor scale_rows(const torch::stable::Tensor& rows, const torch::stable::Tensor& scale);

// Σ values · weights as a float64 scalar, 0 if `values` is empty; always added in the same order.
torch::stable::Tensor weighted_sum(const torch::stable::Tensor& values, const torch::stable::Tensor& weights);

}  // namespace cdkd::cpu
