// projector_cosine on CUDA tensors. Kept for the backward pass as on the CPU, but for `inner`, which is
// empty.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cuda/dense_tensors.h"
#include "ops/projector_cosine/kernels.h"

namespace cdkd::cuda {
namespace {

using Forward = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;
using Backward = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// Checked, contiguous inputs and the call that names them.
struct Inputs {
  Place place;
  Tensor feature, weight, bias, select, teacher;
  ProjectorCosine call{};

  Inputs(const Tensor& feature_, const Tensor& weight_, const Tensor& bias_, const Tensor& select_,
         const Tensor& teacher_, const std::string& activation, double eps)
      : place("feature", feature_) {
    call.format = format_of("feature", feature_);
    check_shape(feature_.dim() == 3, "feature", "(B, C, S)", feature_);
    call.samples = feature_.size(0), call.channels = feature_.size(1), call.positions = feature_.size(2);
    check_shape(weight_.dim() == 3 && weight_.size(2) == call.positions, "weight",
                text("(K, T, ", call.positions, ")"), weight_);
    call.projectors = weight_.size(0), call.targets = weight_.size(1);
    check(call.channels > 0 && call.positions > 0 && call.targets > 0 && call.projectors > 0, "weight",
          "no empty axis but the batch", shape_text(weight_));
    feature =
        input("feature", feature_, feature_.scalar_type(), {call.samples, call.channels, call.positions});
    weight =
        input("weight", weight_, feature_.scalar_type(), {call.projectors, call.targets, call.positions});
    bias = input("bias", bias_, wide(), {call.projectors, call.targets});
    select = input("select", select_, wide(), {call.samples, call.projectors, call.channels});
    teacher = input("teacher", teacher_, feature_.scalar_type(), {call.samples, call.channels, call.targets});
    check(activation == "relu" || activation == "none", "activation", "'relu' or 'none'",
          "'" + activation + "'");
    call.relu = activation == "relu";
    call.eps = eps;
    call.tensor_cores = call.format == Format::kFloat16 || compute_capability() >= 8;
    call.feature = feature.const_data_ptr();
    call.weight = weight.const_data_ptr();
    call.bias = bias.const_data_ptr();
    call.select = select.const_data_ptr();
    call.teacher = teacher.const_data_ptr();
  }

  Tensor input(const char* name, const Tensor& tensor, ScalarType type,
               const std::vector<int64_t>& sizes) const {
    place.check_here(name, tensor);
    check(tensor.scalar_type() == type, name, toString(type), toString(tensor.scalar_type()));
    check_sizes(name, tensor, sizes);
    return packed(tensor);
  }

  ScalarType wide() const { return accumulator_type(call.format == Format::kFloat64); }
  int64_t rows() const { return call.samples * call.channels; }
  int64_t planes() const { return call.relu ? (call.projectors + 7) / 8 : 0; }

  Tensor workspace(int64_t bytes) const { return allocate(feature, {bytes}, ScalarType::Byte); }
};

Forward run(Inputs& in, bool keep) {
  ProjectorCosine& call = in.call;
  const int64_t kept = keep ? in.rows() : 0;
  const Tensor cosine = allocate(in.feature, {call.samples}, in.wide());
  const Tensor projected = allocate(in.feature, {kept, call.targets}, in.wide());
  const Tensor active = allocate(in.feature, {in.planes(), kept, call.targets}, ScalarType::Byte);
  const Tensor inner = allocate(in.feature, {0, call.samples, call.projectors, call.channels}, in.wide());
  const Tensor products = allocate(in.feature, {call.samples, 3}, in.wide());
  const Tensor workspace = in.workspace(projector_cosine_workspace(call));
  call.cosine = cosine.mutable_data_ptr();
  call.products = products.mutable_data_ptr();
  call.projected = keep ? projected.mutable_data_ptr() : nullptr;
  call.active = keep && call.relu ? static_cast<uint8_t*>(active.mutable_data_ptr()) : nullptr;
  call.workspace = workspace.mutable_data_ptr();
  check_launch(launch_projector_cosine(call, in.place.stream()));
  return {cosine, projected, active, inner, products};
}

Tensor projector_cosine(const Tensor& feature, const Tensor& weight, const Tensor& bias, const Tensor& select,
                        const Tensor& teacher, std::string activation, double eps,
                        bool /*recompute: nothing is kept*/) {
  Inputs in(feature, weight, bias, select, teacher, activation, eps);
  return std::get<0>(run(in, false));
}

Forward projector_cosine_forward(const Tensor& feature, const Tensor& weight, const Tensor& bias,
                                 const Tensor& select, const Tensor& teacher, std::string activation,
                                 double eps, bool keep) {
  Inputs in(feature, weight, bias, select, teacher, activation, eps);
  return run(in, keep);
}

Backward projector_cosine_backward(const Tensor& gradient, const Tensor& feature, const Tensor& weight,
                                   const Tensor& bias, const Tensor& select, const Tensor& teacher,
                                   const Tensor& projected, const Tensor& active, const Tensor& /*inner*/,
                                   const Tensor& products, std::string activation, double eps,
                                   bool wants_feature, bool wants_weight) {
  Inputs in(feature, weight, bias, select, teacher, activation, eps);
  ProjectorCosine& call = in.call;
  const bool kept = projected.numel() > 0;
  const int64_t rows = kept ? in.rows() : 0;
  const Tensor outer = in.input("gradient", gradient, in.wide(), {call.samples});
  const Tensor sums = in.input("products", products, in.wide(), {call.samples, 3});
  const Tensor output = in.input("projected", projected, in.wide(), {rows, call.targets});
  const Tensor bits = in.input("active", active, ScalarType::Byte, {in.planes(), rows, call.targets});
  const int64_t some_samples = wants_feature ? call.samples : 0,
                some_projectors = wants_weight ? call.projectors : 0;
  const Tensor to_feature = allocate(in.feature, {some_samples, call.channels, call.positions}, in.wide());
  const Tensor to_weight = allocate(in.feature, {some_projectors, call.targets, call.positions}, in.wide());
  const Tensor to_bias = allocate(in.feature, {some_projectors, call.targets}, in.wide());
  const Tensor to_select = allocate(in.feature, {call.samples, call.projectors, call.channels}, in.wide());
  if (call.samples == 0) {
    clear(to_weight, in.place);
    clear(to_bias, in.place);
    return {to_feature, to_weight, to_bias, to_select};
  }
  call.gradient = outer.const_data_ptr();
  call.products = sums.data_ptr();
  call.projected = kept ? output.data_ptr() : nullptr;
  call.active = kept && call.relu ? static_cast<uint8_t*>(bits.data_ptr()) : nullptr;
  call.feature_gradient = wants_feature ? to_feature.mutable_data_ptr() : nullptr;
  call.weight_gradient = wants_weight ? to_weight.mutable_data_ptr() : nullptr;
  call.bias_gradient = wants_weight ? to_bias.mutable_data_ptr() : nullptr;
  call.select_gradient = to_select.mutable_data_ptr();
  const Tensor workspace = in.workspace(projector_cosine_backward_workspace(call));
  call.workspace = workspace.mutable_data_ptr();
  check_launch(launch_projector_cosine_backward(call, in.place.stream()));
  return {to_feature, to_weight, to_bias, to_select};
}

}  // namespace
}  // namespace cdkd::cuda

STABLE_TORCH_LIBRARY_IMPL(cdkd, CUDA, m) {
  m.impl("projector_cosine", TORCH_BOX(&cdkd::cuda::projector_cosine));
  m.impl("projector_cosine_forward", TORCH_BOX(&cdkd::cuda::projector_cosine_forward));
  m.impl("projector_cosine_backward", TORCH_BOX(&cdkd::cuda::projector_cosine_backward));
}
