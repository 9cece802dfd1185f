// Cross-class alignment: τ² · KL(merged softmax(teacher / τ) ‖ softmax(student / τ)) per row, with its
// derivatives.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cpu/isa.h"
#include "ops/cca_kl/merge_bins.h"
#include "cpu/row_passes.h"
#include "ops/scale_rows/cpu.h"
#include "cpu/tensors.h"

namespace cdkd::cpu {

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

template <int bytes, class A>
CDKD_INLINE void merge(const CcaKl<A>& call, const A* bins, A* work, A* merged) {
  const int64_t classes = call.student.length;
  if (call.parts) return merge_shares(bins, call.parts, classes, merged);
  merge_blocks<bytes>(bins, classes, call.teacher.length / classes, call.centered, work, merged);
}

// Shifted, scaled logits as factors: a -inf must not turn the zero it meets into NaN.
template <class V>
CDKD_INLINE V finite_below(const V& x, const V& lowest) {
  return x < lowest ? lowest : x;
}

// What one row's classes add up to, lane by lane.
template <class V>
struct CcaSums {
  V divergence{};
  V student_mean{};   // Σ (p_s - q) z_s
  V teacher_mean{};   // Σ q z_t
  V teacher_slope{};  // Σ q z_t log(q / p_s)
};

template <bool wants_student, bool wants_tau>
struct CcaKlRows {
  template <int bytes, class A>
  CDKD_INLINE static void run(const CcaKl<A>& call, int64_t begin, int64_t end) {
    using V = Vector<A, bytes>;
    constexpr int lanes = VectorOf<A, bytes>::lanes;
    const int64_t bins = round_up(call.teacher.length, lanes);
    const int64_t classes = round_up(call.student.length, lanes);
    Scratch<A> scratch(11, kZerosInFront + bins);
    A* teacher_exp = scratch.take(kZerosInFront + bins) + kZerosInFront;     // (N_t,) exp(z_t)
    A* teacher_moment = scratch.take(kZerosInFront + bins) + kZerosInFront;  // (N_t,) exp(z_t) · z_t
    std::fill(teacher_exp - kZerosInFront, teacher_exp, A(0));
    std::fill(teacher_moment - kZerosInFront, teacher_moment, A(0));
    A* work = scratch.take(2 * (kZerosInFront + bins));
    A* teacher_buffer = scratch.take(bins);
    A* student_buffer = scratch.take(classes);
    A* student_exp = scratch.take(classes);  // (N_s,) exp(z_s)
    A* merged = scratch.take(classes);       // (N_s,) exp(z_t), summed by class
    A* moment = scratch.take(classes);       // (N_s,) exp(z_t) · z_t, summed by class
    A* gradient_buffer = scratch.take(classes);
    std::fill(merged + call.student.length, merged + classes, A(0));
    std::fill(moment + call.student.length, moment + classes, A(0));
    const A scale = 1 / call.tau;
    const V lowest = V{} + std::numeric_limits<A>::lowest();
    const V tiny = V{} + std::numeric_limits<A>::min();

    for (int64_t row = begin; row < end; ++row) {
      const A* teacher = call.teacher.template read<lanes>(row, teacher_buffer);
      const A* student = call.student.template read<lanes>(row, student_buffer);
      const A teacher_max = row_max<bytes>(teacher, bins);
      const A student_max = row_max<bytes>(student, classes);
      const A teacher_sum = row_exp<bytes, true>(teacher, bins, teacher_max, scale, teacher_exp);
      merge<bytes>(call, teacher_exp, work, merged);
      if (wants_tau) {
        for (int64_t i = 0; i < bins; i += lanes) {
          V z, e;
          load(z, teacher + i);
          load(e, teacher_exp + i);
          store(teacher_moment + i, V(e * finite_below<V>((z - teacher_max) * scale, lowest)));
        }
        merge<bytes>(call, teacher_moment, work, moment);
      }
      const A student_sum = row_exp<bytes, true>(student, classes, student_max, scale, student_exp);

      const A teacher_norm = 1 / teacher_sum;
      const A student_norm = 1 / student_sum;
      A* gradient =
          wants_student ? call.student_gradient.template target<lanes>(row, gradient_buffer) : nullptr;
      CcaSums<V> sums;
      for (int64_t j = 0; j < classes; j += lanes) {
        V z, mass, p;
        load(z, student + j);
        load(mass, merged + j);
        load(p, student_exp + j);
        z = (z - student_max) * scale;
        const V q = mass * teacher_norm;
        const V log_mass = log_positive<bytes>(mass < tiny ? tiny : mass);
        const V log_ratio = mass == V{} ? V{} : log_mass - z;  // but for `offset`, which waits for both sums
        sums.divergence += q * log_ratio;
        if (wants_student) {
          const V difference = p * student_norm - q;
          store(gradient + j, V(difference * call.tau));
          if (wants_tau) {
            V slope;
            load(slope, moment + j);
            slope *= teacher_norm;
            sums.student_mean += difference * finite_below<V>(z, lowest);
            sums.teacher_mean += slope;
            sums.teacher_slope += slope * log_ratio;
          }
        }
      }
      const A offset = cdkd::log_positive(student_sum) - cdkd::log_positive(teacher_sum);
      const A divergence = fold_lanes<A, bytes>(sums.divergence, Add()) + offset;
      call.loss[row] = call.tau * call.tau * divergence;
      if (wants_student) call.student_gradient.write(row, gradient);
      if (wants_tau) {
        const A student_mean = fold_lanes<A, bytes>(sums.student_mean, Add());
        const A teacher_mean = fold_lanes<A, bytes>(sums.teacher_mean, Add());
        const A teacher_slope = fold_lanes<A, bytes>(sums.teacher_slope, Add()) + offset * teacher_mean;
        call.tau_gradient[row] =
            call.tau * (2 * divergence - student_mean - teacher_slope + divergence * teacher_mean);
      }
    }
  }
};

template <class A>
void cca_kl_rows(const CcaKl<A>& call, int64_t begin, int64_t end) {
  if (call.tau_gradient) {
    run<CcaKlRows<true, true>>(call, begin, end);
  } else if (call.student_gradient.data) {
    run<CcaKlRows<true, false>>(call, begin, end);
  } else {
    run<CcaKlRows<false, false>>(call, begin, end);
  }
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
}  // namespace cdkd::cpu

STABLE_TORCH_LIBRARY_IMPL(cdkd, CPU, m) {
  m.impl("cca_kl", TORCH_BOX(&cdkd::cpu::cca_kl));
  m.impl("cca_kl_gradients", TORCH_BOX(&cdkd::cpu::cca_kl_gradients));
  m.impl("cca_kl_backward", TORCH_BOX(&cdkd::cpu::cca_kl_backward));
}
