// Cross-class alignment: τ² · KL(merged softmax(teacher / τ) ‖ softmax(student / τ)) per row, with its
// derivatives.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "common/row_softmax.h"
#include "cpu/merge_bins.h"
#include "cpu/scale_rows.h"
#include "cpu/tensors.h"

namespace cdkd {

template <class A>
struct CcaKl {
  Rows student;
  Rows teacher;
  A tau;
  bool centered;
  const ClassBins<A>* parts;  // what each class is made of; null where whole blocks of bins are
  A* loss;
  MutableRows student_gradient;  // of each row's loss
  A* tau_gradient;               // of each row's loss
};

template <class A>
CDKD_INLINE void merge(const CcaKl<A>& call, const A* bins, A* work, A* merged) {
  const int64_t classes = call.student.length;
  if (call.parts) return merge_shares(bins, call.parts, classes, merged);
  merge_blocks(bins, classes, call.teacher.length / classes, call.centered, work, merged);
}

// Shifted, scaled logits as factors: a -inf must not turn the zero it meets into NaN.
template <class A>
CDKD_INLINE A finite_below(A x) {
  const A lowest = std::numeric_limits<A>::lowest();
  return x < lowest ? lowest : x;
}

template <bool wants_student, bool wants_tau, class A>
CDKD_INLINE void cca_kl_rows_of(const CcaKl<A>& call, int64_t begin, int64_t end) {
  const int64_t bins = call.teacher.length;
  const int64_t classes = call.student.length;
  Scratch<A> scratch(4 * (kPadding + bins) + bins + 5 * classes);
  A* teacher_exp = scratch.take(kPadding + bins) + kPadding;     // (N_t,) exp(z_t)
  A* teacher_moment = scratch.take(kPadding + bins) + kPadding;  // (N_t,) exp(z_t) · z_t
  std::fill(teacher_exp - kPadding, teacher_exp, A(0));
  std::fill(teacher_moment - kPadding, teacher_moment, A(0));
  A* work = scratch.take(2 * (kPadding + bins));
  A* teacher_buffer = scratch.take(bins);
  A* student_buffer = scratch.take(classes);
  A* student_exp = scratch.take(classes);  // (N_s,) exp(z_s)
  A* merged = scratch.take(classes);       // (N_s,) exp(z_t), summed by class
  A* moment = scratch.take(classes);       // (N_s,) exp(z_t) · z_t, summed by class
  A* gradient_buffer = scratch.take(classes);
  const A scale = 1 / call.tau;

  for (int64_t row = begin; row < end; ++row) {
    const A* teacher = call.teacher.read(row, teacher_buffer);
    const A teacher_max = row_max(teacher, bins);
    const A teacher_sum = row_exp(teacher, bins, teacher_max, scale, teacher_exp);
    merge(call, teacher_exp, work, merged);
    if (wants_tau) {
#pragma omp simd
      for (int64_t i = 0; i < bins; ++i)
        teacher_moment[i] = teacher_exp[i] * finite_below((teacher[i] - teacher_max) * scale);
      merge(call, teacher_moment, work, moment);
    }

    const A* student = call.student.read(row, student_buffer);
    const A student_max = row_max(student, classes);
    const A student_sum = row_exp(student, classes, student_max, scale, student_exp);

    const A teacher_norm = 1 / teacher_sum;
    const A student_norm = 1 / student_sum;
    const A offset = log_positive(student_sum) - log_positive(teacher_sum);
    const A tiny = std::numeric_limits<A>::min();
    A* gradient = wants_student ? call.student_gradient.target(row, gradient_buffer) : nullptr;
    A divergence = 0;
    A student_mean = 0;   // Σ (p_s - q) z_s
    A teacher_mean = 0;   // Σ q z_t
    A teacher_slope = 0;  // Σ q z_t log(q / p_s)
#pragma omp simd reduction(+ : divergence, student_mean, teacher_mean, teacher_slope)
    for (int64_t j = 0; j < classes; ++j) {
      const A z = (student[j] - student_max) * scale;
      const A q = merged[j] * teacher_norm;
      const A log_q = log_positive(merged[j] > tiny ? merged[j] : tiny);
      const A log_ratio = merged[j] == 0 ? 0 : log_q - z + offset;
      divergence += q * log_ratio;
      if (wants_student) {
        const A difference = student_exp[j] * student_norm - q;
        gradient[j] = call.tau * difference;
        if (wants_tau) {
          student_mean += difference * finite_below(z);
          teacher_mean += moment[j] * teacher_norm;
          teacher_slope += moment[j] * teacher_norm * log_ratio;
        }
      }
    }
    call.loss[row] = call.tau * call.tau * divergence;
    if (wants_student) call.student_gradient.write(row, gradient);
    if (wants_tau)
      call.tau_gradient[row] =
          call.tau * (2 * divergence - student_mean - teacher_slope + divergence * teacher_mean);
  }
}

template <class A>
CDKD_INLINE void cca_kl_rows_dispatch(const CcaKl<A>& call, int64_t begin, int64_t end) {
  if (call.tau_gradient) {
    cca_kl_rows_of<true, true>(call, begin, end);
  } else if (call.student_gradient.data) {
    cca_kl_rows_of<true, false>(call, begin, end);
  } else {
    cca_kl_rows_of<false, false>(call, begin, end);
  }
}

CDKD_CLONES void cca_kl_rows(const CcaKl<float>& call, int64_t begin, int64_t end) {
  cca_kl_rows_dispatch(call, begin, end);
}

void cca_kl_rows(const CcaKl<double>& call, int64_t begin, int64_t end) {
  cca_kl_rows_dispatch(call, begin, end);
}

namespace {

struct CcaKlResult {
  Tensor loss;
  Tensor student_gradient;
  Tensor tau_gradient;
};

CcaKlResult run_cca_kl(const Tensor& student_logits, const Tensor& teacher_logits, const Tensor& tau_tensor,
                       const std::string& phase, bool wants_student, bool wants_tau) {
  const Format student_format = check_floating("student_logits", student_logits);
  const Format teacher_format = check_floating("teacher_logits", teacher_logits);
  check_shape(student_logits.dim() > 0 && last_size(student_logits) > 0, "student_logits", "(..., classes)",
              student_logits);
  bool same_rows = student_logits.dim() == teacher_logits.dim();
  for (int64_t i = 0; same_rows && i + 1 < student_logits.dim(); ++i)
    same_rows = student_logits.size(i) == teacher_logits.size(i);
  check_shape(same_rows, "teacher_logits",
              "(..., bins) with the rows of student_logits " + shape_text(student_logits), teacher_logits);
  const int64_t classes = last_size(student_logits);
  const int64_t bins = last_size(teacher_logits);
  check(bins >= classes, "teacher_logits", text("at least the student's ", classes, " bins"), bins);
  check(phase == "paper" || phase == "centered", "phase", "one of 'paper', 'centered'", "'" + phase + "'");
  const double tau = scalar_of("tau", tau_tensor);
  check(tau > 0 && std::isfinite(tau), "tau", "a positive finite number", tau);

  const Tensor student = packed(student_logits);
  const Tensor teacher = packed(teacher_logits);
  const bool wide = student_format == Format::kFloat64 || teacher_format == Format::kFloat64;
  const ScalarType accumulator = accumulator_type(wide);
  const Sizes rows_shape = leading(student);
  const int64_t rows = student.numel() / classes;
  const int64_t no_rows[] = {0};
  CcaKlResult result{
      allocate(student, rows_shape, accumulator),
      allocate(student, wants_student ? student.sizes() : Sizes(no_rows, 1), student.scalar_type()),
      allocate(student, wants_tau ? rows_shape : Sizes(no_rows, 1), accumulator),
  };
  with_accumulator(wide, [&](auto zero) {
    using A = decltype(zero);
    CcaKl<A> call{};
    call.student = rows_of(student, student_format);
    call.teacher = rows_of(teacher, teacher_format);
    call.tau = static_cast<A>(tau);
    call.centered = phase == "centered";
    call.loss = static_cast<A*>(result.loss.mutable_data_ptr());
    if (wants_student) call.student_gradient = mutable_rows_of(result.student_gradient, student_format);
    if (wants_tau) call.tau_gradient = static_cast<A*>(result.tau_gradient.mutable_data_ptr());
    std::vector<ClassBins<A>> parts;
    if (!merges_in_blocks(bins, classes)) {
      for (int64_t j = 0; j < classes; ++j) parts.push_back(class_bins<A>(j, bins, classes, call.centered));
      call.parts = parts.data();
    }
    for_rows(rows, bins + classes, [&](int64_t begin, int64_t end) { cca_kl_rows(call, begin, end); });
  });
  return result;
}

Tensor cca_kl(const Tensor& student_logits, const Tensor& teacher_logits, const Tensor& tau,
              const std::string& phase) {
  return run_cca_kl(student_logits, teacher_logits, tau, phase, false, false).loss;
}

std::tuple<Tensor, Tensor, Tensor> cca_kl_gradients(const Tensor& student_logits,
                                                    const Tensor& teacher_logits, const Tensor& tau,
                                                    const std::string& phase, bool wants_tau) {
  const CcaKlResult result = run_cca_kl(student_logits, teacher_logits, tau, phase, true, wants_tau);
  return {result.loss, result.student_gradient, result.tau_gradient};
}

std::tuple<Tensor, Tensor> cca_kl_backward(const Tensor& gradient, const Tensor& student_gradient,
                                           const Tensor& tau_gradient) {
  return {scale_rows(student_gradient, gradient), weighted_sum(tau_gradient, gradient)};
}

}  // namespace
}  // namespace cdkd

STABLE_TORCH_LIBRARY_IMPL(cdkd, CPU, m) {
  m.impl("cca_kl", TORCH_BOX(&cdkd::cca_kl));
  m.impl("cca_kl_gradients", TORCH_BOX(&cdkd::cca_kl_gradients));
  m.impl("cca_kl_backward", TORCH_BOX(&cdkd::cca_kl_backward));
}
