// Cross-class alignment: the call, its checks, and the operators on tensors of any device. The arguments are
// those of cdkd_ext.ops.cca_kl.
#pragma once
#include <algorithm>
#include <optional>
#include <string>
#include <tuple>

#include "common/arguments.h"
#include "ops/scale_rows/arguments.h"

namespace cdkd {

// Pointers to results that are not wanted are null; tau's gradient needs the student's. Numbers called wide
// are double if `wide`, else float.
struct CcaKl {
  Rows student;  // (rows, N_s)
  Rows teacher;  // (rows, N_t)
  Rows tau;      // one scalar; what is not positive and finite makes all results NaN
  Rows weights;  // (rows,) or null; a row of weight 0 is not read
  int64_t rows;
  double offset_part;    // of a bin, in [0, 1)
  int32_t offset_whole;  // bins, in [-N_t, N_t]
  bool probabilities;    // what the teacher's rows hold, else logits
  bool wide;
  void* loss;                    // (rows,) wide
  MutableRows student_gradient;  // (rows, N_s), of each row's loss
  void* tau_gradient;            // (rows,) wide, of each row's loss
};

// How far the classes' intervals are moved down, in teacher bins.
inline double check_offset(const std::string& phase, const std::optional<double>& offset, double ratio) {
  const bool centered = check_option("phase", phase, {"paper", "centered"}) == 1;
  if (!offset) return centered ? (ratio - 1) / 2 : 0.0;
  check_number(std::isfinite(*offset), "offset", "a finite number of teacher bins", *offset);
  check_number(!centered, "offset", "None with phase 'centered'", *offset);
  return *offset;
}

inline CcaKl check_cca_kl(const Argument& student, const Argument& teacher, const Argument& tau,
                          const std::string& phase, const std::optional<double>& offset, bool probabilities) {
  check_bins(student);
  check_place(teacher, student);
  check_bins(teacher);
  check_same_rows(teacher, student, "bins");
  check_place(tau, student);
  check_positive(tau);
  CcaKl call{};
  call.student = rows_of(student);
  call.teacher = rows_of(teacher);
  call.tau = scalars_of(tau);
  call.rows = student.sizes.leading().product();
  const double bins = static_cast<double>(call.teacher.length), classes = call.student.length;
  // all mass is in the first or the last class beyond
  const double moved = std::clamp(check_offset(phase, offset, bins / classes), -bins, bins);
  call.offset_whole = static_cast<int32_t>(std::floor(moved));
  call.offset_part = moved - std::floor(moved);
  call.probabilities = probabilities;
  call.wide = student.wide() || teacher.wide();
  return call;
}

inline void check_weights(CcaKl& call, const Argument& student, const Argument& weights) {
  check_place(weights, student);
  check_floating(weights);
  check_one_per_row(weights, student);
  call.weights = scalars_of(weights);
}

template <class Device>
struct CcaKlOperators {
  using Tensor = typename Device::Tensor;
  using Input = typename Device::Input;
  using Results = std::tuple<Tensor, Tensor, Tensor>;

  static Results run(const Tensor& student_logits, const Tensor& teacher_logits, const Tensor& tau_tensor,
                     const std::optional<Tensor>& weights_tensor, const std::string& phase,
                     const std::optional<double>& offset, bool probabilities, bool wants_student,
                     bool wants_tau) {
    const Input student("student_logits", student_logits), teacher("teacher_logits", teacher_logits);
    const Input tau("tau", tau_tensor);
    CcaKl call = check_cca_kl(student, teacher, tau, phase, offset, probabilities);
    std::optional<Input> weights;  // as long as the call names their memory
    if (weights_tensor) {
      weights.emplace("weights", *weights_tensor);
      check_weights(call, student, *weights);
    }
    const Device device(student);
    const Sizes rows = student.sizes.leading(), none = {&kNone, 1};
    const Tensor loss = device.allocate(rows, accumulator(call.wide));
    const Tensor student_gradient = device.allocate(wants_student ? student.sizes : none, student.format);
    const Tensor tau_gradient = device.allocate(wants_tau ? rows : none, accumulator(call.wide));
    call.loss = loss.mutable_data_ptr();
    if (wants_student) call.student_gradient = rows_like(call.student, student_gradient.mutable_data_ptr());
    if (wants_tau) call.tau_gradient = tau_gradient.mutable_data_ptr();
    compute(device, call);
    return {loss, student_gradient, tau_gradient};
  }

  static Tensor plain(const Tensor& student_logits, const Tensor& teacher_logits, const Tensor& tau,
                      const std::optional<Tensor>& weights, const std::string& phase,
                      const std::optional<double>& offset, bool probabilities) {
    return std::get<0>(
        run(student_logits, teacher_logits, tau, weights, phase, offset, probabilities, false, false));
  }

  static Results gradients(const Tensor& student_logits, const Tensor& teacher_logits, const Tensor& tau,
                           const std::optional<Tensor>& weights, const std::string& phase,
                           const std::optional<double>& offset, bool probabilities, bool wants_tau) {
    return run(student_logits, teacher_logits, tau, weights, phase, offset, probabilities, true, wants_tau);
  }

  static std::tuple<Tensor, Tensor> backward(const Tensor& gradient, const Tensor& student_gradient,
                                             const Tensor& tau_gradient) {
    return scale_rows_and_sum<Device>(student_gradient, gradient, tau_gradient);
  }
};

}  // namespace cdkd
