// Cosine of the teacher's feature and the student's projected one: the call, its checks, and the operators on
// tensors of any device. The arguments are those of cdkd_ext.ops.projector_cosine. Letters: B samples, C
// channels, S positions of the feature, T of the teacher, K projectors.
#pragma once
#include <cmath>
#include <string>
#include <tuple>

#include "common/arguments.h"

namespace cdkd {

// All tensors contiguous. Numbers called wide are float, or double if the format is float64.
struct ProjectorCosine {
  Format format;      // of feature, weight and teacher
  bool tensor_cores;  // of CUDA, for 16-bit formats; bfloat16 needs compute capability 8.0
  bool relu;
  double eps;
  int64_t samples, channels, positions, targets, projectors;
  const void* feature;  // (B, C, S)
  const void* weight;   // (K, T, S)
  const void* bias;     // (K, T) wide
  const void* select;   // (B, K, C) wide
  const void* teacher;  // (B, C, T)

  // written by the forward pass, read by the backward one
  void* cosine;     // (B,) wide
  void* products;   // (B, 3) wide: <output, teacher>, <output, output>, <teacher, teacher>
  void* projected;  // (B·C, T) wide: Σ_k select · activation; null if not kept, then the backward pass
                    // projects again
  uint8_t* active;  // (planes of 8 projectors, B·C, T): bit k % 8 is set where the ReLU passes; null likewise
  void* inner;      // (2, B, K, C) wide: <teacher, a_k> and <output, a_k>; on CUDA unused, where select's
                    // gradient comes with the feature's

  // of the backward pass; null if not wanted
  const void* gradient;    // (B,) wide, of the cosines
  void* feature_gradient;  // (B, C, S) wide
  void* weight_gradient;   // (K, T, S) wide; together with the bias's
  void* bias_gradient;     // (K, T) wide
  void* select_gradient;   // (B, K, C) wide; always wanted

  void* workspace;  // of CUDA: memory of the size told there, aligned to 16 bytes

  bool wide() const { return format == Format::kFloat64; }
  int64_t rows() const { return samples * channels; }
  int64_t planes() const { return relu ? (projectors + 7) / 8 : 0; }
};

inline ProjectorCosine check_projector_cosine(const Argument& feature, const Argument& weight,
                                              const Argument& bias, const Argument& select,
                                              const Argument& teacher, const std::string& activation,
                                              double eps) {
  ProjectorCosine call{};
  check_floating(feature);
  check_shape(feature, {"B", "C", "S"});
  call.format = feature.format;
  call.samples = feature.sizes[0], call.channels = feature.sizes[1], call.positions = feature.sizes[2];
  if (call.channels == 0 || call.positions == 0)
    fail_shape(feature, "(B, C, S) with no empty axis but the batch");
  const Format wide = accumulator(call.wide());
  check_place(weight, feature);
  check_format(weight, call.format);
  check_shape(weight, {"K", "T", call.positions});
  call.projectors = weight.sizes[0], call.targets = weight.sizes[1];
  if (call.projectors == 0 || call.targets == 0)
    fail_shape(weight, text("(K, T, ", call.positions, ") with no empty axis"));
  check_place(bias, feature);
  check_format(bias, wide);
  check_shape(bias, {call.projectors, call.targets});
  check_place(select, feature);
  check_format(select, wide);
  check_shape(select, {call.samples, call.projectors, call.channels});
  check_place(teacher, feature);
  check_format(teacher, call.format);
  check_shape(teacher, {call.samples, call.channels, call.targets});
  call.relu = check_option("activation", activation, {"relu", "none"}) == 0;
  check_number(eps >= 0 && std::isfinite(eps), "eps", "a finite number that is not negative", eps);
  call.eps = eps;
  call.feature = feature.data;
  call.weight = weight.data;
  call.bias = bias.data;
  call.select = select.data;
  call.teacher = teacher.data;
  return call;
}

// Check what the forward pass kept, and point the call at it.
inline void check_kept(ProjectorCosine& call, const Argument& feature, const Argument& gradient,
                       const Argument& projected, const Argument& active, const Argument& inner,
                       const Argument& products) {
  const Format wide = accumulator(call.wide());
  const bool kept = projected.count() > 0;
  const int64_t rows = kept ? call.rows() : 0;
  for (const Argument* argument : {&gradient, &projected, &active, &inner, &products})
    check_place(*argument, feature);
  for (const Argument* argument : {&gradient, &projected, &inner, &products}) check_format(*argument, wide);
  check_dtype(active, "uint8");
  check_shape(gradient, {call.samples});
  check_shape(projected, {rows, call.targets});
  check_shape(active, {call.planes(), rows, call.targets});
  check_shape(inner, {2, call.samples, call.projectors, call.channels});
  check_shape(products, {call.samples, 3});
  call.gradient = gradient.data;
  call.projected = kept ? const_cast<void*>(projected.data) : nullptr;
  call.active = kept && call.relu ? static_cast<uint8_t*>(const_cast<void*>(active.data)) : nullptr;
  call.inner = const_cast<void*>(inner.data);
  call.products = const_cast<void*>(products.data);
}

template <class Device>
struct ProjectorCosineOperators {
  using Tensor = typename Device::Tensor;
  using Input = typename Device::Input;
  using Forward = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;
  using Backward = std::tuple<Tensor, Tensor, Tensor, Tensor>;

  struct Inputs {
    Input feature, weight, bias, select, teacher;
    ProjectorCosine call;

    Inputs(const Tensor& feature_, const Tensor& weight_, const Tensor& bias_, const Tensor& select_,
           const Tensor& teacher_, const std::string& activation, double eps)
        : feature("feature", feature_),
          weight("weight", weight_),
          bias("bias", bias_),
          select("select", select_),
          teacher("teacher", teacher_),
          call(check_projector_cosine(feature, weight, bias, select, teacher, activation, eps)) {}
  };

  static Forward forward(const Tensor& feature, const Tensor& weight, const Tensor& bias,
                         const Tensor& select, const Tensor& teacher, const std::string& activation,
                         double eps, bool keep) {
    Inputs in(feature, weight, bias, select, teacher, activation, eps);
    ProjectorCosine& call = in.call;
    const Device device(in.feature);
    const Format wide = accumulator(call.wide());
    const int64_t rows = keep ? call.rows() : 0;
    const Tensor cosine = device.allocate({call.samples}, wide);
    const Tensor projected = device.allocate({rows, call.targets}, wide);
    const Tensor active = device.allocate_bytes({call.planes(), rows, call.targets});
    const Tensor inner = device.allocate({2, call.samples, call.projectors, call.channels}, wide);
    const Tensor products = device.allocate({call.samples, 3}, wide);
    call.cosine = cosine.mutable_data_ptr();
    call.projected = keep ? projected.mutable_data_ptr() : nullptr;
    call.active = keep && call.relu ? static_cast<uint8_t*>(active.mutable_data_ptr()) : nullptr;
    call.inner = inner.mutable_data_ptr();
    call.products = products.mutable_data_ptr();
    if (call.samples > 0) compute(device, call);
    return {cosine, projected, active, inner, products};
  }

  static Tensor plain(const Tensor& feature, const Tensor& weight, const Tensor& bias, const Tensor& select,
                      const Tensor& teacher, const std::string& activation, double eps,
                      bool /*recompute: nothing is kept*/) {
    return std::get<0>(forward(feature, weight, bias, select, teacher, activation, eps, false));
  }

  static Backward backward(const Tensor& gradient, const Tensor& feature, const Tensor& weight,
                           const Tensor& bias, const Tensor& select, const Tensor& teacher,
                           const Tensor& projected, const Tensor& active, const Tensor& inner,
                           const Tensor& products, const std::string& activation, double eps,
                           bool wants_feature, bool wants_weight) {
    Inputs in(feature, weight, bias, select, teacher, activation, eps);
    ProjectorCosine& call = in.call;
    const Input outer("gradient", gradient), output("projected", projected), bits("active", active),
        pairs("inner", inner), sums("products", products);
    check_kept(call, in.feature, outer, output, bits, pairs, sums);
    const Device device(in.feature);
    const Format wide = accumulator(call.wide());
    const int64_t samples = wants_feature ? call.samples : 0, projectors = wants_weight ? call.projectors : 0;
    const Tensor to_feature = device.allocate({samples, call.channels, call.positions}, wide);
    const Tensor to_weight = device.allocate({projectors, call.targets, call.positions}, wide);
    const Tensor to_bias = device.allocate({projectors, call.targets}, wide);
    const Tensor to_select = device.allocate(in.select.sizes, wide);
    call.feature_gradient = wants_feature ? to_feature.mutable_data_ptr() : nullptr;
    call.weight_gradient = wants_weight ? to_weight.mutable_data_ptr() : nullptr;
    call.bias_gradient = wants_weight ? to_bias.mutable_data_ptr() : nullptr;
    call.select_gradient = to_select.mutable_data_ptr();
    if (call.samples > 0) {
      compute_backward(device, call);
    } else {
      device.clear(to_weight);
      device.clear(to_bias);
    }
    return {to_feature, to_weight, to_bias, to_select};
  }
};

}  // namespace cdkd
