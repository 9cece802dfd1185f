// Cross-class alignment: τ² · KL(merged softmax(teacher / τ) ‖ softmax(student / τ)) per row, with its
// derivatives.
#include <torch/csrc/stable/library.h>

#include <vector>

#include "arguments.h"
#include "cpu/device.h"
#include "cpu/isa.h"
#include "cpu/parallel.h"
#include "cpu/row_passes.h"
#include "cpu/rows.h"
#include "merge_bins.h"

namespace cdkd::cpu {
namespace {

// parts: what each class is made of; null where whole blocks of bins are.
template <int bytes, class A>
CDKD_INLINE void merge(const CcaKl& call, const ClassBins<A>* parts, const A* bins, A* work, A* merged) {
  const int64_t classes = call.student.length;
  if (parts) return merge_shares(bins, parts, classes, merged);
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

template <class A, bool wants_student, bool wants_tau>
struct CcaKlRows {
  template <int bytes>
  CDKD_INLINE static void run(const CcaKl& call, const ClassBins<A>* parts, int64_t begin, int64_t end) {
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
    const A tau = read_scalar<A>(call.tau, 0);
    const A scale = 1 / tau;
    const V lowest = V{} + std::numeric_limits<A>::lowest();
    const V tiny = V{} + std::numeric_limits<A>::min();

    for (int64_t row = begin; row < end; ++row) {
      const A* teacher = read_row<lanes>(call.teacher, row, teacher_buffer);
      const A* student = read_row<lanes>(call.student, row, student_buffer);
      const A teacher_max = row_max<bytes>(teacher, bins);
      const A student_max = row_max<bytes>(student, classes);
      const A teacher_sum = row_exp<bytes, true>(teacher, bins, teacher_max, scale, teacher_exp);
      merge<bytes>(call, parts, teacher_exp, work, merged);
      if (wants_tau) {
        for (int64_t i = 0; i < bins; i += lanes) {
          V z, e;
          load(z, teacher + i);
          load(e, teacher_exp + i);
          store(teacher_moment + i, V(e * finite_below<V>((z - teacher_max) * scale, lowest)));
        }
        merge<bytes>(call, parts, teacher_moment, work, moment);
      }
      const A student_sum = row_exp<bytes, true>(student, classes, student_max, scale, student_exp);

      const A teacher_norm = 1 / teacher_sum;
      const A student_norm = 1 / student_sum;
      A* gradient = wants_student ? target_row<lanes>(call.student_gradient, row, gradient_buffer) : nullptr;
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
          store(gradient + j, V(difference * tau));
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
      static_cast<A*>(call.loss)[row] = tau * tau * divergence;
      if (wants_student) write_row(call.student_gradient, row, gradient);
      if (wants_tau) {
        const A student_mean = fold_lanes<A, bytes>(sums.student_mean, Add());
        const A teacher_mean = fold_lanes<A, bytes>(sums.teacher_mean, Add());
        const A teacher_slope = fold_lanes<A, bytes>(sums.teacher_slope, Add()) + offset * teacher_mean;
        static_cast<A*>(call.tau_gradient)[row] =
            tau * (2 * divergence - student_mean - teacher_slope + divergence * teacher_mean);
      }
    }
  }
};

template <class A>
void cca_kl_rows(const CcaKl& call, const ClassBins<A>* parts, int64_t begin, int64_t end) {
  if (call.tau_gradient) {
    run<CcaKlRows<A, true, true>>(call, parts, begin, end);
  } else if (call.student_gradient.data) {
    run<CcaKlRows<A, true, false>>(call, parts, begin, end);
  } else {
    run<CcaKlRows<A, false, false>>(call, parts, begin, end);
  }
}

}  // namespace

void compute(const Device&, const CcaKl& call) {
  with_accumulator(call.wide, [&](auto zero) {
    using A = decltype(zero);
    const int64_t bins = call.teacher.length, classes = call.student.length;
    std::vector<ClassBins<A>> parts;
    if (!merges_in_blocks(bins, classes))
      for (int64_t j = 0; j < classes; ++j) parts.push_back(class_bins<A>(j, bins, classes, call.centered));
    for_rows(call.rows, bins + classes, [&](int64_t begin, int64_t end) {
      cca_kl_rows<A>(call, parts.empty() ? nullptr : parts.data(), begin, end);
    });
  });
}

}  // namespace cdkd::cpu

STABLE_TORCH_LIBRARY_IMPL(cdkd, CPU, m) {
  using Operators = cdkd::CcaKlOperators<cdkd::cpu::Device>;
  m.impl("cca_kl", TORCH_BOX(&Operators::plain));
  m.impl("cca_kl_gradients", TORCH_BOX(&Operators::gradients));
  m.impl("cca_kl_backward", TORCH_BOX(&Operators::backward));
}
