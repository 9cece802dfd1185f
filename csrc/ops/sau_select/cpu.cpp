// sau_select on the CPU: M convolutions, batch norm, ReLU and global average, then two small linear maps and
// a softmax. Kept for the backward pass: the convolutions' responses, and sums per sample. Nothing is added
// in an order that depends on threads.
#include <torch/csrc/stable/library.h>

#include <cmath>
#include <tuple>

#include "cpu/input_type.h"
#include "ops/sau_select/cpu_tiles.h"
#include "cpu/tensors.h"

namespace cdkd::cpu::sau {
namespace {

using Forward = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
using Backward = std::tuple<Tensor, std::vector<Tensor>, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

struct Inputs {
  Tensor feature;
  std::vector<Tensor> conv_weights;
  Tensor norm_weight, norm_bias, squeeze_weight, squeeze_bias, select_weight, select_bias;
  Format format;
  Shape shape;
  int64_t hidden, projectors, margin = 0;

  Inputs(const Tensor& feature_, const std::vector<Tensor>& conv_weights_, const Tensor& norm_weight_,
         const Tensor& norm_bias_, const Tensor& squeeze_weight_, const Tensor& squeeze_bias_,
         const Tensor& select_weight_, const Tensor& select_bias_) {
    format = check_floating("feature", feature_);
    check_shape(feature_.dim() == 4, "feature", "(B, C, h, w)", feature_);
    const int64_t channels = feature_.size(1), branches = static_cast<int64_t>(conv_weights_.size());
    shape = Shape{feature_.size(0), channels, feature_.size(2), feature_.size(3), branches};
    check_shape(channels > 0 && shape.pixels() > 0, "feature",
                "(B, C, h, w) with no empty axis but the batch", feature_);
    check(branches > 0, "conv_weights", "at least one branch", "none");
    feature = packed(feature_);
    for (const Tensor& weight : conv_weights_) {
      check(check_floating("conv_weights", weight) == format, "conv_weights", "the type of feature",
            "another type");
      check_shape(weight.dim() == 4 && weight.size(0) == channels && weight.size(1) == channels &&
                      weight.size(2) == weight.size(3) && weight.size(2) % 2 == 1,
                  "conv_weights", text("(", channels, ", ", channels, ", k, k) with odd k"), weight);
      margin = std::max(margin, weight.size(2) / 2);
      conv_weights.push_back(packed(weight));
    }
    norm_weight = parameter("norm_weight", norm_weight_, {branches, channels});
    norm_bias = parameter("norm_bias", norm_bias_, {branches, channels});
    check_shape(squeeze_weight_.dim() == 2, "squeeze_weight", text("(d, ", channels, ")"), squeeze_weight_);
    hidden = squeeze_weight_.size(0);
    squeeze_weight = parameter("squeeze_weight", squeeze_weight_, {hidden, channels});
    squeeze_bias = parameter("squeeze_bias", squeeze_bias_, {hidden});
    check_shape(select_weight_.dim() == 3, "select_weight", text("(K, ", channels, ", ", hidden, ")"),
                select_weight_);
    projectors = select_weight_.size(0);
    with_accumulator(format == Format::kFloat64, [&](auto zero) { shape.cut<decltype(zero)>(margin); });
    select_weight = parameter("select_weight", select_weight_, {projectors, channels, hidden});
    select_bias = parameter("select_bias", select_bias_, {projectors, channels});
  }

  Tensor parameter(const char* name, const Tensor& tensor, const std::vector<int64_t>& sizes) const {
    check_cpu(name, tensor);
    check(tensor.scalar_type() == type(), name, "float32, or float64 with feature", "another type");
    bool matches = tensor.dim() == static_cast<int64_t>(sizes.size());
    std::string expected = "(";
    for (size_t i = 0; i < sizes.size(); ++i) {
      matches = matches && tensor.size(static_cast<int64_t>(i)) == sizes[i];
      expected += (i ? ", " : "") + std::to_string(sizes[i]);
    }
    check_shape(matches, name, expected + ")", tensor);
    return packed(tensor);
  }

  ScalarType type() const { return accumulator_type(format == Format::kFloat64); }
  int64_t kernel(int64_t branch) const { return conv_weights[branch].size(2); }
};

template <class T>
const T* data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

template <class T>
T* mutable_data(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// The weights of all branches, packed for ConvolveRow one after the other.
template <class In>
AlignedBuffer<Accumulate<In>> pack_weights(const Inputs& in, bool backward) {
  int64_t count = 0;
  for (const Tensor& weight : in.conv_weights) count += weight.numel();
  AlignedBuffer<Accumulate<In>> packed(count);
  Accumulate<In>* to = packed.data();
  for (const Tensor& weight : in.conv_weights) {
    run<PackWeights>(in.shape.channels, weight.size(2), data<In>(weight), backward, to);
    to += weight.numel();
  }
  return packed;
}

// responses: (groups, M·C, pixels of a strip, lanes)
template <class In>
void convolve(const Inputs& in, Accumulate<In>* responses) {
  using T = Accumulate<In>;
  const Shape s = in.shape;
  const int64_t groups = s.groups<T>(), plane = s.strip_pixels() * kLanes<T>;
  const int64_t group_size = s.channels * s.spaced_pixels() * kLanes<T>;
  const AlignedBuffer<T> weights = pack_weights<In>(in, false);
  AlignedBuffer<T> features(groups * group_size);
  torch::stable::parallel_for(0, groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g)
      run<PackLanes>(s, data<In>(in.feature), g, features.data() + g * group_size);
  });
  torch::stable::parallel_for(0, groups * s.rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t g = task / s.rows();
      const T* weight = weights.data();
      for (int64_t m = 0; m < s.branches; ++m) {
        run<ConvolveRow>(s, in.kernel(m), static_cast<const T*>(features.data() + g * group_size), weight,
                         task % s.rows(), false, responses + (g * s.maps() + m * s.channels) * plane);
        weight += in.conv_weights[m].numel();
      }
    }
  });
}

// Weights of the projectors from the pooled activations: squeezed (B, d), selection (B, K, C).
template <class T>
void select_projectors(const Inputs& in, const T* pooled, T* squeezed, T* selection) {
  const int64_t channels = in.shape.channels;
  const T* squeeze_weight = data<T>(in.squeeze_weight);
  const T* squeeze_bias = data<T>(in.squeeze_bias);
  const T* select_weight = data<T>(in.select_weight);
  const T* select_bias = data<T>(in.select_bias);
  for_rows(in.shape.samples, (in.projectors + 1) * in.hidden * channels, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      T* z = squeezed + b * in.hidden;
      for (int64_t j = 0; j < in.hidden; ++j) {
        T sum = squeeze_bias[j];
        for (int64_t c = 0; c < channels; ++c)
          sum += squeeze_weight[j * channels + c] * pooled[b * channels + c];
        z[j] = sum <= 0 ? T(0) : sum;
      }
      T* w = selection + b * in.projectors * channels;
      for (int64_t kc = 0; kc < in.projectors * channels; ++kc) {
        T sum = select_bias[kc];
        for (int64_t j = 0; j < in.hidden; ++j) sum += select_weight[kc * in.hidden + j] * z[j];
        w[kc] = sum;
      }
      for (int64_t c = 0; c < channels; ++c) {
        T most = w[c], total = 0;
        for (int64_t k = 1; k < in.projectors; ++k) most = std::max(most, w[k * channels + c]);
        for (int64_t k = 0; k < in.projectors; ++k) {
          w[k * channels + c] = std::exp(w[k * channels + c] - most);
          total += w[k * channels + c];
        }
        for (int64_t k = 0; k < in.projectors; ++k) w[k * channels + c] /= total;
      }
    }
  });
}

// Returns the selection, mean and variance (M, C) that normalised, and for the backward pass the responses,
// the pooled activations (B, C) and (2, M, C, B): pixels that pass the ReLU and the sum of their normalised
// responses.
template <class In>
Forward forward(const Inputs& in, const Tensor& running_mean, const Tensor& running_var, bool training,
                double eps) {
  using T = Accumulate<In>;
  const Shape s = in.shape;
  const int64_t plane = s.strip_pixels() * kLanes<T>, maps = s.maps();
  Tensor selection = allocate(in.feature, {s.samples, in.projectors, s.channels}, in.type());
  Tensor mean = allocate(in.feature, {s.branches, s.channels}, in.type());
  Tensor variance = allocate(in.feature, {s.branches, s.channels}, in.type());
  // room enough however the samples are cut into strips
  Tensor responses =
      allocate(in.feature, {divide_up(s.samples, kLanes<T>), maps, s.height, s.width, kLanes<T>}, in.type());
  Tensor pooled = allocate(in.feature, {s.samples, s.channels}, in.type());
  Tensor passed = allocate(in.feature, {2, s.branches, s.channels, s.samples}, in.type());
  const bool from_batch = training && s.samples > 0;
  if (!from_batch) {
    std::copy_n(data<T>(running_mean), maps, mutable_data<T>(mean));
    std::copy_n(data<T>(running_var), maps, mutable_data<T>(variance));
  }
  if (s.samples == 0) return {selection, mean, variance, responses, pooled, passed};

  T* const response = mutable_data<T>(responses);
  convolve<In>(in, response);
  std::vector<T> activations(maps * s.samples);
  T* const means = mutable_data<T>(mean);
  T* const variances = mutable_data<T>(variance);
  T* const counts = mutable_data<T>(passed);
  for_rows(maps, s.samples * s.pixels(), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T* map = response + i * plane;
      if (from_batch) run<Normalise>(s, map, maps * plane, means + i, variances + i);
      const T inverse = T(1) / std::sqrt(variances[i] + static_cast<T>(eps));
      run<Activate>(s, map, maps * plane, means[i], inverse, data<T>(in.norm_weight)[i],
                    data<T>(in.norm_bias)[i], counts + i * s.samples, counts + (maps + i) * s.samples,
                    activations.data() + i * s.samples);
    }
  });

  T* const sums = mutable_data<T>(pooled);
  for (int64_t b = 0; b < s.samples; ++b)
    for (int64_t c = 0; c < s.channels; ++c) {
      T sum = 0;
      for (int64_t m = 0; m < s.branches; ++m) sum += activations[(m * s.channels + c) * s.samples + b];
      sums[b * s.channels + c] = sum / static_cast<T>(s.pixels());
    }
  std::vector<T> squeezed(s.samples * in.hidden);
  select_projectors(in, static_cast<const T*>(sums), squeezed.data(), mutable_data<T>(selection));
  return {selection, mean, variance, responses, pooled, passed};
}

// Back through softmax, select and squeeze: gradients of their parameters, and of the pooled activations (B,
// C).
template <class T>
void select_gradients(const Inputs& in, const T* gradient, const T* selection, const T* pooled,
                      T* squeeze_weight, T* squeeze_bias, T* select_weight, T* select_bias, T* to_pooled) {
  const int64_t channels = in.shape.channels, width = in.projectors * channels, samples = in.shape.samples;
  std::vector<T> squeezed(samples * in.hidden), again(samples * width), scores(samples * width);
  select_projectors(in, pooled, squeezed.data(), again.data());
  for (int64_t b = 0; b < samples; ++b)
    for (int64_t c = 0; c < channels; ++c) {
      T inner = 0;
      for (int64_t k = 0; k < in.projectors; ++k) {
        const int64_t i = b * width + k * channels + c;
        inner += gradient[i] * selection[i];
      }
      for (int64_t k = 0; k < in.projectors; ++k) {
        const int64_t i = b * width + k * channels + c;
        scores[i] = selection[i] * (gradient[i] - inner);
      }
    }
  std::fill_n(select_weight, width * in.hidden, T(0));
  std::fill_n(select_bias, width, T(0));
  std::fill_n(squeeze_weight, in.hidden * channels, T(0));
  std::fill_n(squeeze_bias, in.hidden, T(0));
  const T* weight = data<T>(in.select_weight);
  std::vector<T> hidden(in.hidden);
  for (int64_t b = 0; b < samples; ++b) {
    const T* z = squeezed.data() + b * in.hidden;
    std::fill(hidden.begin(), hidden.end(), T(0));
    for (int64_t i = 0; i < width; ++i) {
      const T g = scores[b * width + i];
      select_bias[i] += g;
      for (int64_t j = 0; j < in.hidden; ++j) {
        select_weight[i * in.hidden + j] += g * z[j];
        hidden[j] += g * weight[i * in.hidden + j];
      }
    }
    T* to = to_pooled + b * channels;
    std::fill_n(to, channels, T(0));
    for (int64_t j = 0; j < in.hidden; ++j) {
      const T g = z[j] <= 0 ? T(0) : hidden[j];
      squeeze_bias[j] += g;
      for (int64_t c = 0; c < channels; ++c) {
        squeeze_weight[j * channels + c] += g * pooled[b * channels + c];
        to[c] += g * data<T>(in.squeeze_weight)[j * channels + c];
      }
    }
  }
}

// gradients: (groups, M·C, spaced pixels, lanes), of the responses
template <class In>
void feature_gradient(const Inputs& in, const Accumulate<In>* gradients, Accumulate<In>* feature) {
  using T = Accumulate<In>;
  const Shape s = in.shape;
  const int64_t groups = s.groups<T>(), plane = s.strip_pixels() * kLanes<T>;
  const int64_t from_plane = s.spaced_pixels() * kLanes<T>;
  const AlignedBuffer<T> weights = pack_weights<In>(in, true);
  AlignedBuffer<T> sums(groups * s.channels * plane);
  torch::stable::parallel_for(0, groups * s.rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t g = task / s.rows(), y = task % s.rows();
      T* const to = sums.data() + g * s.channels * plane;
      const T* weight = weights.data();
      for (int64_t m = 0; m < s.branches; ++m) {
        run<ConvolveRow>(s, in.kernel(m), gradients + (g * s.maps() + m * s.channels) * from_plane, weight, y,
                         m > 0, to);
        weight += in.conv_weights[m].numel();
      }
      for (int64_t lane = 0; lane < kLanes<T> && g * kLanes<T> + lane < s.lanes(); ++lane) {
        const int64_t sample = (g * kLanes<T> + lane) / s.strips;
        const int64_t strip = (g * kLanes<T> + lane) % s.strips * s.strip_pixels();
        for (int64_t c = 0; c < s.channels; ++c)
          for (int64_t i = y * s.width; i < (y + 1) * s.width; ++i)
            feature[(sample * s.channels + c) * s.pixels() + strip + i] =
                to[(c * s.strip_pixels() + i) * kLanes<T> + lane];
      }
    }
  });
}

template <class In>
void weight_gradients(const Inputs& in, const Accumulate<In>* gradients, const std::vector<Tensor>& weights) {
  using T = Accumulate<In>;
  const Shape s = in.shape;
  const int64_t groups = s.groups<T>(), plane = s.spaced_pixels() * kLanes<T>;
  AlignedBuffer<T> panels(s.samples * s.pixels() * s.maps());
  torch::stable::parallel_for(0, groups * s.rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task)
      run<GradientPanels>(s, gradients + task / s.rows() * s.maps() * plane, plane, task / s.rows(),
                          task % s.rows(), panels.data());
  });
  const int64_t sample_size = s.height * (s.width + 2 * in.margin) * s.channels;
  AlignedBuffer<T> features(s.samples * sample_size + 64);
  std::fill_n(features.data() + s.samples * sample_size, 64, T(0));
  torch::stable::parallel_for(0, s.samples, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      run<PackPixels>(s, data<In>(in.feature) + b * s.channels * s.pixels(), in.margin,
                      features.data() + b * sample_size);
  });

  struct Task {
    int64_t branch, ky, tile;
  };
  std::vector<Task> tasks;
  const int64_t tiles = divide_up(s.channels, kGradientRows);
  // tile by tile, so that every thread gets large and small kernels
  for (int64_t tile = 0; tile < tiles; ++tile)
    for (int64_t m = 0; m < s.branches; ++m)
      for (int64_t ky = 0; ky < in.kernel(m); ++ky) tasks.push_back({m, ky, tile});
  torch::stable::parallel_for(0, static_cast<int64_t>(tasks.size()), 1, [&](int64_t begin, int64_t end) {
    AlignedBuffer<T> sums(kGradientRows * WeightGradient::columns_of(2 * in.margin + 1, s.channels));
    for (int64_t i = begin; i < end; ++i) {
      const Task& task = tasks[i];
      run<WeightGradient>(s, task.branch, in.kernel(task.branch), task.ky, task.tile,
                          static_cast<const T*>(features.data()), in.margin,
                          static_cast<const T*>(panels.data()), sums.data(),
                          mutable_data<T>(weights[task.branch]));
    }
  });
}

template <class In>
Backward backward(const Inputs& in, const Tensor& gradient, const Tensor& selection, const Tensor& mean,
                  const Tensor& variance, const Tensor& responses, const Tensor& pooled, const Tensor& passed,
                  bool training, double eps, bool wants_feature) {
  using T = Accumulate<In>;
  const Shape s = in.shape;
  const int64_t groups = s.groups<T>(), plane = s.strip_pixels() * kLanes<T>, maps = s.maps();
  const auto fresh = [&](Sizes sizes) {
    Tensor tensor = allocate(in.feature, sizes, in.type());
    std::fill_n(mutable_data<T>(tensor), tensor.numel(), T(0));
    return tensor;
  };
  Tensor feature = fresh({wants_feature ? s.samples : 0, s.channels, s.height, s.width});
  std::vector<Tensor> conv_weights;
  for (const Tensor& weight : in.conv_weights) conv_weights.push_back(fresh(weight.sizes()));
  Tensor norm_weight = fresh({s.branches, s.channels}), norm_bias = fresh({s.branches, s.channels});
  Tensor squeeze_weight = fresh({in.hidden, s.channels}), squeeze_bias = fresh({in.hidden});
  Tensor select_weight = fresh({in.projectors, s.channels, in.hidden});
  Tensor select_bias = fresh({in.projectors, s.channels});
  Backward result{feature,        conv_weights, norm_weight,   norm_bias,
                  squeeze_weight, squeeze_bias, select_weight, select_bias};
  if (s.samples == 0) return result;

  std::vector<T> to_pooled(s.samples * s.channels);
  select_gradients(in, data<T>(gradient), data<T>(selection), data<T>(pooled),
                   mutable_data<T>(squeeze_weight), mutable_data<T>(squeeze_bias),
                   mutable_data<T>(select_weight), mutable_data<T>(select_bias), to_pooled.data());
  const int64_t spaced_plane = s.spaced_pixels() * kLanes<T>;
  AlignedBuffer<T> gradients(groups * maps * spaced_plane);
  const T per_pixel = T(1) / static_cast<T>(s.pixels());
  for_rows(maps, s.samples * s.pixels(), [&](int64_t begin, int64_t end) {
    std::vector<T> lane_gradient(groups * kLanes<T>, T(0));
    for (int64_t i = begin; i < end; ++i) {
      const T* counts = data<T>(passed) + i * s.samples;
      const T* sums = data<T>(passed) + (maps + i) * s.samples;
      T bias = 0, weight = 0;
      for (int64_t b = 0; b < s.samples; ++b) {
        const T g = to_pooled[b * s.channels + i % s.channels] * per_pixel;
        std::fill_n(lane_gradient.begin() + b * s.strips, s.strips, g);
        bias += g * counts[b];
        weight += g * sums[b];
      }
      mutable_data<T>(norm_weight)[i] = weight;
      mutable_data<T>(norm_bias)[i] = bias;
      const T count = static_cast<T>(s.samples * s.pixels());
      const T inverse = T(1) / std::sqrt(data<T>(variance)[i] + static_cast<T>(eps));
      const T gamma = data<T>(in.norm_weight)[i];
      for (int64_t g = 0; g < groups; ++g) {
        T* const to = gradients.data() + (g * maps + i) * spaced_plane;
        run<ResponseGradient>(s.strip_pixels(), data<T>(responses) + (g * maps + i) * plane, data<T>(mean)[i],
                              inverse, gamma, data<T>(in.norm_bias)[i],
                              static_cast<const T*>(lane_gradient.data() + g * kLanes<T>), gamma * inverse,
                              training ? bias / count : T(0), training ? weight / count : T(0),
                              to + s.halo * s.width * kLanes<T>);
        if (s.halo > 0 && wants_feature) run<FillHalo>(s, to);
      }
    }
  });
  if (wants_feature) feature_gradient<In>(in, gradients.data(), mutable_data<T>(feature));
  weight_gradients<In>(in, gradients.data(), conv_weights);
  return result;
}

Forward sau_select_forward(const Tensor& feature, const std::vector<Tensor>& conv_weights,
                           const Tensor& norm_weight, const Tensor& norm_bias, const Tensor& running_mean,
                           const Tensor& running_var, const Tensor& squeeze_weight,
                           const Tensor& squeeze_bias, const Tensor& select_weight, const Tensor& select_bias,
                           bool training, double eps) {
  const Inputs in(feature, conv_weights, norm_weight, norm_bias, squeeze_weight, squeeze_bias, select_weight,
                  select_bias);
  const std::vector<int64_t> sizes{in.shape.branches, in.shape.channels};
  const Tensor mean = in.parameter("running_mean", running_mean, sizes);
  const Tensor var = in.parameter("running_var", running_var, sizes);
  Forward result;
  with_input_type(in.format,
                  [&](auto type) { result = forward<decltype(type)>(in, mean, var, training, eps); });
  return result;
}

std::tuple<Tensor, Tensor, Tensor> sau_select(const Tensor& feature, const std::vector<Tensor>& conv_weights,
                                              const Tensor& norm_weight, const Tensor& norm_bias,
                                              const Tensor& running_mean, const Tensor& running_var,
                                              const Tensor& squeeze_weight, const Tensor& squeeze_bias,
                                              const Tensor& select_weight, const Tensor& select_bias,
                                              bool training, double eps) {
  const Forward all =
      sau_select_forward(feature, conv_weights, norm_weight, norm_bias, running_mean, running_var,
                         squeeze_weight, squeeze_bias, select_weight, select_bias, training, eps);
  return {std::get<0>(all), std::get<1>(all), std::get<2>(all)};
}

Backward sau_select_backward(const Tensor& gradient, const Tensor& feature,
                             const std::vector<Tensor>& conv_weights, const Tensor& norm_weight,
                             const Tensor& norm_bias, const Tensor& squeeze_weight,
                             const Tensor& squeeze_bias, const Tensor& select_weight,
                             const Tensor& select_bias, const Tensor& selection, const Tensor& mean,
                             const Tensor& variance, const Tensor& responses, const Tensor& pooled,
                             const Tensor& passed, bool training, double eps, bool wants_feature) {
  const Inputs in(feature, conv_weights, norm_weight, norm_bias, squeeze_weight, squeeze_bias, select_weight,
                  select_bias);
  const Shape s = in.shape;
  const int64_t lanes = in.format == Format::kFloat64 ? kLanes<double> : kLanes<float>;
  Backward result;
  const std::vector<int64_t> selection_sizes{s.samples, in.projectors, s.channels},
      map_sizes{s.branches, s.channels};
  const Tensor outer = in.parameter("gradient", gradient, selection_sizes);
  const Tensor chosen = in.parameter("selection", selection, selection_sizes);
  const Tensor means = in.parameter("mean", mean, map_sizes);
  const Tensor variances = in.parameter("variance", variance, map_sizes);
  const Tensor kept =
      in.parameter("responses", responses, {divide_up(s.samples, lanes), s.maps(), s.height, s.width, lanes});
  const Tensor pool = in.parameter("pooled", pooled, {s.samples, s.channels});
  const Tensor counts = in.parameter("passed", passed, {2, s.branches, s.channels, s.samples});
  with_input_type(in.format, [&](auto type) {
    result = backward<decltype(type)>(in, outer, chosen, means, variances, kept, pool, counts, training, eps,
                                      wants_feature);
  });
  return result;
}

}  // namespace
}  // namespace cdkd::cpu::sau

STABLE_TORCH_LIBRARY_IMPL(cdkd, CPU, m) {
  m.impl("sau_select", TORCH_BOX(&cdkd::cpu::sau::sau_select));
  m.impl("sau_select_forward", TORCH_BOX(&cdkd::cpu::sau::sau_select_forward));
  m.impl("sau_select_backward", TORCH_BOX(&cdkd::cpu::sau::sau_select_backward));
}
