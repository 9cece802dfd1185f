#include "ops/scale_rows/cuda.h"

#include "ops/scale_rows/kernels.h"
#include "cuda/tensors.h"

namespace cdkd::cuda {

Tensor scale_rows(const Tensor& rows_tensor, const Tensor& scale_tensor, const Tensor* weighted_tensor,
                  const Tensor* sum) {
  const Place place("rows", rows_tensor);
  place.check_here("gradient", scale_tensor);
  check_shape(rows_tensor.dim() > 0 && scale_tensor.numel() * last_size(rows_tensor) == rows_tensor.numel(),
              "gradient", "of the rows of " + shape_text(rows_tensor), scale_tensor);
  const Tensor rows = packed(rows_tensor);
  const Tensor scale = packed(scale_tensor);
  const Tensor scaled = allocate(rows, rows.sizes(), rows.scalar_type());
  ScaleRows call{};
  call.unscaled = rows_of("rows", rows);
  call.scale = scalars_of("gradient", scale);
  call.rows = scale.numel();
  call.wide = is_wide(rows) || is_wide(scale);
  call.scaled = mutable_rows_of("rows", scaled);
  const int64_t partials_shape[] = {kScaleRowsPartials};
  Tensor weighted;
  Tensor partials;
  if (weighted_tensor) {
    place.check_here("tau_gradient", *weighted_tensor);
    check_shape(weighted_tensor->numel() == 0 || weighted_tensor->numel() == call.rows, "tau_gradient",
                shape_text(scale), *weighted_tensor);
    weighted = packed(*weighted_tensor);
    partials = allocate(rows, Sizes(partials_shape, 1), ScalarType::Double);
    if (weighted.numel() > 0) call.weighted = scalars_of("tau_gradient", weighted);
    call.partials = static_cast<double*>(partials.mutable_data_ptr());
    call.sum = static_cast<double*>(sum->mutable_data_ptr());
  }
  check_launch(launch_scale_rows(call, place.stream()));
  return scaled;
}

}  // namespace cdkd::cuda
