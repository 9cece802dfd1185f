// SimCC's own loss per row, Σ t · (log t - log p), with its derivative; the targets t are never stored.
#include <torch/csrc/stable/library.h>

#include <cmath>

#include "arguments.h"
#include "cpu/device.h"
#include "cpu/isa.h"
#include "cpu/parallel.h"
#include "cpu/row_passes.h"
#include "cpu/rows.h"

namespace cdkd::cpu {
namespace {

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
CDKD_INLINE A hard_loss(A smoothing, const Row<A>& row, int64_t label) {
  const A label_term = row.log_sum - (row.logits[label] - row.max);  // -log p of the label
  if (smoothing == 0) return label_term;
  const A others = static_cast<A>(row.bins - 1);
  const A spread = smoothing / others;
  A sum = 0;
  const int64_t before_and_behind[2][2] = {{0, label}, {label + 1, row.bins}};
  for (const auto& [begin, end] : before_and_behind) {
#pragma omp simd reduction(+ : sum)
    for (int64_t i = begin; i < end; ++i) sum += row.log_sum - (row.logits[i] - row.max);
  }
  return entropy_term(1 - smoothing) + others * entropy_term(spread) + (1 - smoothing) * label_term +
         spread * sum;
}

// Subtract the target from the probabilities.
template <class A>
CDKD_INLINE void subtract_hard(A smoothing, int64_t bins, int64_t label, A* gradient) {
  if (smoothing > 0) {
    const A spread = smoothing / static_cast<A>(bins - 1);
#pragma omp simd
    for (int64_t i = 0; i < bins; ++i) gradient[i] -= spread;
    gradient[label] += spread;
  }
  gradient[label] -= 1 - smoothing;
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
CDKD_INLINE Gaussian<A> gaussian(A sigma, int64_t bins, A center) {
  // as floats, exponentials are zero below -87; as doubles, below -745
  const A reach = sigma * (sizeof(A) == 8 ? A(38.7) : A(13.3)) + 1;
  const A density = static_cast<A>(0.3989422804014327) / sigma;
  const int64_t first = static_cast<int64_t>(std::max(A(0), center - reach));
  const int64_t last = static_cast<int64_t>(std::min(static_cast<A>(bins), center + reach + 1));
  return {first / lanes * lanes,
          round_up(last, lanes),
          center,
          static_cast<A>(0.7071067811865476) / sigma,
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

template <class A, bool wants_gradient>
struct SimccKlRows {
  template <int bytes>
  CDKD_INLINE static void run(const SimccKl& call, int64_t begin, int64_t end) {
    using V = Vector<A, bytes>;
    constexpr int lanes = VectorOf<A, bytes>::lanes;
    const int64_t bins = call.logits.length, padded = round_up(bins, lanes);
    Scratch<A> scratch(4, padded);
    A* logits_buffer = scratch.take(padded);
    A* exp_buffer = scratch.take(padded);
    A* gradient_buffer = scratch.take(padded);
    A* target_values = scratch.take(padded);
    A* loss = static_cast<A*>(call.loss);
    const A smoothing = static_cast<A>(call.smoothing), sigma = static_cast<A>(call.sigma);

    for (int64_t i = begin; i < end; ++i) {
      const A target = read_scalar<A>(call.target, i);
      const A label = std::nearbyint(target);  // half to even
      A* gradient = wants_gradient ? target_row<lanes>(call.gradient, i, gradient_buffer) : nullptr;
      if (!(label >= 0 && label < static_cast<A>(bins))) {
        // outside there is no loss; what is not a number has no meaningful one
        const A nothing = target == target ? A(0) : target;
        loss[i] = nothing;
        if (wants_gradient) {
          std::fill(gradient, gradient + bins, nothing);
          write_row(call.gradient, i, gradient);
        }
        continue;
      }
      Row<A> row{read_row<lanes>(call.logits, i, logits_buffer), bins, 0, 0};
      row.max = row_max<bytes>(row.logits, padded);
      const A sum = row_exp<bytes, wants_gradient>(row.logits, padded, row.max, A(1), exp_buffer);
      row.log_sum = cdkd::log_positive(sum);
      A mass = 1;
      Gaussian<A> g{};
      if (sigma > 0) {
        g = gaussian<lanes>(sigma, bins, target);
        loss[i] = gaussian_loss<bytes>(g, row, target_values, &mass);
      } else {
        loss[i] = hard_loss(smoothing, row, static_cast<int64_t>(label));
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
        if (sigma == 0) subtract_hard(smoothing, bins, static_cast<int64_t>(label), gradient);
        write_row(call.gradient, i, gradient);
      }
    }
  }
};

}  // namespace

void compute(const Device&, const SimccKl& call) {
  with_accumulator(call.wide, [&](auto zero) {
    using A = decltype(zero);
    for_rows(call.rows, call.logits.length, [&](int64_t begin, int64_t end) {
      if (call.gradient.data) {
        run<SimccKlRows<A, true>>(call, begin, end);
      } else {
        run<SimccKlRows<A, false>>(call, begin, end);
      }
    });
  });
}

}  // namespace cdkd::cpu

STABLE_TORCH_LIBRARY_IMPL(cdkd, CPU, m) {
  using Operators = cdkd::SimccKlOperators<cdkd::cpu::Device>;
  m.impl("simcc_kl", TORCH_BOX(&Operators::plain));
  m.impl("simcc_kl_gradients", TORCH_BOX(&Operators::gradients));
  m.impl("simcc_kl_backward", TORCH_BOX(&Operators::backward));
}
