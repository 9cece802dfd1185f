// SimCC's own loss: the call, its checks, and the operators on tensors of any device. The arguments are those
// of cdkd_ext.ops.simcc_kl.
#pragma once
#include <optional>
#include <tuple>

#include "common/arguments.h"
#include "ops/scale_rows/arguments.h"

namespace cdkd {

// Numbers called wide are double if `wide`, else float.
struct SimccKl {
  Rows logits;  // (rows, N)
  Rows target;  // (rows,)
  int64_t rows;
  double smoothing;  // 0 if there is a single bin, which has no others
  double sigma;      // 0: hard labels
  bool wide;
  void* loss;            // (rows,) wide
  MutableRows gradient;  // (rows, N), of each row's loss; null if not wanted
};

inline SimccKl check_simcc_kl(const Argument& logits, const Argument& target, double label_smoothing,
                              const std::optional<double>& sigma) {
  check_bins(logits);
  check_place(target, logits);
  check_floating(target);
  check_one_per_row(target, logits);
  check_number(label_smoothing >= 0 && label_smoothing < 1, "label_smoothing", "a number in [0, 1)",
               label_smoothing);
  if (sigma) {
    check_number(*sigma > 0 && std::isfinite(*sigma), "sigma", "a positive finite number of bins", *sigma);
    check_number(label_smoothing == 0, "label_smoothing", "0 with a Gaussian target", label_smoothing);
  }
  SimccKl call{};
  call.logits = rows_of(logits);
  call.target = scalars_of(target);
  call.rows = target.count();
  call.smoothing = call.logits.length > 1 ? label_smoothing : 0;
  call.sigma = sigma.value_or(0);
  call.wide = logits.wide();
  return call;
}

template <class Device>
struct SimccKlOperators {
  using Tensor = typename Device::Tensor;
  using Input = typename Device::Input;
  using Results = std::tuple<Tensor, Tensor>;

  static Results run(const Tensor& logits_tensor, const Tensor& target_tensor, double label_smoothing,
                     const std::optional<double>& sigma, bool wants_gradient) {
    const Input logits("logits", logits_tensor), target("target", target_tensor);
    SimccKl call = check_simcc_kl(logits, target, label_smoothing, sigma);
    const Device device(logits);
    const Tensor loss = device.allocate(target.sizes, accumulator(call.wide));
    const Tensor gradient = device.allocate(wants_gradient ? logits.sizes : Sizes(&kNone, 1), logits.format);
    call.loss = loss.mutable_data_ptr();
    if (wants_gradient) call.gradient = rows_like(call.logits, gradient.mutable_data_ptr());
    compute(device, call);
    return {loss, gradient};
  }

  static Tensor plain(const Tensor& logits, const Tensor& target, double label_smoothing,
                      const std::optional<double>& sigma) {
    return std::get<0>(run(logits, target, label_smoothing, sigma, false));
  }

  static Results gradients(const Tensor& logits, const Tensor& target, double label_smoothing,
                           const std::optional<double>& sigma) {
    return run(logits, target, label_smoothing, sigma, true);
  }

  static Tensor backward(const Tensor& gradient, const Tensor& logits_gradient) {
    return scale_rows<Device>(logits_gradient, gradient);
  }
};

}  // namespace cdkd
