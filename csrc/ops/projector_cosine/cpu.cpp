// projector_cosine on the CPU: sums the projections tile by tile and keeps their sum and the ReLU's bits, or
// nothing at all, for the backward pass. Every sum is added in an order given by the shapes alone, so bits do
// not depend on threads.
#include <torch/csrc/stable/library.h>

#include <cmath>
#include <tuple>

#include "cpu/input_type.h"
#include "ops/projector_cosine/cpu_tiles.h"
#include "cpu/tensors.h"

namespace cdkd::cpu::projector {
namespace {

constexpr int64_t kTasks = 32;  // at most: each task of the forward pass keeps its own sums
constexpr int64_t kSlabs =
    4;  // parts of the batch that the recomputing backward pass projects one after the other

using Forward = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;
using Backward = std::tuple<Tensor, Tensor, Tensor, Tensor>;

struct Inputs {
  Tensor feature, weight, bias, select, teacher;
  Format format;
  int64_t samples, channels, positions, targets, projectors;

  Inputs(const Tensor& feature_, const Tensor& weight_, const Tensor& bias_, const Tensor& select_,
         const Tensor& teacher_)
      : feature(feature_), weight(weight_), bias(bias_), select(select_), teacher(teacher_) {
    format = check_floating("feature", feature);
    check_shape(feature.dim() == 3, "feature", "(B, C, S)", feature);
    samples = feature.size(0), channels = feature.size(1), positions = feature.size(2);
    check_shape(weight.dim() == 3 && weight.size(2) == positions, "weight", text("(K, T, ", positions, ")"),
                weight);
    projectors = weight.size(0), targets = weight.size(1);
    check_shape(bias.dim() == 2 && bias.size(0) == projectors && bias.size(1) == targets, "bias",
                text("(", projectors, ", ", targets, ")"), bias);
    check_shape(select.dim() == 3 && select.size(0) == samples && select.size(1) == projectors &&
                    select.size(2) == channels,
                "select", text("(", samples, ", ", projectors, ", ", channels, ")"), select);
    check_shape(teacher.dim() == 3 && teacher.size(0) == samples && teacher.size(1) == channels &&
                    teacher.size(2) == targets,
                "teacher", text("(", samples, ", ", channels, ", ", targets, ")"), teacher);
    check(channels > 0 && positions > 0 && targets > 0 && projectors > 0, "weight",
          "no empty axis but the batch", shape_text(weight));
    check(check_floating("weight", weight) == format, "weight", "the type of feature", "another type");
    check(check_floating("teacher", teacher) == format, "teacher", "the type of feature", "another type");
    const Format wide = format == Format::kFloat64 ? Format::kFloat64 : Format::kFloat32;
    check(check_floating("bias", bias) == wide, "bias", "float32, or float64 with feature", "another type");
    check(check_floating("select", select) == wide, "select", "float32, or float64 with feature",
          "another type");
    feature = packed(feature), weight = packed(weight), bias = packed(bias);
    select = packed(select), teacher = packed(teacher);
  }

  ScalarType type() const { return accumulator_type(format == Format::kFloat64); }
  int64_t rows() const { return samples * channels; }
  int64_t planes(bool relu) const { return relu ? divide_up(projectors, 8) : 0; }

  template <class In>
  Problem<Accumulate<In>, In> problem(bool relu) const {
    using T = Accumulate<In>;
    Problem<T, In> p{};
    p.channels = channels, p.positions = positions, p.targets = targets, p.projectors = projectors;
    p.rows = rows();
    p.relu = relu;
    p.feature = static_cast<const In*>(feature.const_data_ptr());
    p.weight = static_cast<const In*>(weight.const_data_ptr());
    p.bias = static_cast<const T*>(bias.const_data_ptr());
    p.select = static_cast<const T*>(select.const_data_ptr());
    p.teacher = static_cast<const In*>(teacher.const_data_ptr());
    return p;
  }
};

bool is_relu(const std::string& activation) {
  check(activation == "relu" || activation == "none", "activation", "'relu' or 'none'",
        "'" + activation + "'");
  return activation == "relu";
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

// Returns the cosines, and what the backward pass wants to know: the projections' sum and the ReLU's bits
// (empty unless `keep`), <teacher, a_k> and <output, a_k> per channel (2, B, K, C), and the three products
// per sample (B, 3).
template <class In>
Forward forward(const Inputs& in, bool relu, double eps, bool keep) {
  using T = Accumulate<In>;
  const int64_t rows = in.rows();
  Tensor cosine = allocate(in.feature, {in.samples}, in.type());
  Tensor projected = allocate(in.feature, {keep ? rows : 0, in.targets}, in.type());
  Tensor active = allocate(in.feature, {in.planes(relu), keep ? rows : 0, in.targets}, ScalarType::Byte);
  Tensor inner = allocate(in.feature, {2, in.samples, in.projectors, in.channels}, in.type());
  Tensor products = allocate(in.feature, {in.samples, 3}, in.type());
  Problem<T, In> p = in.problem<In>(relu);
  p.projected = keep ? static_cast<T*>(projected.mutable_data_ptr()) : nullptr;
  p.active = keep && relu ? static_cast<uint8_t*>(active.mutable_data_ptr()) : nullptr;
  const int64_t width = row_sums(in.projectors);
  std::vector<double> sums(rows * width);
  if (rows > 0) project(p, sums.data());

  T* to = static_cast<T*>(inner.mutable_data_ptr());
  T* norms = static_cast<T*>(products.mutable_data_ptr());
  T* result = static_cast<T*>(cosine.mutable_data_ptr());
  const int64_t half = in.samples * in.projectors * in.channels;
  for (int64_t b = 0; b < in.samples; ++b) {
    double with_teacher = 0, with_output = 0, of_teacher = 0;
    for (int64_t c = 0; c < in.channels; ++c) {
      const double* from = sums.data() + (b * in.channels + c) * width;
      for (int64_t k = 0; k < in.projectors; ++k)
        for (int64_t i = 0; i < 2; ++i)
          to[i * half + (b * in.projectors + k) * in.channels + c] = static_cast<T>(from[2 * k + i]);
      with_teacher += from[width - 3], with_output += from[width - 2], of_teacher += from[width - 1];
    }
    norms[3 * b] = static_cast<T>(with_teacher);
    norms[3 * b + 1] = static_cast<T>(with_output);
    norms[3 * b + 2] = static_cast<T>(of_teacher);
    // written so that a NaN is not taken for a small norm
    const double output_norm = std::sqrt(with_output) < eps ? eps : std::sqrt(with_output);
    const double teacher_norm = std::sqrt(of_teacher) < eps ? eps : std::sqrt(of_teacher);
    result[b] = static_cast<T>(with_teacher / (output_norm * teacher_norm));
  }
  return {cosine, projected, active, inner, products};
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

// Gradients of feature, weight, bias and select in the accumulation type; the first three are empty where not
// wanted.
template <class In>
Backward backward(const Inputs& in, const Tensor& gradient, const Tensor& projected, const Tensor& active,
                  const Tensor& inner, const Tensor& products, bool relu, double eps, bool wants_feature,
                  bool wants_weight) {
  using T = Accumulate<In>;
  const int64_t some_samples = wants_feature ? in.samples : 0,
                some_projectors = wants_weight ? in.projectors : 0;
  Tensor to_feature = allocate(in.feature, {some_samples, in.channels, in.positions}, in.type());
  Tensor to_weight = allocate(in.feature, {some_projectors, in.targets, in.positions}, in.type());
  Tensor to_bias = allocate(in.feature, {some_projectors, in.targets}, in.type());
  Tensor to_select = allocate(in.feature, {in.samples, in.projectors, in.channels}, in.type());
  T* const feature = static_cast<T*>(to_feature.mutable_data_ptr());
  T* const weight = static_cast<T*>(to_weight.mutable_data_ptr());
  T* const bias = static_cast<T*>(to_bias.mutable_data_ptr());
  T* const select = static_cast<T*>(to_select.mutable_data_ptr());
  if (in.samples == 0) {
    std::fill_n(weight, to_weight.numel(), T(0));
    std::fill_n(bias, to_bias.numel(), T(0));
    return {to_feature, to_weight, to_bias, to_select};
  }

  std::vector<T> scales(2 * in.samples);
  gradient_scales(in.samples, static_cast<const T*>(gradient.const_data_ptr()),
                  static_cast<const T*>(products.const_data_ptr()), eps, scales.data(),
                  scales.data() + in.samples);
  const T* sums = static_cast<const T*>(inner.const_data_ptr());
  const int64_t per_sample = in.projectors * in.channels;
  for (int64_t i = 0; i < in.samples * per_sample; ++i)
    select[i] = scales[i / per_sample] * sums[i] -
                scales[in.samples + i / per_sample] * sums[in.samples * per_sample + i];
  if (!wants_feature && !wants_weight) return {to_feature, to_weight, to_bias, to_select};

  Problem<T, In> p = in.problem<In>(relu);
  p.teacher_scale = scales.data();
  p.output_scale = scales.data() + in.samples;
  const bool kept = projected.numel() > 0;
  const int64_t slabs = kept ? 1 : std::min(kSlabs, in.samples);
  const int64_t slab_rows = divide_up(in.samples, slabs) * in.channels;
  Tensor again = allocate(in.feature, {kept ? 0 : slab_rows, in.targets}, in.type());
  Tensor active_again =
      allocate(in.feature, {in.planes(relu), kept ? 0 : slab_rows, in.targets}, ScalarType::Byte);
  p.projected = static_cast<T*>((kept ? projected : again).data_ptr());
  p.active = relu ? static_cast<uint8_t*>((kept ? active : active_again).data_ptr()) : nullptr;
  for (int64_t first = 0; first < in.rows(); first += slab_rows) {
    p.first_row = first;
    p.rows = std::min(slab_rows, in.rows() - first);
    if (!kept) project(p, nullptr);
    if (wants_feature) feature_gradient(p, feature);
    if (wants_weight) weight_gradient(p, first > 0, weight, bias);
  }
  return {to_feature, to_weight, to_bias, to_select};
}

Tensor projector_cosine(const Tensor& feature, const Tensor& weight, const Tensor& bias, const Tensor& select,
                        const Tensor& teacher, std::string activation, double eps,
                        bool /*recompute: nothing is kept*/) {
  const Inputs in(feature, weight, bias, select, teacher);
  const bool relu = is_relu(activation);
  Tensor cosine;
  with_input_type(in.format,
                  [&](auto type) { cosine = std::get<0>(forward<decltype(type)>(in, relu, eps, false)); });
  return cosine;
}

Forward projector_cosine_forward(const Tensor& feature, const Tensor& weight, const Tensor& bias,
                                 const Tensor& select, const Tensor& teacher, std::string activation,
                                 double eps, bool keep) {
  const Inputs in(feature, weight, bias, select, teacher);
  const bool relu = is_relu(activation);
  Forward result;
  with_input_type(in.format, [&](auto type) { result = forward<decltype(type)>(in, relu, eps, keep); });
  return result;
}

Backward projector_cosine_backward(const Tensor& gradient, const Tensor& feature, const Tensor& weight,
                                   const Tensor& bias, const Tensor& select, const Tensor& teacher,
                                   const Tensor& projected, const Tensor& active, const Tensor& inner,
                                   const Tensor& products, std::string activation, double eps,
                                   bool wants_feature, bool wants_weight) {
  const Inputs in(feature, weight, bias, select, teacher);
  const bool relu = is_relu(activation);
  check_shape(gradient.dim() == 1 && gradient.size(0) == in.samples && gradient.scalar_type() == in.type(),
              "gradient", text("(", in.samples, ")"), gradient);
  check_shape(inner.numel() == 2 * in.rows() * in.projectors && inner.scalar_type() == in.type(), "inner",
              text("(2, ", in.samples, ", ", in.projectors, ", ", in.channels, ")"), inner);
  check_shape(products.numel() == 3 * in.samples && products.scalar_type() == in.type(), "products",
              text("(", in.samples, ", 3)"), products);
  check_shape(projected.numel() == 0 || projected.numel() == in.rows() * in.targets, "projected",
              text("(", in.rows(), ", ", in.targets, ")"), projected);
  check_shape(!relu || active.numel() == projected.numel() * in.planes(relu), "active",
              text("(", in.planes(relu), ", ", in.rows(), ", ", in.targets, ")"), active);
  Backward result;
  with_input_type(in.format, [&](auto type) {
    result = backward<decltype(type)>(in, packed(gradient), packed(projected), packed(active), packed(inner),
                                      packed(products), relu, eps, wants_feature, wants_weight);
  });
  return result;
}

}  // namespace
}  // namespace cdkd::cpu::projector

STABLE_TORCH_LIBRARY_IMPL(cdkd, CPU, m) {
  m.impl("projector_cosine", TORCH_BOX(&cdkd::cpu::projector::projector_cosine));
  m.impl("projector_cosine_forward", TORCH_BOX(&cdkd::cpu::projector::projector_cosine_forward));
  m.impl("projector_cosine_backward", TORCH_BOX(&cdkd::cpu::projector::projector_cosine_backward));
}
