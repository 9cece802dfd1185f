// SimCC's own loss per row, Σ t · (log t - log p), with its derivative; the targets t are never stored.
#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "cpu/isa.h"
#include "cpu/row_passes.h"
#include "ops/scale_rows/cpu.h"
#include "cpu/tensors.h"

namespace cdkd::cpu {

template <class A>
struct SimccKl {
  Rows logits;
  Rows target;  // one column
  A smoothing;
  A sigma;  // 0: hard labels
  A* loss;
  MutableRows gradient;  // of each row's loss
};

// x · log(x), 0 at 0.
template <class A>
CDKD_INLINE A entropy_term(A x) {
  return x > 0 ? x * cdkd::log_positive(x) : 0;
}

// A row's logits z, shifted by their maximum, with what every target form needs.
template <class A>
struct Row {
  const A* logits;
  int64_t bins;
  A max;
  A log_sum;
};

template <class A>
CDKD_INLINE A hard_loss(const SimccKl<A>& call, const Row<A>& row, int64_t label) {
  const A label_term = row.log_sum - (row.logits[label] - row.max);  // -log p of the label
  if (call.smoothing == 0) return label_term;
  const A others = static_cast<A>(row.bins - 1);
  const A spread = call.smoothing / others;
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < row.bins; ++i) sum += row.log_sum - (row.logits[i] - row.max);
  return entropy_term(1 - call.smoothing) + others * entropy_term(spread) +
         (1 - call.smoothing) * label_term + spread * (sum - label_term);
}

// Subtract the target from the probabilities.
template <class A>
CDKD_INLINE void subtract_hard(const SimccKl<A>& call, int64_t bins, int64_t label, A* gradient) {
  if (call.smoothing > 0) {
    const A spread = call.smoothing / static_cast<A>(bins - 1);
#pragma omp simd
    for (int64_t i = 0; i < bins; ++i) gradient[i] -= spread;
    gradient[label] += spread;
  }
  gradient[label] -= 1 - call.smoothing;
}

// The Gaussian target within the vectors of bins where it does not round to zero.
template <class A>
struct Gaussian {
  int64_t first;
  int64_t last;  // exclusive
  A center;
  A scale;    // 1 / (σ √2)
  A density;  // 1 / (σ √2π)
  A log_density;
};

template <int lanes, class A>
CDKD_INLINE Gaussian<A> gaussian(const SimccKl<A>& call, int64_t bins, A center) {
  // as floats, exponentials are zero below -87; as doubles, below -745
  const A reach = call.sigma * (sizeof(A) == 8 ? A(38.7) : A(13.3)) + 1;
  const A density = static_cast<A>(0.3989422804014327) / call.sigma;
  const int64_t first = static_cast<int64_t>(std::max(A(0), center - reach));
  const int64_t last = static_cast<int64_t>(std::min(static_cast<A>(bins), center + reach + 1));
  return {first / lanes * lanes,
          round_up(last, lanes),
          center,
          static_cast<A>(0.7071067811865476) / call.sigma,
          density,
          cdkd::log_positive(density)};
}

// The loss; `mass` becomes Σ t and t[first … last) the target, zero beyond the bins.
template <int bytes, class A>
CDKD_INLINE A gaussian_loss(const Gaussian<A>& g, const Row<A>& row, A* t, A* mass) {
  using V = Vector<A, bytes>;
  constexpr int lanes = VectorOf<A, bytes>::lanes;
  V loss{}, total{};
  V position = lane_numbers<A, bytes>() + static_cast<A>(g.first);
  for (int64_t i = g.first; i < g.last; i += lanes, position += static_cast<A>(lanes)) {
    const V distance = (position - g.center) * g.scale;
    const V exponent = -(distance * distance);
    V value = exp2_nonpositive<bytes>(exponent * static_cast<A>(kLog2E)) * g.density;
    value = position < static_cast<A>(row.bins) ? value : V{};
    V logits;
    load(logits, row.logits + i);
    const V log_p = logits - row.max - row.log_sum;
    store(t + i, value);
    total += value;
    loss += value == V{} ? V{} : value * (exponent + g.log_density - log_p);
  }
  *mass = fold_lanes<A, bytes>(total, Add());
  return fold_lanes<A, bytes>(loss, Add());
}

template <bool wants_gradient>
struct SimccKlRows {
  template <int bytes, class A>
  CDKD_INLINE static void run(const SimccKl<A>& call, int64_t begin, int64_t end) {
    using V = Vector<A, bytes>;
    constexpr int lanes = VectorOf<A, bytes>::lanes;
    const int64_t bins = call.logits.length, padded = round_up(bins, lanes);
    Scratch<A> scratch(4, padded);
    A* logits_buffer = scratch.take(padded);
    A* exp_buffer = scratch.take(padded);
    A* gradient_buffer = scratch.take(padded);
    A* target_values = scratch.take(padded);

    for (int64_t i = begin; i < end; ++i) {
      A target_buffer;
      const A target = *call.target.read(i, &target_buffer);
      const A label = std::nearbyint(target);  // half to even
      A* gradient = wants_gradient ? call.gradient.template target<lanes>(i, gradient_buffer) : nullptr;
      if (!(label >= 0 && label < static_cast<A>(bins))) {
        // outside there is no loss; what is not a number has no meaningful one
        const A nothing = target == target ? A(0) : target;
        call.loss[i] = nothing;
        if (wants_gradient) {
          std::fill(gradient, gradient + bins, nothing);
          call.gradient.write(i, gradient);
        }
        continue;
      }
      Row<A> row{call.logits.template read<lanes>(i, logits_buffer), bins, 0, 0};
      row.max = row_max<bytes>(row.logits, padded);
      const A sum = row_exp<bytes, wants_gradient>(row.logits, padded, row.max, A(1), exp_buffer);
      row.log_sum = cdkd::log_positive(sum);
      A mass = 1;
      Gaussian<A> g{};
      if (call.sigma > 0) {
        g = gaussian<lanes>(call, bins, target);
        call.loss[i] = gaussian_loss<bytes>(g, row, target_values, &mass);
      } else {
        call.loss[i] = hard_loss(call, row, static_cast<int64_t>(label));
      }
      if (wants_gradient) {
        const A norm = mass / sum;
        for (int64_t j = 0; j < padded; j += lanes) {
          V e;
          load(e, exp_buffer + j);
          store(gradient + j, V(e * norm));
        }
        for (int64_t j = g.first; j < g.last; j += lanes) {
          V slope, t;
          load(slope, gradient + j);
          load(t, target_values + j);
          store(gradient + j, V(slope - t));
        }
        if (call.sigma == 0) subtract_hard(call, bins, static_cast<int64_t>(label), gradient);
        call.gradient.write(i, gradient);
      }
    }
  }
};

template <class A>
void simcc_kl_rows(const SimccKl<A>& call, int64_t begin, int64_t end) {
  if (call.gradient.data) {
    run<SimccKlRows<true>>(call, begin, end);
  } else {
    run<SimccKlRows<false>>(call, begin, end);
  }
}

namespace {

struct SimccKlResult {
  Tensor loss;
  Tensor gradient;
};

SimccKlResult run_simcc_kl(const Tensor& logits_tensor, const Tensor& target_tensor, double label_smoothing,
                           const std::optional<double>& sigma, bool wants_gradient) {
  const Format format = check_floating("logits", logits_tensor);
  const Format target_format = check_floating("target", target_tensor);
  check_shape(logits_tensor.dim() > 0 && last_size(logits_tensor) > 0, "logits", "(..., bins)",
              logits_tensor);
  bool same_rows = target_tensor.dim() == logits_tensor.dim() - 1;
  for (int64_t i = 0; same_rows && i < target_tensor.dim(); ++i)
    same_rows = target_tensor.size(i) == logits_tensor.size(i);
  check_shape(same_rows, "target", "of the rows of logits " + shape_text(logits_tensor), target_tensor);
  check(label_smoothing >= 0 && label_smoothing < 1, "label_smoothing", "a number in [0, 1)",
        label_smoothing);
  if (sigma) {
    check(*sigma > 0 && std::isfinite(*sigma), "sigma", "a positive finite number of bins", *sigma);
    check(label_smoothing == 0, "label_smoothing", "0 with a Gaussian target", label_smoothing);
  }

  const Tensor logits = packed(logits_tensor);
  const Tensor target = packed(target_tensor);
  const bool wide = format == Format::kFloat64;
  const int64_t no_rows[] = {0};
  SimccKlResult result{
      allocate(logits, leading(logits), accumulator_type(wide)),
      allocate(logits, wants_gradient ? logits.sizes() : Sizes(no_rows, 1), logits.scalar_type()),
  };
  with_accumulator(wide, [&](auto zero) {
    using A = decltype(zero);
    SimccKl<A> call{};
    call.logits = rows_of(logits, format);
    call.target = {target.const_data_ptr(), target_format, 1};
    call.smoothing =
        call.logits.length > 1 ? static_cast<A>(label_smoothing) : A(0);  // a single bin has no others
    call.sigma = static_cast<A>(sigma.value_or(0));
    call.loss = static_cast<A*>(result.loss.mutable_data_ptr());
    if (wants_gradient) call.gradient = mutable_rows_of(result.gradient, format);
    const int64_t bins = call.logits.length;
    for_rows(logits.numel() / bins, bins,
             [&](int64_t begin, int64_t end) { simcc_kl_rows(call, begin, end); });
  });
  return result;
}

Tensor simcc_kl(const Tensor& logits, const Tensor& target, double label_smoothing,
                const std::optional<double>& sigma) {
  return run_simcc_kl(logits, target, label_smoothing, sigma, false).loss;
}

std::tuple<Tensor, Tensor> simcc_kl_gradients(const Tensor& logits, const Tensor& target,
                                              double label_smoothing, const std::optional<double>& sigma) {
  const SimccKlResult result = run_simcc_kl(logits, target, label_smoothing, sigma, true);
  return {result.loss, result.gradient};
}

Tensor simcc_kl_backward(const Tensor& gradient, const Tensor& logits_gradient) {
  return scale_rows(logits_gradient, gradient);
}

}  // namespace
}  // namespace cdkd::cpu

STABLE_TORCH_LIBRARY_IMPL(cdkd, CPU, m) {
  m.impl("simcc_kl", TORCH_BOX(&cdkd::cpu::simcc_kl));
  m.impl("simcc_kl_gradients", TORCH_BOX(&cdkd::cpu::simcc_kl_gradients));
  m.impl("simcc_kl_backward", TORCH_BOX(&cdkd::cpu::simcc_kl_backward));
}
