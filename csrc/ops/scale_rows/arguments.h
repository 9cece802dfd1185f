// What the backward passes of row losses have in common: each row's derivative times the row's incoming
// gradient, and the sum of tau's. No operator by itself.
#pragma once
#include <tuple>

#include "common/arguments.h"

namespace cdkd {

// What meets a zero is left out: a row that a mask takes out of the loss gets no gradient, be it NaN.
struct ScaleRows {
  Rows unscaled;       // (rows, N)
  Rows scale;          // (rows,), or one for all
  int64_t scale_step;  // 0: one for all
  int64_t rows;
  bool wide;           // compute in double, else in float
  MutableRows scaled;  // (rows, N)
  Rows weighted;       // (rows,); null: zeros
  double* partials;    // work of CUDA, with sum
  double* sum;         // one: Σ weighted · scale, always added in the same order; null: not wanted
};

inline ScaleRows check_scale_rows(const Argument& rows, const Argument& gradient) {
  check_bins(rows);
  check_place(gradient, rows);
  check_floating(gradient);
  check_one_per_row(gradient, rows);
  ScaleRows call{};
  call.unscaled = rows_of(rows);
  call.scale = scalars_of(gradient);
  call.scale_step = gradient.repeated ? 0 : 1;
  call.rows = gradient.count();
  call.wide = rows.wide() || gradient.wide();
  return call;
}

inline Rows check_weighted(const Argument& weighted, const Argument& gradient) {
  check_place(weighted, gradient);
  check_floating(weighted);
  if (weighted.count() == 0) return {};
  check_same_shape(weighted, gradient);
  return scalars_of(weighted);
}

namespace cpu {
class Device;
void compute(const Device& device, const ScaleRows& call);
}  // namespace cpu
namespace cuda {
class Device;
void compute(const Device& device, const ScaleRows& call);
}  // namespace cuda

// rows (…, N) times gradient (…,), in the type of rows.
template <class Device, class Tensor>
Tensor scale_rows(const Tensor& rows_tensor, const Tensor& gradient_tensor) {
  using Input = typename Device::Input;
  const Input rows("rows", rows_tensor), gradient = Input::one_or_each("gradient", gradient_tensor);
  ScaleRows call = check_scale_rows(rows, gradient);
  const Device device(rows);
  const Tensor scaled = device.allocate(rows.sizes, rows.format);
  call.scaled = rows_like(call.unscaled, scaled.mutable_data_ptr());
  compute(device, call);
  return scaled;
}

// Also the float64 scalar Σ weighted · gradient of `weighted` (…,): 0 if that is empty.
template <class Device, class Tensor>
std::tuple<Tensor, Tensor> scale_rows_and_sum(const Tensor& rows_tensor, const Tensor& gradient_tensor,
                                              const Tensor& weighted_tensor) {
  using Input = typename Device::Input;
  const Input rows("rows", rows_tensor), gradient = Input::one_or_each("gradient", gradient_tensor);
  const Input weighted("weighted", weighted_tensor);
  ScaleRows call = check_scale_rows(rows, gradient);
  call.weighted = check_weighted(weighted, gradient);
  const Device device(rows);
  const Tensor scaled = device.allocate(rows.sizes, rows.format);
  const Tensor sum = device.allocate({}, Format::kFloat64);
  call.scaled = rows_like(call.unscaled, scaled.mutable_data_ptr());
  call.sum = static_cast<double*>(sum.mutable_data_ptr());
  compute(device, call);
  return {scaled, sum};
}

}  // namespace cdkd
