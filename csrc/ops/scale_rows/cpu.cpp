#include "ops/scale_rows/cpu.h"

#include <algorithm>

#include "cpu/isa.h"
#include "cpu/tensors.h"

namespace cdkd::cpu {

namespace {

// One factor per row, or one for all of them: the gradient of a mean comes as a single number, expanded.
template <class A>
struct Factors {
  const A* data;
  int64_t step;
  CDKD_INLINE A operator[](int64_t row) const { return data[row * step]; }
};

Tensor packed_unless_expanded(const Tensor& factors) {
  const bool expanded = std::all_of(factors.strides().begin(), factors.strides().end(),
                                    [](int64_t stride) { return stride == 0; });
  return expanded ? factors : packed(factors);
}

template <class A>
Factors<A> factors_of(const Tensor& tensor) {
  return {static_cast<const A*>(tensor.const_data_ptr()), tensor.is_contiguous() ? 1 : 0};
}

template <class A>
struct ScaleRows {
  Rows rows;
  Factors<A> scale;
  MutableRows scaled;
};

struct ScaleRowRange {
  template <int bytes, class A>
  CDKD_INLINE static void run(const ScaleRows<A>& call, int64_t begin, int64_t end) {
    const int64_t length = call.rows.length;
    Scratch<A> scratch(2, length);
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
};

}  // namespace

Tensor scale_rows(const Tensor& rows_tensor, const Tensor& scale_tensor) {
  const Format format = check_floating("rows", rows_tensor);
  const bool wide = check_floating("gradient", scale_tensor) == Format::kFloat64;
  check(wide || scale_tensor.scalar_type() == ScalarType::Float, "gradient", "float32 or float64",
        toString(scale_tensor.scalar_type()));
  check_shape(rows_tensor.dim() > 0 && scale_tensor.numel() * last_size(rows_tensor) == rows_tensor.numel(),
              "gradient", "of the rows of " + shape_text(rows_tensor), scale_tensor);
  const Tensor rows = packed(rows_tensor);
  const Tensor scale = packed_unless_expanded(scale_tensor);
  const Tensor scaled = allocate(rows, rows.sizes(), rows.scalar_type());
  with_accumulator(wide, [&](auto zero) {
    using A = decltype(zero);
    const ScaleRows<A> call{rows_of(rows, format), factors_of<A>(scale), mutable_rows_of(scaled, format)};
    for_rows(scale.numel(), call.rows.length / 4,
             [&](int64_t begin, int64_t end) { run<ScaleRowRange>(call, begin, end); });
  });
  return scaled;
}

Tensor weighted_sum(const Tensor& values_tensor, const Tensor& weights_tensor) {
  const Tensor values = packed(values_tensor);
  const Tensor weights = packed_unless_expanded(weights_tensor);
  check_shape(values.numel() == 0 || values.numel() == weights.numel(), "gradient", shape_text(values),
              weights);
  check(values.scalar_type() == weights.scalar_type(), "gradient", toString(values.scalar_type()),
        toString(weights.scalar_type()));
  const Tensor result = allocate(values, Sizes(nullptr, size_t{0}), ScalarType::Double);
  double sum = 0;
  with_accumulator(values.scalar_type() == ScalarType::Double, [&](auto zero) {
    using A = decltype(zero);
    const A* value = static_cast<const A*>(values.const_data_ptr());
    const Factors<A> weight = factors_of<A>(weights);
    const int64_t count = values.numel();
    for (int64_t i = 0; i < count; ++i) sum += weight[i] == 0 ? 0 : double(value[i]) * double(weight[i]);
  });
  *static_cast<double*>(result.mutable_data_ptr()) = sum;
  return result;
}

}  // namespace cdkd::cpu
