// simcc_kl on CUDA tensors.
#include <torch/csrc/stable/library.h>

#include <cmath>
#include <optional>
#include <tuple>

#include "ops/scale_rows/cuda.h"
#include "ops/simcc_kl/kernels.h"
#include "cuda/tensors.h"

namespace cdkd::cuda {
namespace {

std::tuple<Tensor, Tensor> run_simcc_kl(const Tensor& logits_tensor, const Tensor& target_tensor,
                                        double label_smoothing, const std::optional<double>& sigma,
                                        bool wants_gradient) {
  const Place place("logits", logits_tensor);
  place.check_here("target", target_tensor);
  check_shape(logits_tensor.dim() > 0 && last_size(logits_tensor) > 0, "logits", "(..., bins)",
              logits_tensor);
  check_shape(is_one_per_row(target_tensor, logits_tensor), "target",
              "of the rows of logits " + shape_text(logits_tensor), target_tensor);
  check(label_smoothing >= 0 && label_smoothing < 1, "label_smoothing", "a number in [0, 1)",
        label_smoothing);
  if (sigma) {
    check(*sigma > 0 && std::isfinite(*sigma), "sigma", "a positive finite number of bins", *sigma);
    check(label_smoothing == 0, "label_smoothing", "0 with a Gaussian target", label_smoothing);
  }

  const Tensor logits = packed(logits_tensor);
  const Tensor target = packed(target_tensor);
  const int64_t no_rows[] = {0};
  SimccKl call{};
  call.logits = rows_of("logits", logits);
  call.target = scalars_of("target", target);
  call.rows = target.numel();
  call.smoothing = label_smoothing;
  call.sigma = sigma.value_or(0);
  call.wide = is_wide(logits);
  const Tensor loss = allocate(logits, leading(logits), accumulator_type(call.wide));
  const Tensor gradient =
      allocate(logits, wants_gradient ? logits.sizes() : Sizes(no_rows, 1), logits.scalar_type());
  call.loss = loss.mutable_data_ptr();
  if (wants_gradient) call.gradient = mutable_rows_of("logits", gradient);
  check_launch(launch_simcc_kl(call, place.stream()));
  return {loss, gradient};
}

Tensor simcc_kl(const Tensor& logits, const Tensor& target, double label_smoothing,
                const std::optional<double>& sigma) {
  return std::get<0>(run_simcc_kl(logits, target, label_smoothing, sigma, false));
}

std::tuple<Tensor, Tensor> simcc_kl_gradients(const Tensor& logits, const Tensor& target,
                                              double label_smoothing, const std::optional<double>& sigma) {
  return run_simcc_kl(logits, target, label_smoothing, sigma, true);
}

Tensor simcc_kl_backward(const Tensor& gradient, const Tensor& logits_gradient) {
  return scale_rows(logits_gradient, gradient);
}

}  // namespace
}  // namespace cdkd::cuda

STABLE_TORCH_LIBRARY_IMPL(cdkd, CUDA, m) {
  m.impl("simcc_kl", TORCH_BOX(&cdkd::cuda::simcc_kl));
  m.impl("simcc_kl_gradients", TORCH_BOX(&cdkd::cuda::simcc_kl_gradients));
  m.impl("simcc_kl_backward", TORCH_BOX(&cdkd::cuda::simcc_kl_backward));
}
