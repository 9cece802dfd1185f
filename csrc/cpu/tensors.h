// Between torch's CPU tensors and the kernels' pointers.
#pragma once
#include "common/tensors.h"
#include "cpu/rows.h"

namespace cdkd::cpu {

inline void check_cpu(const char* argument, const Tensor& tensor) {
  check(tensor.is_cpu(), argument, "a CPU tensor", "one on another device");
}

// Check for a CPU tensor of floating type.
inline Format check_floating(const char* argument, const Tensor& tensor) {
  check_cpu(argument, tensor);
  return format_of(argument, tensor);
}

// View a contiguous tensor as rows along its last axis.
inline Rows rows_of(const Tensor& tensor, Format format) {
  return {tensor.const_data_ptr(), format, last_size(tensor)};
}

inline MutableRows mutable_rows_of(const Tensor& tensor, Format format) {
  return {tensor.mutable_data_ptr(), format, last_size(tensor)};
}

// Read the only element of a CPU tensor.
inline double scalar_of(const char* argument, const Tensor& tensor) {
  const Format format = check_floating(argument, tensor);
  check_shape(tensor.numel() == 1, argument, "() or (1)", tensor);
  double value = 0;
  return *Rows{tensor.const_data_ptr(), format, 1}.read(0, &value);
}

// Call f(A{}) with A the accumulation type: double for float64 tensors, else float.
template <class F>
void with_accumulator(bool wide, F f) {
  if (wide) {
    f(double{});
  } else {
    f(float{});
  }
}

// Run f(begin, end) over rows in parallel; f must treat each row by itself, so bits do not depend on the
// threads. The cost of a row is counted in exponentials: waking a thread that sleeps takes as long as 200,000
// of them.
template <class F>
void for_rows(int64_t rows, int64_t row_cost, F f) {
  const int64_t grain = std::max<int64_t>(1, 262144 / std::max<int64_t>(1, row_cost));
  torch::stable::parallel_for(0, rows, grain, f);
}

}  // namespace cdkd::cpu
