#include "cpu/scale_rows.h"

#include "cpu/tensors.h"

namespace cdkd {

template <class A>
struct ScaleRows {
  Rows rows;
  const A* scale;
  MutableRows scaled;
};

template <class A>
CDKD_INLINE void scale_rows_of(const ScaleRows<A>& call, int64_t begin, int64_t end) {
  const int64_t length = call.rows.length;
  Scratch<A> scratch(2 * length);
  A* row_buffer = scratch.take(length);
  A* scaled_buffer = scratch.take(length);
  for (int64_t i = begin; i < end; ++i) {
    const A* row = call.rows.read(i, row_buffer);
    A* scaled = call.scaled.target(i, scaled_buffer);
    const A factor = call.scale[i];
#pragma omp simd
    for (int64_t j = 0; j < length; ++j) scaled[j] = factor == 0 ? A(0) : row[j] * factor;
    call.scaled.write(i, scaled);
  }
}

CDKD_CLONES void scale_row_range(const ScaleRows<float>& call, int64_t begin, int64_t end) {
  scale_rows_of(call, begin, end);
}

void scale_row_range(const ScaleRows<double>& call, int64_t begin, int64_t end) {
  scale_rows_of(call, begin, end);
}

Tensor scale_rows(const Tensor& rows_tensor, const Tensor& scale_tensor) {
  const Format format = check_floating("rows", rows_tensor);
  const bool wide = check_floating("gradient", scale_tensor) == Format::kFloat64;
  check(wide || scale_tensor.scalar_type() == ScalarType::Float, "gradient", "float32 or float64",
        toString(scale_tensor.scalar_type()));
  check_shape(rows_tensor.dim() > 0 && scale_tensor.numel() * last_size(rows_tensor) == rows_tensor.numel(),
              "gradient", "of the rows of " + shape_text(rows_tensor), scale_tensor);
  const Tensor rows = packed(rows_tensor);
  const Tensor scale = packed(scale_tensor);
  const Tensor scaled = allocate(rows, rows.sizes(), rows.scalar_type());
  with_accumulator(wide, [&](auto zero) {
    using A = decltype(zero);
    const ScaleRows<A> call{rows_of(rows, format), static_cast<const A*>(scale.const_data_ptr()),
                            mutable_rows_of(scaled, format)};
    for_rows(scale.numel(), call.rows.length,
             [&](int64_t begin, int64_t end) { scale_row_range(call, begin, end); });
  });
  return scaled;
}

Tensor weighted_sum(const Tensor& values_tensor, const Tensor& weights_tensor) {
  const Tensor values = packed(values_tensor);
  const Tensor weights = packed(weights_tensor);
  check_shape(values.numel() == 0 || values.numel() == weights.numel(), "gradient", shape_text(values),
              weights);
  check(values.scalar_type() == weights.scalar_type(), "gradient", toString(values.scalar_type()),
        toString(weights.scalar_type()));
  const Tensor result = allocate(values, Sizes(nullptr, size_t{0}), ScalarType::Double);
  double sum = 0;
  with_accumulator(values.scalar_type() == ScalarType::Double, [&](auto zero) {
    using A = decltype(zero);
    const A* value = static_cast<const A*>(values.const_data_ptr());
    const A* weight = static_cast<const A*>(weights.const_data_ptr());
    const int64_t count = values.numel();
    for (int64_t i = 0; i < count; ++i) sum += weight[i] == 0 ? 0 : double(value[i]) * double(weight[i]);
  });
  *static_cast<double*>(result.mutable_data_ptr()) = sum;
  return result;
}

}  // namespace cdkd
