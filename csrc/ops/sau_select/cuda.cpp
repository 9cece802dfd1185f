// sau_select on CUDA tensors. Kept for the backward pass as on the CPU, with a single sample in the
// responses' lanes.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cuda/dense_tensors.h"
#include "ops/sau_select/kernels.h"

namespace cdkd::cuda {
namespace {

using Forward = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
using Backward = std::tuple<Tensor, std::vector<Tensor>, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

// Checked, contiguous inputs and the call that names them.
struct Inputs {
  Place place;
  Tensor feature;
  std::vector<Tensor> tensors;  // whose memory the call names
  SauSelect call{};

  Inputs(const Tensor& feature_, const std::vector<Tensor>& conv_weights, const Tensor& norm_weight,
         const Tensor& norm_bias, const Tensor& squeeze_weight, const Tensor& squeeze_bias,
         const Tensor& select_weight, const Tensor& select_bias, bool training, double eps)
      : place("feature", feature_) {
    call.format = format_of("feature", feature_);
    call.training = training;
    call.eps = eps;
    check_shape(feature_.dim() == 4, "feature", "(B, C, h, w)", feature_);
    call.samples = feature_.size(0), call.channels = feature_.size(1);
    call.height = feature_.size(2), call.width = feature_.size(3);
    check_shape(call.channels * call.height * call.width > 0, "feature",
                "(B, C, h, w) with no empty axis but the batch", feature_);
    feature = packed(feature_);
    call.feature = feature.const_data_ptr();
    check(!conv_weights.empty() && conv_weights.size() <= kMaxBranches, "conv_weights",
          text("1 to ", kMaxBranches, " branches"), conv_weights.size());
    call.branches = static_cast<int32_t>(conv_weights.size());
    for (int m = 0; m < call.branches; ++m) {
      const Tensor& weight = conv_weights[m];
      check_shape(
          weight.dim() == 4 && weight.size(3) % 2 == 1 && weight.size(3) <= kMaxKernel, "conv_weights",
          text("(", call.channels, ", ", call.channels, ", k, k) with odd k up to ", kMaxKernel), weight);
      const int64_t kernel = weight.size(3);
      call.kernel[m] = static_cast<int32_t>(kernel);
      call.conv_weight[m] = input("conv_weights", weight, feature_.scalar_type(),
                                  {call.channels, call.channels, kernel, kernel});
    }
    call.norm_weight = parameter("norm_weight", norm_weight, maps());
    call.norm_bias = parameter("norm_bias", norm_bias, maps());
    check_shape(squeeze_weight.dim() == 2, "squeeze_weight", text("(d, ", call.channels, ")"),
                squeeze_weight);
    call.hidden = squeeze_weight.size(0);
    call.squeeze_weight = parameter("squeeze_weight", squeeze_weight, {call.hidden, call.channels});
    call.squeeze_bias = parameter("squeeze_bias", squeeze_bias, {call.hidden});
    check_shape(select_weight.dim() == 3, "select_weight",
                text("(K, ", call.channels, ", ", call.hidden, ")"), select_weight);
    call.projectors = select_weight.size(0);
    call.select_weight =
        parameter("select_weight", select_weight, {call.projectors, call.channels, call.hidden});
    call.select_bias = parameter("select_bias", select_bias, {call.projectors, call.channels});
  }

  const void* input(const char* name, const Tensor& tensor, ScalarType type,
                    const std::vector<int64_t>& sizes) {
    place.check_here(name, tensor);
    check(tensor.scalar_type() == type, name, toString(type), toString(tensor.scalar_type()));
    check_sizes(name, tensor, sizes);
    tensors.push_back(packed(tensor));
    return tensors.back().const_data_ptr();
  }
  const void* parameter(const char* name, const Tensor& tensor, const std::vector<int64_t>& sizes) {
    return input(name, tensor, wide(), sizes);
  }

  // A result, whose address goes to `to`; zeros in an empty batch, which no kernel sees.
  Tensor output(void*& to, Sizes sizes) {
    const Tensor tensor = allocate(feature, sizes, wide());
    to = tensor.mutable_data_ptr();
    if (call.samples == 0) clear(tensor, place);
    return tensor;
  }

  ScalarType wide() const { return accumulator_type(call.format == Format::kFloat64); }
  std::vector<int64_t> maps() const { return {call.branches, call.channels}; }
  std::vector<int64_t> responses() const {
    return {call.samples, call.branches * call.channels, call.height, call.width, 1};
  }
  Tensor workspace(int64_t bytes) {
    const Tensor tensor = allocate(feature, {bytes}, ScalarType::Byte);
    call.workspace = tensor.mutable_data_ptr();
    return tensor;
  }
};

Forward run(Inputs& in, const Tensor& running_mean, const Tensor& running_var, bool keep) {
  SauSelect& call = in.call;
  call.running_mean = in.parameter("running_mean", running_mean, in.maps());
  call.running_var = in.parameter("running_var", running_var, in.maps());
  const Tensor selection = in.output(call.selection, {call.samples, call.projectors, call.channels});
  const Tensor mean = in.output(call.mean, {call.branches, call.channels});
  const Tensor variance = in.output(call.variance, {call.branches, call.channels});
  const Tensor pooled = in.output(call.pooled, {call.samples, call.channels});
  Tensor responses, passed;
  if (keep || call.training) {
    const std::vector<int64_t> sizes = in.responses();
    responses = in.output(call.responses, Sizes(sizes.data(), sizes.size()));
    passed = in.output(call.passed, {2, call.branches, call.channels, call.samples});
  }
  if (call.samples == 0) {
    copy(call.running_mean, mean, in.place);
    copy(call.running_var, variance, in.place);
    return {selection, mean, variance, responses, pooled, passed};
  }
  const Tensor workspace = in.workspace(sau_select_workspace(call));
  check_launch(launch_sau_select(call, in.place.stream()));
  return {selection, mean, variance, responses, pooled, passed};
}

std::tuple<Tensor, Tensor, Tensor> sau_select(const Tensor& feature, const std::vector<Tensor>& conv_weights,
                                              const Tensor& norm_weight, const Tensor& norm_bias,
                                              const Tensor& running_mean, const Tensor& running_var,
                                              const Tensor& squeeze_weight, const Tensor& squeeze_bias,
                                              const Tensor& select_weight, const Tensor& select_bias,
                                              bool training, double eps) {
  Inputs in(feature, conv_weights, norm_weight, norm_bias, squeeze_weight, squeeze_bias, select_weight,
            select_bias, training, eps);
  const Forward all = run(in, running_mean, running_var, false);
  return {std::get<0>(all), std::get<1>(all), std::get<2>(all)};
}

Forward sau_select_forward(const Tensor& feature, const std::vector<Tensor>& conv_weights,
                           const Tensor& norm_weight, const Tensor& norm_bias, const Tensor& running_mean,
                           const Tensor& running_var, const Tensor& squeeze_weight,
                           const Tensor& squeeze_bias, const Tensor& select_weight, const Tensor& select_bias,
                           bool training, double eps) {
  Inputs in(feature, conv_weights, norm_weight, norm_bias, squeeze_weight, squeeze_bias, select_weight,
            select_bias, training, eps);
  return run(in, running_mean, running_var, true);
}

Backward sau_select_backward(const Tensor& gradient, const Tensor& feature,
                             const std::vector<Tensor>& conv_weights, const Tensor& norm_weight,
                             const Tensor& norm_bias, const Tensor& squeeze_weight,
                             const Tensor& squeeze_bias, const Tensor& select_weight,
                             const Tensor& select_bias, const Tensor& selection, const Tensor& mean,
                             const Tensor& variance, const Tensor& responses, const Tensor& pooled,
                             const Tensor& passed, bool training, double eps, bool wants_feature) {
  Inputs in(feature, conv_weights, norm_weight, norm_bias, squeeze_weight, squeeze_bias, select_weight,
            select_bias, training, eps);
  SauSelect& call = in.call;
  const std::vector<int64_t> selected{call.samples, call.projectors, call.channels};
  const auto kept = [&](const char* name, const Tensor& tensor, const std::vector<int64_t>& sizes) {
    return const_cast<void*>(in.parameter(name, tensor, sizes));
  };
  call.gradient = in.parameter("gradient", gradient, selected);
  call.selection = kept("selection", selection, selected);
  call.mean = kept("mean", mean, in.maps());
  call.variance = kept("variance", variance, in.maps());
  call.responses = kept("responses", responses, in.responses());
  call.pooled = kept("pooled", pooled, {call.samples, call.channels});
  call.passed = kept("passed", passed, {2, call.branches, call.channels, call.samples});

  const Tensor to_feature = in.output(
      call.feature_gradient, {wants_feature ? call.samples : 0, call.channels, call.height, call.width});
  if (!wants_feature) call.feature_gradient = nullptr;
  std::vector<Tensor> to_convs;
  for (int m = 0; m < call.branches; ++m)
    to_convs.push_back(in.output(call.conv_gradient[m], conv_weights[m].sizes()));
  const Tensor to_norm_weight = in.output(call.norm_weight_gradient, {call.branches, call.channels});
  const Tensor to_norm_bias = in.output(call.norm_bias_gradient, {call.branches, call.channels});
  const Tensor to_squeeze_weight = in.output(call.squeeze_weight_gradient, {call.hidden, call.channels});
  const Tensor to_squeeze_bias = in.output(call.squeeze_bias_gradient, {call.hidden});
  const Tensor to_select_weight =
      in.output(call.select_weight_gradient, {call.projectors, call.channels, call.hidden});
  const Tensor to_select_bias = in.output(call.select_bias_gradient, {call.projectors, call.channels});
  const Tensor workspace = in.workspace(sau_select_backward_workspace(call));
  check_launch(launch_sau_select_backward(call, in.place.stream()));
  return {to_feature,        to_convs,        to_norm_weight,   to_norm_bias,
          to_squeeze_weight, to_squeeze_bias, to_select_weight, to_select_bias};
}

}  // namespace
}  // namespace cdkd::cuda

STABLE_TORCH_LIBRARY_IMPL(cdkd, CUDA, m) {
  m.impl("sau_select", TORCH_BOX(&cdkd::cuda::sau_select));
  m.impl("sau_select_forward", TORCH_BOX(&cdkd::cuda::sau_select_forward));
  m.impl("sau_select_backward", TORCH_BOX(&cdkd::cuda::sau_select_backward));
}
