// sau_select on the CPU: M convolutions, batch norm, ReLU and global average, then two small linear maps and
// a softmax. Kept for the backward pass: the convolutions' responses, and sums per sample. Nothing is added
// in an order that depends on threads.
#include <torch/csrc/stable/library.h>

#include <cmath>
#include <vector>

#include "arguments.h"
#include "cpu/device.h"
#include "cpu/input_type.h"
#include "cpu/parallel.h"
#include "cpu_tiles.h"

namespace cdkd::cpu {
namespace sau {
namespace {

// The call, and how its maps are laid out.
struct Problem {
  const SauSelect& call;
  Shape shape;
  int64_t margin = 0;  // of the largest kernel

  explicit Problem(const SauSelect& call_)
      : call(call_),
        shape{call.samples, call.channels, call.height, call.width, static_cast<int64_t>(call.branches)} {
    for (int m = 0; m < call.branches; ++m) margin = std::max<int64_t>(margin, call.kernel[m] / 2);
    with_accumulator(call.wide(), [&](auto zero) { shape.cut<decltype(zero)>(margin); });
  }

  int64_t kernel(int64_t branch) const { return call.kernel[branch]; }
  int64_t weight_count(int64_t branch) const {
    return shape.channels * shape.channels * kernel(branch) * kernel(branch);
  }
};

template <class T>
const T* data(const void* memory) {
  return static_cast<const T*>(memory);
}

template <class T>
T* mutable_data(void* memory) {
  return static_cast<T*>(memory);
}

// The weights of all branches, packed for ConvolveRow one after the other.
template <class In>
AlignedBuffer<Accumulate<In>> pack_weights(const Problem& in, bool backward) {
  int64_t count = 0;
  for (int64_t m = 0; m < in.shape.branches; ++m) count += in.weight_count(m);
  AlignedBuffer<Accumulate<In>> packed(count);
  Accumulate<In>* to = packed.data();
  for (int64_t m = 0; m < in.shape.branches; ++m) {
    run<PackWeights>(in.shape.channels, in.kernel(m), data<In>(in.call.conv_weight[m]), backward, to);
    to += in.weight_count(m);
  }
  return packed;
}

// responses: (groups, M·C, pixels of a strip, lanes)
template <class In>
void convolve(const Problem& in, Accumulate<In>* responses) {
  using T = Accumulate<In>;
  const Shape s = in.shape;
  const int64_t groups = s.groups<T>(), plane = s.strip_pixels() * kLanes<T>;
  const int64_t group_size = s.channels * s.spaced_pixels() * kLanes<T>;
  const AlignedBuffer<T> weights = pack_weights<In>(in, false);
  AlignedBuffer<T> features(groups * group_size);
  torch::stable::parallel_for(0, groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g)
      run<PackLanes>(s, data<In>(in.call.feature), g, features.data() + g * group_size);
  });
  torch::stable::parallel_for(0, groups * s.rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t g = task / s.rows();
      const T* weight = weights.data();
      for (int64_t m = 0; m < s.branches; ++m) {
        run<ConvolveRow>(s, in.kernel(m), static_cast<const T*>(features.data() + g * group_size), weight,
                         task % s.rows(), false, responses + (g * s.maps() + m * s.channels) * plane);
        weight += in.weight_count(m);
      }
    }
  });
}

// Weights of the projectors from the pooled activations: squeezed (B, d), selection (B, K, C).
template <class T>
void select_projectors(const Problem& in, const T* pooled, T* squeezed, T* selection) {
  const int64_t channels = in.shape.channels;
  const T* squeeze_weight = data<T>(in.call.squeeze_weight);
  const T* squeeze_bias = data<T>(in.call.squeeze_bias);
  const T* select_weight = data<T>(in.call.select_weight);
  const T* select_bias = data<T>(in.call.select_bias);
  for_rows(in.shape.samples, (in.call.projectors + 1) * in.call.hidden * channels,
           [&](int64_t begin, int64_t end) {
             for (int64_t b = begin; b < end; ++b) {
               T* z = squeezed + b * in.call.hidden;
               for (int64_t j = 0; j < in.call.hidden; ++j) {
                 T sum = squeeze_bias[j];
                 for (int64_t c = 0; c < channels; ++c)
                   sum += squeeze_weight[j * channels + c] * pooled[b * channels + c];
                 z[j] = sum <= 0 ? T(0) : sum;
               }
               T* w = selection + b * in.call.projectors * channels;
               for (int64_t kc = 0; kc < in.call.projectors * channels; ++kc) {
                 T sum = select_bias[kc];
                 for (int64_t j = 0; j < in.call.hidden; ++j)
                   sum += select_weight[kc * in.call.hidden + j] * z[j];
                 w[kc] = sum;
               }
               for (int64_t c = 0; c < channels; ++c) {
                 T most = w[c], total = 0;
                 for (int64_t k = 1; k < in.call.projectors; ++k) most = std::max(most, w[k * channels + c]);
                 for (int64_t k = 0; k < in.call.projectors; ++k) {
                   w[k * channels + c] = std::exp(w[k * channels + c] - most);
                   total += w[k * channels + c];
                 }
                 for (int64_t k = 0; k < in.call.projectors; ++k) w[k * channels + c] /= total;
               }
             }
           });
}

template <class In>
void forward(const SauSelect& call) {
  using T = Accumulate<In>;
  const Problem in(call);
  const Shape s = in.shape;
  const int64_t plane = s.strip_pixels() * kLanes<T>, maps = s.maps();
  T* const response = mutable_data<T>(call.responses);
  T* const means = mutable_data<T>(call.mean);
  T* const variances = mutable_data<T>(call.variance);
  T* const counts = mutable_data<T>(call.passed);
  if (!call.training) {
    std::copy_n(data<T>(call.running_mean), maps, means);
    std::copy_n(data<T>(call.running_var), maps, variances);
  }
  convolve<In>(in, response);
  std::vector<T> activations(maps * s.samples);
  for_rows(maps, s.samples * s.pixels(), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T* map = response + i * plane;
      if (call.training) run<Normalise>(s, map, maps * plane, means + i, variances + i);
      const T inverse = T(1) / std::sqrt(variances[i] + static_cast<T>(call.eps));
      run<Activate>(s, map, maps * plane, means[i], inverse, data<T>(in.call.norm_weight)[i],
                    data<T>(in.call.norm_bias)[i], counts + i * s.samples, counts + (maps + i) * s.samples,
                    activations.data() + i * s.samples);
    }
  });

  T* const sums = mutable_data<T>(call.pooled);
  for (int64_t b = 0; b < s.samples; ++b)
    for (int64_t c = 0; c < s.channels; ++c) {
      T sum = 0;
      for (int64_t m = 0; m < s.branches; ++m) sum += activations[(m * s.channels + c) * s.samples + b];
      sums[b * s.channels + c] = sum / static_cast<T>(s.pixels());
    }
  std::vector<T> squeezed(s.samples * in.call.hidden);
  select_projectors(in, static_cast<const T*>(sums), squeezed.data(), mutable_data<T>(call.selection));
}

// Back through softmax, select and squeeze: gradients of their parameters, and of the pooled activations (B,
// C).
template <class T>
void select_gradients(const Problem& in, const T* gradient, const T* selection, const T* pooled,
                      T* squeeze_weight, T* squeeze_bias, T* select_weight, T* select_bias, T* to_pooled) {
  const int64_t channels = in.shape.channels, width = in.call.projectors * channels,
                samples = in.shape.samples;
  std::vector<T> squeezed(samples * in.call.hidden), again(samples * width), scores(samples * width);
  select_projectors(in, pooled, squeezed.data(), again.data());
  for (int64_t b = 0; b < samples; ++b)
    for (int64_t c = 0; c < channels; ++c) {
      T inner = 0;
      for (int64_t k = 0; k < in.call.projectors; ++k) {
        const int64_t i = b * width + k * channels + c;
        inner += gradient[i] * selection[i];
      }
      for (int64_t k = 0; k < in.call.projectors; ++k) {
        const int64_t i = b * width + k * channels + c;
        scores[i] = selection[i] * (gradient[i] - inner);
      }
    }
  std::fill_n(select_weight, width * in.call.hidden, T(0));
  std::fill_n(select_bias, width, T(0));
  std::fill_n(squeeze_weight, in.call.hidden * channels, T(0));
  std::fill_n(squeeze_bias, in.call.hidden, T(0));
  const T* weight = data<T>(in.call.select_weight);
  std::vector<T> hidden(in.call.hidden);
  for (int64_t b = 0; b < samples; ++b) {
    const T* z = squeezed.data() + b * in.call.hidden;
    std::fill(hidden.begin(), hidden.end(), T(0));
    for (int64_t i = 0; i < width; ++i) {
      const T g = scores[b * width + i];
      select_bias[i] += g;
      for (int64_t j = 0; j < in.call.hidden; ++j) {
        select_weight[i * in.call.hidden + j] += g * z[j];
        hidden[j] += g * weight[i * in.call.hidden + j];
      }
    }
    T* to = to_pooled + b * channels;
    std::fill_n(to, channels, T(0));
    for (int64_t j = 0; j < in.call.hidden; ++j) {
      const T g = z[j] <= 0 ? T(0) : hidden[j];
      squeeze_bias[j] += g;
      for (int64_t c = 0; c < channels; ++c) {
        squeeze_weight[j * channels + c] += g * pooled[b * channels + c];
        to[c] += g * data<T>(in.call.squeeze_weight)[j * channels + c];
      }
    }
  }
}

// gradients: (groups, M·C, spaced pixels, lanes), of the responses
template <class In>
void feature_gradient(const Problem& in, const Accumulate<In>* gradients, Accumulate<In>* feature) {
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
        weight += in.weight_count(m);
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
void weight_gradients(const Problem& in, const Accumulate<In>* gradients) {
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
      run<PackPixels>(s, data<In>(in.call.feature) + b * s.channels * s.pixels(), in.margin,
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
                          mutable_data<T>(in.call.conv_gradient[task.branch]));
    }
  });
}

template <class In>
void backward(const SauSelect& call) {
  using T = Accumulate<In>;
  const Problem in(call);
  const Shape s = in.shape;
  const int64_t groups = s.groups<T>(), plane = s.strip_pixels() * kLanes<T>, maps = s.maps();
  const bool wants_feature = call.feature_gradient != nullptr;
  std::vector<T> to_pooled(s.samples * s.channels);
  select_gradients(in, data<T>(call.gradient), data<T>(call.selection), data<T>(call.pooled),
                   mutable_data<T>(call.squeeze_weight_gradient), mutable_data<T>(call.squeeze_bias_gradient),
                   mutable_data<T>(call.select_weight_gradient), mutable_data<T>(call.select_bias_gradient),
                   to_pooled.data());
  const int64_t spaced_plane = s.spaced_pixels() * kLanes<T>;
  AlignedBuffer<T> gradients(groups * maps * spaced_plane);
  const T per_pixel = T(1) / static_cast<T>(s.pixels());
  for_rows(maps, s.samples * s.pixels(), [&](int64_t begin, int64_t end) {
    std::vector<T> lane_gradient(groups * kLanes<T>, T(0));
    for (int64_t i = begin; i < end; ++i) {
      const T* counts = data<T>(call.passed) + i * s.samples;
      const T* sums = data<T>(call.passed) + (maps + i) * s.samples;
      T bias = 0, weight = 0;
      for (int64_t b = 0; b < s.samples; ++b) {
        const T g = to_pooled[b * s.channels + i % s.channels] * per_pixel;
        std::fill_n(lane_gradient.begin() + b * s.strips, s.strips, g);
        bias += g * counts[b];
        weight += g * sums[b];
      }
      mutable_data<T>(call.norm_weight_gradient)[i] = weight;
      mutable_data<T>(call.norm_bias_gradient)[i] = bias;
      const T count = static_cast<T>(s.samples * s.pixels());
      const T inverse = T(1) / std::sqrt(data<T>(call.variance)[i] + static_cast<T>(call.eps));
      const T gamma = data<T>(in.call.norm_weight)[i];
      for (int64_t g = 0; g < groups; ++g) {
        T* const to = gradients.data() + (g * maps + i) * spaced_plane;
        run<ResponseGradient>(s.strip_pixels(), data<T>(call.responses) + (g * maps + i) * plane,
                              data<T>(call.mean)[i], inverse, gamma, data<T>(in.call.norm_bias)[i],
                              static_cast<const T*>(lane_gradient.data() + g * kLanes<T>), gamma * inverse,
                              call.training ? bias / count : T(0), call.training ? weight / count : T(0),
                              to + s.halo * s.width * kLanes<T>);
        if (s.halo > 0 && wants_feature) run<FillHalo>(s, to);
      }
    }
  });
  if (wants_feature) feature_gradient<In>(in, gradients.data(), mutable_data<T>(call.feature_gradient));
  weight_gradients<In>(in, gradients.data());
}

}  // namespace
}  // namespace sau

void compute(const Device& device, SauSelect call) {
  const bool kept = call.responses != nullptr;
  const int64_t maps = call.branches * call.channels;
  const Format wide = accumulator(call.wide());
  const Tensor responses =
      device.allocate({kept ? 0 : call.kept_samples(), maps, call.height, call.width}, wide);
  const Tensor passed = device.allocate({2, maps, kept ? 0 : call.samples}, wide);
  if (!kept) {
    call.responses = responses.mutable_data_ptr();
    call.passed = passed.mutable_data_ptr();
  }
  with_input_type(call.format, [&](auto type) { sau::forward<decltype(type)>(call); });
}

void compute_backward(const Device&, const SauSelect& call) {
  with_input_type(call.format, [&](auto type) { sau::backward<decltype(type)>(call); });
}

}  // namespace cdkd::cpu

STABLE_TORCH_LIBRARY_IMPL(cdkd, CPU, m) {
  using Operators = cdkd::SauSelectOperators<cdkd::cpu::Device>;
  m.impl("sau_select", TORCH_BOX(&Operators::plain));
  m.impl("sau_select_forward", TORCH_BOX(&Operators::forward));
  m.impl("sau_select_backward", TORCH_BOX(&Operators::backward));
}
