// Cross-class alignment: τ² · KL(merged softmax(teacher / τ) ‖ softmax(student / τ)) per row, with its
// derivatives.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <optional>

#include "arguments.h"
#include "cpu/device.h"
#include "cpu/isa.h"
#include "cpu/parallel.h"
#include "cpu/row_passes.h"
#include "cpu/rows.h"
#include "merge_bins.h"

namespace cdkd::cpu {
namespace {

// How the bins of every row are merged: in blocks if `shares` is null.
template <class A>
struct Merge {
  Blocks blocks;
  const ClassShares<A>* shares;
};

template <int bytes, class A>
CDKD_INLINE void merge(const Merge<A>& how, int64_t classes, const A* bins, A* work, A* merged) {
  if (how.shares) return how.shares->merge(bins, merged);
  merge_blocks<bytes>(bins, classes, how.blocks, work, merged);
}

// The teacher's row as logits, in whole vectors.
template <int lanes, int bytes, class A>
CDKD_INLINE const A* teacher_row(const CcaKl& call, int64_t row, A* buffer) {
  const A* values = read_row<lanes>(call.teacher, row, buffer);
  if (!call.probabilities) return values;
  const int64_t length = call.teacher.length;
  for (int64_t i = 0; i < length; i += lanes) {
    Vector<A, bytes> p;
    load(p, values + i);
    store(buffer + i, log_nonnegative<bytes>(p));
  }
  std::fill(buffer + length, buffer + round_up(length, lanes), -std::numeric_limits<A>::infinity());
  return buffer;
}

// A row of so many bins between zeros.
template <class A>
CDKD_INLINE A* margined(A* memory, int64_t bins) {
  A* row = memory + kMargin;
  std::fill(memory, row, A(0));
  std::fill(row + bins, row + bins + kMargin, A(0));
  return row;
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

// The results of a row that has no weight.
template <class A>
CDKD_INLINE void write_nothing(const CcaKl& call, int64_t row, A* buffer) {
  static_cast<A*>(call.loss)[row] = 0;
  if (call.tau_gradient) static_cast<A*>(call.tau_gradient)[row] = 0;
  if (!call.student_gradient.data) return;
  std::fill_n(buffer, call.student.length, A(0));
  write_row(call.student_gradient, row, buffer);
}

template <class A, bool wants_student, bool wants_tau>
struct CcaKlRows {
  template <int bytes>
  CDKD_INLINE static void run(const CcaKl& call, const Merge<A>& how, int64_t begin, int64_t end) {
    using V = Vector<A, bytes>;
    constexpr int lanes = VectorOf<A, bytes>::lanes;
    const int64_t bins = round_up(call.teacher.length, lanes);
    const int64_t classes = round_up(call.student.length, lanes);
    const int64_t spacious = kMargin + bins + kMargin;
    Scratch<A> scratch(11, std::max(spacious, classes));
    A* teacher_exp = margined(scratch.take(spacious), bins);     // (N_t,) exp(z_t)
    A* teacher_moment = margined(scratch.take(spacious), bins);  // (N_t,) exp(z_t) · z_t
    A* work = scratch.take(2 * spacious);
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
      const A weight = call.weights.data ? read_scalar<A>(call.weights, row) : A(1);
      if (weight == 0) {
        write_nothing(call, row, gradient_buffer);
        continue;
      }
      const A* teacher = teacher_row<lanes, bytes>(call, row, teacher_buffer);
      const A* student = read_row<lanes>(call.student, row, student_buffer);
      const A teacher_max = row_max<bytes>(teacher, bins);
      const A student_max = row_max<bytes>(student, classes);
      const A teacher_sum = row_exp<bytes, true>(teacher, bins, teacher_max, scale, teacher_exp);
      merge<bytes>(how, call.student.length, teacher_exp, work, merged);
      if (wants_tau) {
        for (int64_t i = 0; i < bins; i += lanes) {
          V z, e;
          load(z, teacher + i);
          load(e, teacher_exp + i);
          store(teacher_moment + i, V(e * finite_below<V>((z - teacher_max) * scale, lowest)));
        }
        merge<bytes>(how, call.student.length, teacher_moment, work, moment);
      }
      const A student_sum = row_exp<bytes, true>(student, classes, student_max, scale, student_exp);

      const A teacher_norm = 1 / teacher_sum;
      const A student_norm = 1 / student_sum;
      const A slope_scale = tau * weight;
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
        const V log_ratio =
            mass == V{} ? V{} : log_mass - z;  // but for `log_norms`, which wait for both sums
        sums.divergence += q * log_ratio;
        if (wants_student) {
          const V difference = p * student_norm - q;
          store(gradient + j, V(difference * slope_scale));
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
      const A log_norms = cdkd::log_positive(student_sum) - cdkd::log_positive(teacher_sum);
      const A divergence = fold_lanes<A, bytes>(sums.divergence, Add()) + log_norms;
      static_cast<A*>(call.loss)[row] = slope_scale * tau * divergence;
      if (wants_student) write_row(call.student_gradient, row, gradient);
      if (wants_tau) {
        const A student_mean = fold_lanes<A, bytes>(sums.student_mean, Add());
        const A teacher_mean = fold_lanes<A, bytes>(sums.teacher_mean, Add());
        const A teacher_slope = fold_lanes<A, bytes>(sums.teacher_slope, Add()) + log_norms * teacher_mean;
        static_cast<A*>(call.tau_gradient)[row] =
            slope_scale * (2 * divergence - student_mean - teacher_slope + divergence * teacher_mean);
      }
    }
  }
};

template <class A>
void cca_kl_rows(const CcaKl& call, const Merge<A>& how, int64_t begin, int64_t end) {
  if (call.tau_gradient) {
    run<CcaKlRows<A, true, true>>(call, how, begin, end);
  } else if (call.student_gradient.data) {
    run<CcaKlRows<A, true, false>>(call, how, begin, end);
  } else {
    run<CcaKlRows<A, false, false>>(call, how, begin, end);
  }
}

}  // namespace

void compute(const Device&, const CcaKl& call) {
  with_accumulator(call.wide, [&](auto zero) {
    using A = decltype(zero);
    const int64_t bins = call.teacher.length, classes = call.student.length;
    const bool half = call.offset_part != 0;
    Merge<A> how{{bins / classes, call.offset_whole + half, half}, nullptr};
    std::optional<ClassShares<A>> shares;
    if (!merges_in_blocks(bins, classes, how.blocks, call.offset_part)) {
      shares.emplace(bins, classes, call.offset_whole, static_cast<A>(call.offset_part));
      how.shares = &*shares;
    }
    for_rows(call.rows, bins + classes,
             [&](int64_t begin, int64_t end) { cca_kl_rows<A>(call, how, begin, end); });
  });
}

}  // namespace cdkd::cpu

STABLE_TORCH_LIBRARY_IMPL(cdkd, CPU, m) {
  using Operators = cdkd::CcaKlOperators<cdkd::cpu::Device>;
  m.impl("cca_kl", TORCH_BOX(&Operators::plain));
  m.impl("cca_kl_gradients", TORCH_BOX(&Operators::gradients));
  m.impl("cca_kl_backward", TORCH_BOX(&Operators::backward));
}
