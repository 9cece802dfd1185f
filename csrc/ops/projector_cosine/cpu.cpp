// projector_cosine on the CPU: sums the projections tile by tile and keeps their sum and the ReLU's bits, or
// nothing at all, for the backward pass. Every sum is added in an order given by the shapes alone, so bits do
// not depend on threads.
#include <torch/csrc/stable/library.h>

#include <cmath>
#include <vector>

#include "arguments.h"
#include "cpu/device.h"
#include "cpu/input_type.h"
#include "cpu_tiles.h"

namespace cdkd::cpu {
namespace projector {
namespace {

constexpr int64_t kTasks = 32;  // at most: each task of the forward pass keeps its own sums
constexpr int64_t kSlabs =
    4;  // parts of the batch that the recomputing backward pass projects one after the other

template <class In>
Problem<Accumulate<In>, In> problem_of(const ProjectorCosine& call) {
  using T = Accumulate<In>;
  Problem<T, In> p{};
  p.channels = call.channels, p.positions = call.positions;
  p.targets = call.targets, p.projectors = call.projectors;
  p.rows = call.rows();
  p.relu = call.relu;
  p.feature = static_cast<const In*>(call.feature);
  p.weight = static_cast<const In*>(call.weight);
  p.bias = static_cast<const T*>(call.bias);
  p.select = static_cast<const T*>(call.select);
  p.teacher = static_cast<const In*>(call.teacher);
  p.projected = static_cast<T*>(call.projected);
  p.active = call.active;
  return p;
}

// Project the slab; add each row's sums to `sums` (rows, row_sums) unless it is null.
template <class T, class In>
void project(const Problem<T, In>& p, double* sums) {
  AlignedBuffer<T> features(round_up(p.rows, kRows) * p.positions);
  run<PackFeatureRows>(p, features.data());
  const int64_t chunks = divide_up(p.targets, kChunk);
  const int64_t tasks = std::min(chunks, kTasks);
  const int64_t width = p.rows * row_sums(p.projectors);
  AlignedBuffer<T> partial(sums == nullptr ? 0 : tasks * width);
  torch::stable::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
    AlignedBuffer<T> memory(ProjectScratch<T>::size(p.projectors, p.positions));
    const ProjectScratch<T> scratch(memory.data(), p.projectors, p.positions);
    for (int64_t task = begin; task < end; ++task) {
      T* own = sums == nullptr ? nullptr : partial.data() + task * width;
      if (own != nullptr) std::fill_n(own, width, T(0));
      for (int64_t chunk = task * chunks / tasks; chunk < (task + 1) * chunks / tasks; ++chunk)
        run<Project>(p, static_cast<const T*>(features.data()), chunk * kChunk, scratch, own);
    }
  });
  if (sums == nullptr) return;
  for (int64_t task = 0; task < tasks; ++task)
    for (int64_t i = 0; i < width; ++i) sums[i] += static_cast<double>(partial.data()[task * width + i]);
}

template <class In>
void forward(const ProjectorCosine& call) {
  using T = Accumulate<In>;
  const int64_t width = row_sums(call.projectors);
  std::vector<double> sums(call.rows() * width);
  project(problem_of<In>(call), sums.data());

  T* to = static_cast<T*>(call.inner);
  T* norms = static_cast<T*>(call.products);
  T* result = static_cast<T*>(call.cosine);
  const int64_t half = call.samples * call.projectors * call.channels;
  for (int64_t b = 0; b < call.samples; ++b) {
    double with_teacher = 0, with_output = 0, of_teacher = 0;
    for (int64_t c = 0; c < call.channels; ++c) {
      const double* from = sums.data() + (b * call.channels + c) * width;
      for (int64_t k = 0; k < call.projectors; ++k)
        for (int64_t i = 0; i < 2; ++i)
          to[i * half + (b * call.projectors + k) * call.channels + c] = static_cast<T>(from[2 * k + i]);
      with_teacher += from[width - 3], with_output += from[width - 2], of_teacher += from[width - 1];
    }
    norms[3 * b] = static_cast<T>(with_teacher);
    norms[3 * b + 1] = static_cast<T>(with_output);
    norms[3 * b + 2] = static_cast<T>(of_teacher);
    // written so that a NaN is not taken for a small norm
    const double output_norm = std::sqrt(with_output) < call.eps ? call.eps : std::sqrt(with_output);
    const double teacher_norm = std::sqrt(of_teacher) < call.eps ? call.eps : std::sqrt(of_teacher);
    result[b] = static_cast<T>(with_teacher / (output_norm * teacher_norm));
  }
}

// The gradient of a cosine by the output is teacher_scale · teacher - output_scale · output.
template <class T>
void gradient_scales(int64_t samples, const T* gradient, const T* products, double eps, T* teacher_scale,
                     T* output_scale) {
  for (int64_t b = 0; b < samples; ++b) {
    const double with_teacher = products[3 * b], with_output = products[3 * b + 1],
                 of_teacher = products[3 * b + 2];
    const bool clamped = std::sqrt(with_output) < eps || with_output == 0;
    const double output_norm = std::sqrt(with_output) < eps ? eps : std::sqrt(with_output);
    const double teacher_norm = std::sqrt(of_teacher) < eps ? eps : std::sqrt(of_teacher);
    const double scale = static_cast<double>(gradient[b]) / (output_norm * teacher_norm);
    teacher_scale[b] = static_cast<T>(scale);
    output_scale[b] = clamped ? T(0) : static_cast<T>(scale * with_teacher / with_output);
  }
}

template <class T, class In>
void weight_gradient(const Problem<T, In>& p, bool add, T* weight, T* bias) {
  AlignedBuffer<T> features(p.rows * round_up(p.positions, kPadding));
  run<PackFeatureColumns>(p, features.data());
  const int64_t slices = divide_up(p.targets, kSlice);
  torch::stable::parallel_for(0, slices, 1, [&](int64_t begin, int64_t end) {
    AlignedBuffer<T> memory(WeightScratch<T>::size(p.projectors, p.positions));
    const WeightScratch<T> scratch(memory.data(), p.projectors, p.positions);
    for (int64_t slice = begin; slice < end; ++slice)
      run<WeightGradient>(p, static_cast<const T*>(features.data()), slice * kSlice, add, scratch, weight,
                          bias);
  });
}

template <class T, class In>
void feature_gradient(const Problem<T, In>& p, T* feature) {
  // large blocks read the weight less often; each thread gets as many. Rows do not depend on how they are
  // divided.
  const int64_t threads = std::max<int64_t>(1, torch::stable::get_num_threads());
  const int64_t rounds = divide_up(p.rows, kBlock * threads);
  const int64_t block = round_up(divide_up(p.rows, rounds * threads), kRows);
  const int64_t blocks = divide_up(p.rows, block);
  const int64_t columns = divide_up(p.positions, kColumns);
  torch::stable::parallel_for(0, blocks * columns, 1, [&](int64_t begin, int64_t end) {
    AlignedBuffer<T> memory(FeatureScratch<T>::size(block, p.positions));
    const FeatureScratch<T> scratch(memory.data(), block, p.positions);
    for (int64_t task = begin; task < end; ++task)
      run<FeatureGradient>(p, block, task / columns * block, task % columns * kColumns, scratch, feature);
  });
}

template <class In>
void backward(const Device& device, const ProjectorCosine& call) {
  using T = Accumulate<In>;
  T* const feature = static_cast<T*>(call.feature_gradient);
  T* const weight = static_cast<T*>(call.weight_gradient);
  T* const bias = static_cast<T*>(call.bias_gradient);
  T* const select = static_cast<T*>(call.select_gradient);
  std::vector<T> scales(2 * call.samples);
  gradient_scales(call.samples, static_cast<const T*>(call.gradient), static_cast<const T*>(call.products),
                  call.eps, scales.data(), scales.data() + call.samples);
  const T* sums = static_cast<const T*>(call.inner);
  const int64_t per_sample = call.projectors * call.channels;
  for (int64_t i = 0; i < call.samples * per_sample; ++i)
    select[i] = scales[i / per_sample] * sums[i] -
                scales[call.samples + i / per_sample] * sums[call.samples * per_sample + i];
  if (feature == nullptr && weight == nullptr) return;

  Problem<T, In> p = problem_of<In>(call);
  p.teacher_scale = scales.data();
  p.output_scale = scales.data() + call.samples;
  const bool kept = call.projected != nullptr;
  const int64_t slabs = kept ? 1 : std::min(kSlabs, call.samples);
  const int64_t slab_rows = divide_up(call.samples, slabs) * call.channels;
  const Tensor again = device.allocate({kept ? 0 : slab_rows, call.targets}, accumulator(call.wide()));
  const Tensor active_again = device.allocate_bytes({call.planes(), kept ? 0 : slab_rows, call.targets});
  if (!kept) {
    p.projected = static_cast<T*>(again.mutable_data_ptr());
    p.active = call.relu ? static_cast<uint8_t*>(active_again.mutable_data_ptr()) : nullptr;
  }
  for (int64_t first = 0; first < call.rows(); first += slab_rows) {
    p.first_row = first;
    p.rows = std::min(slab_rows, call.rows() - first);
    if (!kept) project(p, nullptr);
    if (feature != nullptr) feature_gradient(p, feature);
    if (weight != nullptr) weight_gradient(p, first > 0, weight, bias);
  }
}

}  // namespace
}  // namespace projector

void compute(const Device&, const ProjectorCosine& call) {
  with_input_type(call.format, [&](auto type) { projector::forward<decltype(type)>(call); });
}

void compute_backward(const Device& device, const ProjectorCosine& call) {
  with_input_type(call.format, [&](auto type) { projector::backward<decltype(type)>(device, call); });
}

}  // namespace cdkd::cpu

STABLE_TORCH_LIBRARY_IMPL(cdkd, CPU, m) {
  using Operators = cdkd::ProjectorCosineOperators<cdkd::cpu::Device>;
  m.impl("projector_cosine", TORCH_BOX(&Operators::plain));
  m.impl("projector_cosine_forward", TORCH_BOX(&Operators::forward));
  m.impl("projector_cosine_backward", TORCH_BOX(&Operators::backward));
}
