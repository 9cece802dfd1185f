// The weights of the projectors from several receptive fields: the call, its checks, and the operators on
// tensors of any device. The arguments are those of cdkd_ext.ops.sau_select. Letters: B samples, C channels,
// M branches, d hidden units, K projectors; R is B rounded up to a multiple of 16.
#pragma once
#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "common/arguments.h"

namespace cdkd {

constexpr int kMaxBranches = 32;
constexpr int kMaxKernel = 127;
// Channels and hidden units together that a block of CUDA threads holds beside the smallest stage of a
// convolution.
constexpr int64_t kMaxHead = 10240, kMaxWideHead = 4096;

// All tensors contiguous. Numbers called wide are float, or double if the format is float64.
struct SauSelect {
  Format format;  // of feature and conv_weight
  bool training;  // normalise with the batch's statistics
  double eps;
  int64_t samples, channels, height, width, hidden, projectors;
  int32_t branches;
  int32_t kernel[kMaxBranches];           // odd, at most kMaxKernel
  const void* feature;                    // (B, C, h, w)
  const void* conv_weight[kMaxBranches];  // (C, C, k, k)
  const void* norm_weight;                // (M, C) wide
  const void* norm_bias;                  // (M, C) wide
  const void* running_mean;               // (M, C) wide
  const void* running_var;                // (M, C) wide
  const void* squeeze_weight;             // (d, C) wide
  const void* squeeze_bias;               // (d,) wide
  const void* select_weight;              // (K, C, d) wide
  const void* select_bias;                // (K, C) wide

  // written by the forward pass, read by the backward one; all wide
  void* selection;  // (B, K, C)
  void* mean;       // (M, C), what normalised
  void* variance;   // (M, C)
  void* responses;  // (R, M·C, h, w), of the convolutions, in an order of the kernel's own; may be null if
                    // not training
  void* pooled;     // (B, C)
  void* passed;  // (2, M, C, B): pixels that pass the ReLU, and the sum of their normalised responses; null
                 // if responses are

  // of the backward pass; all wide
  const void* gradient;               // (B, K, C), of the selection
  void* feature_gradient;             // (B, C, h, w); null if not wanted
  void* conv_gradient[kMaxBranches];  // (C, C, k, k)
  void* norm_weight_gradient;         // (M, C)
  void* norm_bias_gradient;           // (M, C)
  void* squeeze_weight_gradient;      // (d, C)
  void* squeeze_bias_gradient;        // (d,)
  void* select_weight_gradient;       // (K, C, d)
  void* select_bias_gradient;         // (K, C)

  void* workspace;  // of CUDA: memory of the size told there, aligned to 16 bytes

  bool wide() const { return format == Format::kFloat64; }
  int64_t kept_samples() const { return (samples + 15) / 16 * 16; }  // R
};

inline void check_convolutions(SauSelect& call, const Argument& feature,
                               const std::vector<const Argument*>& conv_weights) {
  const int64_t count = static_cast<int64_t>(conv_weights.size());
  if (count < 1 || count > kMaxBranches) fail("conv_weights", text("1 to ", kMaxBranches, " tensors"), count);
  call.branches = static_cast<int32_t>(count);
  for (int m = 0; m < call.branches; ++m) {
    const Argument& weight = *conv_weights[m];
    check_place(weight, feature);
    check_format(weight, call.format);
    check_shape(weight, {call.channels, call.channels, "k", "k"});
    const int64_t kernel = weight.sizes[3];
    if (weight.sizes[2] != kernel || kernel % 2 == 0 || kernel > kMaxKernel)
      fail_shape(weight,
                 text("(", call.channels, ", ", call.channels, ", k, k) with an odd k up to ", kMaxKernel));
    call.kernel[m] = static_cast<int32_t>(kernel);
    call.conv_weight[m] = weight.data;
  }
}

inline const void* check_wide(const SauSelect& call, const Argument& feature, const Argument& argument,
                              std::initializer_list<Size> shape) {
  check_place(argument, feature);
  check_format(argument, accumulator(call.wide()));
  check_shape(argument, shape);
  return argument.data;
}

inline SauSelect check_sau_select(const Argument& feature, const std::vector<const Argument*>& conv_weights,
                                  const Argument& norm_weight, const Argument& norm_bias,
                                  const Argument& squeeze_weight, const Argument& squeeze_bias,
                                  const Argument& select_weight, const Argument& select_bias, bool training,
                                  double eps) {
  SauSelect call{};
  check_floating(feature);
  check_shape(feature, {"B", "C", "h", "w"});
  call.format = feature.format;
  call.samples = feature.sizes[0], call.channels = feature.sizes[1];
  call.height = feature.sizes[2], call.width = feature.sizes[3];
  if (call.channels * call.height * call.width == 0)
    fail_shape(feature, "(B, C, h, w) with no empty axis but the batch");
  if (training && call.samples * call.height * call.width == 1)
    fail_shape(feature, "(B, C, h, w) with several values per channel in training");
  check_convolutions(call, feature, conv_weights);

  const int64_t M = call.branches, C = call.channels;
  call.norm_weight = check_wide(call, feature, norm_weight, {M, C});
  call.norm_bias = check_wide(call, feature, norm_bias, {M, C});
  call.squeeze_weight = check_wide(call, feature, squeeze_weight, {"d", C});
  call.hidden = squeeze_weight.sizes[0];
  if (call.hidden == 0) fail_shape(squeeze_weight, text("(d, ", C, ") with no empty axis"));
  call.squeeze_bias = check_wide(call, feature, squeeze_bias, {call.hidden});
  call.select_weight = check_wide(call, feature, select_weight, {"K", C, call.hidden});
  call.projectors = select_weight.sizes[0];
  if (call.projectors == 0)
    fail_shape(select_weight, text("(K, ", C, ", ", call.hidden, ") with no empty axis"));
  call.select_bias = check_wide(call, feature, select_bias, {call.projectors, C});
  const int64_t most = call.wide() ? kMaxWideHead : kMaxHead;
  if (feature.place.kind == Place::kCuda && C + call.hidden > most)
    fail_shape(squeeze_weight,
               text("(d, C) with d + C up to ", most, " on CUDA in ", name_of(accumulator(call.wide()))));
  check_number(eps > 0 && std::isfinite(eps), "eps", "a positive finite number", eps);
  call.feature = feature.data;
  call.training = training;
  call.eps = eps;
  return call;
}

template <class Device>
struct SauSelectOperators {
  using Tensor = typename Device::Tensor;
  using Input = typename Device::Input;
  using Forward = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
  using Backward = std::tuple<Tensor, std::vector<Tensor>, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

  struct Inputs {
    Input feature;
    std::vector<Input> conv_weights;
    Input norm_weight, norm_bias, squeeze_weight, squeeze_bias, select_weight, select_bias;
    SauSelect call;

    Inputs(const Tensor& feature_, const std::vector<Tensor>& conv_weights_, const Tensor& norm_weight_,
           const Tensor& norm_bias_, const Tensor& squeeze_weight_, const Tensor& squeeze_bias_,
           const Tensor& select_weight_, const Tensor& select_bias_, bool training, double eps)
        : feature("feature", feature_),
          norm_weight("norm_weight", norm_weight_),
          norm_bias("norm_bias", norm_bias_),
          squeeze_weight("squeeze_weight", squeeze_weight_),
          squeeze_bias("squeeze_bias", squeeze_bias_),
          select_weight("select_weight", select_weight_),
          select_bias("select_bias", select_bias_) {
      conv_weights.reserve(conv_weights_.size());
      std::vector<const Argument*> convolutions;
      for (const Tensor& weight : conv_weights_) {
        conv_weights.emplace_back("conv_weights", weight, static_cast<int32_t>(conv_weights.size()));
        convolutions.push_back(&conv_weights.back());
      }
      call = check_sau_select(feature, convolutions, norm_weight, norm_bias, squeeze_weight, squeeze_bias,
                              select_weight, select_bias, training, eps);
    }
  };

  // Results, whose addresses go to the call: zeros in an empty batch, which no kernel sees.
  struct Outputs {
    const Device& device;
    const SauSelect& call;

    Tensor operator()(void*& to, Sizes sizes) const {
      const Tensor tensor = device.allocate(sizes, accumulator(call.wide()));
      to = tensor.mutable_data_ptr();
      if (call.samples == 0) device.clear(tensor);
      return tensor;
    }
  };

  static Forward run(const Tensor& feature, const std::vector<Tensor>& conv_weights,
                     const Tensor& norm_weight, const Tensor& norm_bias, const Tensor& running_mean,
                     const Tensor& running_var, const Tensor& squeeze_weight, const Tensor& squeeze_bias,
                     const Tensor& select_weight, const Tensor& select_bias, bool training, double eps,
                     bool keep) {
    Inputs in(feature, conv_weights, norm_weight, norm_bias, squeeze_weight, squeeze_bias, select_weight,
              select_bias, training, eps);
    SauSelect& call = in.call;
    const int64_t B = call.samples, C = call.channels, M = call.branches;
    const Input mean_before("running_mean", running_mean), var_before("running_var", running_var);
    call.running_mean = check_wide(call, in.feature, mean_before, {M, C});
    call.running_var = check_wide(call, in.feature, var_before, {M, C});

    const Device device(in.feature);
    const Outputs output{device, call};
    const Tensor selection = output(call.selection, {B, call.projectors, C});
    const Tensor mean = output(call.mean, {M, C});
    const Tensor variance = output(call.variance, {M, C});
    const Tensor pooled = output(call.pooled, {B, C});
    const bool needed = keep || training;
    const Tensor responses =
        output(call.responses, {needed ? call.kept_samples() : 0, M * C, call.height, call.width});
    const Tensor passed = output(call.passed, {2, M, C, needed ? B : 0});
    if (!needed) call.responses = call.passed = nullptr;
    if (B > 0) {
      compute(device, call);
    } else {
      device.copy(call.running_mean, mean);
      device.copy(call.running_var, variance);
    }
    return {selection, mean, variance, responses, pooled, passed};
  }

  static std::tuple<Tensor, Tensor, Tensor> plain(const Tensor& feature,
                                                  const std::vector<Tensor>& conv_weights,
                                                  const Tensor& norm_weight, const Tensor& norm_bias,
                                                  const Tensor& running_mean, const Tensor& running_var,
                                                  const Tensor& squeeze_weight, const Tensor& squeeze_bias,
                                                  const Tensor& select_weight, const Tensor& select_bias,
                                                  bool training, double eps) {
    const Forward all = run(feature, conv_weights, norm_weight, norm_bias, running_mean, running_var,
                            squeeze_weight, squeeze_bias, select_weight, select_bias, training, eps, false);
    return {std::get<0>(all), std::get<1>(all), std::get<2>(all)};
  }

  static Forward forward(const Tensor& feature, const std::vector<Tensor>& conv_weights,
                         const Tensor& norm_weight, const Tensor& norm_bias, const Tensor& running_mean,
                         const Tensor& running_var, const Tensor& squeeze_weight, const Tensor& squeeze_bias,
                         const Tensor& select_weight, const Tensor& select_bias, bool training, double eps) {
    return run(feature, conv_weights, norm_weight, norm_bias, running_mean, running_var, squeeze_weight,
               squeeze_bias, select_weight, select_bias, training, eps, true);
  }

  static Backward backward(const Tensor& gradient, const Tensor& feature,
                           const std::vector<Tensor>& conv_weights, const Tensor& norm_weight,
                           const Tensor& norm_bias, const Tensor& squeeze_weight, const Tensor& squeeze_bias,
                           const Tensor& select_weight, const Tensor& select_bias, const Tensor& selection,
                           const Tensor& mean, const Tensor& variance, const Tensor& responses,
                           const Tensor& pooled, const Tensor& passed, bool training, double eps,
                           bool wants_feature) {
    Inputs in(feature, conv_weights, norm_weight, norm_bias, squeeze_weight, squeeze_bias, select_weight,
              select_bias, training, eps);
    SauSelect& call = in.call;
    const int64_t B = call.samples, C = call.channels, M = call.branches, K = call.projectors;
    const int64_t h = call.height, w = call.width, d = call.hidden;
    const Input outer("gradient", gradient), weights("selection", selection), means("mean", mean),
        variances("variance", variance), maps("responses", responses), averages("pooled", pooled),
        counts("passed", passed);
    const auto kept = [&](const Input& input, std::initializer_list<Size> shape) {
      return const_cast<void*>(check_wide(call, in.feature, input, shape));
    };
    call.gradient = kept(outer, {B, K, C});
    call.selection = kept(weights, {B, K, C});
    call.mean = kept(means, {M, C});
    call.variance = kept(variances, {M, C});
    call.responses = kept(maps, {call.kept_samples(), M * C, h, w});
    call.pooled = kept(averages, {B, C});
    call.passed = kept(counts, {2, M, C, B});

    const Device device(in.feature);
    const Outputs output{device, call};
    const Tensor to_feature = output(call.feature_gradient, {wants_feature ? B : 0, C, h, w});
    if (!wants_feature) call.feature_gradient = nullptr;
    std::vector<Tensor> to_convolutions;
    for (int m = 0; m < call.branches; ++m)
      to_convolutions.push_back(output(call.conv_gradient[m], in.conv_weights[m].sizes));
    const Tensor to_norm_weight = output(call.norm_weight_gradient, {M, C});
    const Tensor to_norm_bias = output(call.norm_bias_gradient, {M, C});
    const Tensor to_squeeze_weight = output(call.squeeze_weight_gradient, {d, C});
    const Tensor to_squeeze_bias = output(call.squeeze_bias_gradient, {d});
    const Tensor to_select_weight = output(call.select_weight_gradient, {K, C, d});
    const Tensor to_select_bias = output(call.select_bias_gradient, {K, C});
    if (B > 0) compute_backward(device, call);
    return {to_feature,        to_convolutions, to_norm_weight,   to_norm_bias,
            to_squeeze_weight, to_squeeze_bias, to_select_weight, to_select_bias};
  }
};

}  // namespace cdkd
