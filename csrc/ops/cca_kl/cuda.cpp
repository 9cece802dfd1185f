// cca_kl on CUDA tensors.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "ops/cca_kl/kernels.h"
#include "ops/scale_rows/cuda.h"
#include "cuda/tensors.h"

namespace cdkd::cuda {
namespace {

using Results = std::tuple<Tensor, Tensor, Tensor>;

Results run_cca_kl(const Tensor& student_logits, const Tensor& teacher_logits, const Tensor& tau,
                   const std::string& phase, bool wants_student, bool wants_tau) {
  const Place place("student_logits", student_logits);
  place.check_here("teacher_logits", teacher_logits);
  place.check_here("tau", tau);
  check_shape(student_logits.dim() > 0 && last_size(student_logits) > 0, "student_logits", "(..., classes)",
              student_logits);
  check_shape(same_rows(student_logits, teacher_logits), "teacher_logits",
              "(..., bins) with the rows of student_logits " + shape_text(student_logits), teacher_logits);
  const int64_t classes = last_size(student_logits);
  check(last_size(teacher_logits) >= classes, "teacher_logits",
        text("at least the student's ", classes, " bins"), last_size(teacher_logits));
  check(phase == "paper" || phase == "centered", "phase", "one of 'paper', 'centered'", "'" + phase + "'");
  check_shape(tau.numel() == 1, "tau", "() or (1)", tau);

  const Tensor student = packed(student_logits);
  const Tensor teacher = packed(teacher_logits);
  const Tensor scalar = packed(tau);
  const int64_t no_rows[] = {0};
  CcaKl call{};
  call.student = rows_of("student_logits", student);
  call.teacher = rows_of("teacher_logits", teacher);
  call.tau = scalars_of("tau", scalar);
  call.rows = student.numel() / classes;
  call.centered = phase == "centered";
  call.wide = is_wide(student) || is_wide(teacher);
  const ScalarType accumulator = accumulator_type(call.wide);
  const Tensor loss = allocate(student, leading(student), accumulator);
  const Tensor student_gradient =
      allocate(student, wants_student ? student.sizes() : Sizes(no_rows, 1), student.scalar_type());
  const Tensor tau_gradient =
      allocate(student, wants_tau ? leading(student) : Sizes(no_rows, 1), accumulator);
  call.loss = loss.mutable_data_ptr();
  if (wants_student) call.student_gradient = mutable_rows_of("student_logits", student_gradient);
  if (wants_tau) call.tau_gradient = tau_gradient.mutable_data_ptr();
  check_launch(launch_cca_kl(call, place.stream()));
  return {loss, student_gradient, tau_gradient};
}

Tensor cca_kl(const Tensor& student_logits, const Tensor& teacher_logits, const Tensor& tau,
              const std::string& phase) {
  return std::get<0>(run_cca_kl(student_logits, teacher_logits, tau, phase, false, false));
}

Results cca_kl_gradients(const Tensor& student_logits, const Tensor& teacher_logits, const Tensor& tau,
                         const std::string& phase, bool wants_tau) {
  return run_cca_kl(student_logits, teacher_logits, tau, phase, true, wants_tau);
}

std::tuple<Tensor, Tensor> cca_kl_backward(const Tensor& gradient, const Tensor& student_gradient,
                                           const Tensor& tau_gradient) {
  const Tensor sum = allocate(tau_gradient, Sizes(nullptr, size_t{0}), ScalarType::Double);
  return {scale_rows(student_gradient, gradient, &tau_gradient, &sum), sum};
}

}  // namespace
}  // namespace cdkd::cuda

STABLE_TORCH_LIBRARY_IMPL(cdkd, CUDA, m) {
  m.impl("cca_kl", TORCH_BOX(&cdkd::cuda::cca_kl));
  m.impl("cca_kl_gradients", TORCH_BOX(&cdkd::cuda::cca_kl_gradients));
  m.impl("cca_kl_backward", TORCH_BOX(&cdkd::cuda::cca_kl_backward));
}
