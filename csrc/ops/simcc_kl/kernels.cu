// SimCC's own loss per row, Σ t · (log t - log p), with its derivative; the targets t are never stored. One
// block per row.
#include "common/exponential.h"
#include "cuda/launch.h"
#include "cuda/logits.h"
#include "kernels.h"

namespace cdkd::cuda {

// x · log(x), 0 at 0.
template <class A>
CDKD_DEVICE A entropy_term(A x) {
  return x > 0 ? x * log_positive(x) : A(0);
}

// One row's target, by bin.
template <class A>
struct Target {
  int label;
  A peak;    // of a hard label
  A spread;  // of the other bins
  A center;
  A scale;    // of a Gaussian, 1 / (σ √2); 0 for hard labels
  A density;  // 1 / (σ √2π)
  A log_density;

  CDKD_DEVICE A exponent(int i) const {
    const A distance = (static_cast<A>(i) - center) * scale;
    return -(distance * distance);
  }

  CDKD_DEVICE A operator[](int i) const {
    return scale > 0 ? density * exp_nonpositive(exponent(i)) : i == label ? peak : spread;
  }
};

template <class A>
CDKD_DEVICE Target<A> make_target(const SimccKl& call, A center, A label) {
  const A others = static_cast<A>(call.logits.length - 1);
  const A smoothing = static_cast<A>(call.smoothing);
  const A sigma = static_cast<A>(call.sigma);
  const bool hard = !(sigma > 0);
  Target<A> target{};
  target.label = static_cast<int>(label);
  target.peak = 1 - smoothing;
  target.spread = smoothing > 0 ? smoothing / others : A(0);
  target.center = center;
  target.scale = hard ? A(0) : static_cast<A>(0.7071067811865476) / sigma;
  target.density = hard ? A(0) : static_cast<A>(0.3989422804014327) / sigma;
  target.log_density = hard ? A(0) : log_positive(target.density);
  return target;
}

// Sums over a row: of exponentials, of the target, of t · (log t + max - x).
template <class A, bool staged>
CDKD_DEVICE void sum_row(const Logits<A, staged>& logits, const Target<A>& target, A max, Group block,
                         A (&sums)[3]) {
  for (int i = block.thread; i < logits.rows.length; i += block.size) {
    const A shifted = logits[i] - max;
    sums[0] += exp_nonpositive(shifted);
    const A t = target[i];
    sums[1] += t;
    if (t == 0) continue;
    sums[2] += target.scale > 0 ? t * (target.exponent(i) + target.log_density - shifted)
                                : entropy_term(t) - t * shifted;
  }
}

template <class A, bool wants_gradient, bool staged>
__global__ void __launch_bounds__(256, blocks_per_multiprocessor<A>(256))
    simcc_kl_kernel(const SimccKl call) {
  CDKD_DYNAMIC_SHARED(memory);
  A* const scratch = reinterpret_cast<A*>(memory);
  A* const copy = scratch + 4 * kWarp;  // (N,) if staged
  const Group block{static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x)};

  for (int64_t row = blockIdx.x; row < call.rows; row += gridDim.x) {
    const A center = read_scalar<A>(call.target, row);
    const A label = rint(center);  // half to even
    if (!(label >= 0 && label < static_cast<A>(call.logits.length))) {
      // outside there is no loss; what is not a number has no meaningful one
      const A nothing = center == center ? A(0) : center;
      if (wants_gradient) write_row<A>(call.gradient, row, block, [&](int) { return nothing; });
      if (block.thread == 0) store(static_cast<A*>(call.loss) + row, nothing);
      continue;  // the whole block
    }
    const Logits<A, staged> logits{call.logits, row, copy};
    const Target<A> target = make_target(call, center, label);
    A max[] = {logits.stage(block)};
    reduce_block(max, scratch, Larger());
    A sums[] = {0, 0, 0};
    sum_row(logits, target, max[0], block, sums);
    reduce_block(sums, scratch + kWarp, Add());
    if (block.thread == 0) store(static_cast<A*>(call.loss) + row, sums[2] + sums[1] * log_positive(sums[0]));
    if (wants_gradient) {
      const A norm = sums[1] / sums[0];
      write_row<A>(call.gradient, row, block,
                   [&](int i) { return exp_nonpositive(logits[i] - max[0]) * norm - target[i]; });
    }
    __syncthreads();  // the next row takes the memory
  }
}

namespace {

template <class A, bool wants_gradient>
cudaError_t launch_as(const SimccKl& call, cudaStream_t stream) {
  const auto bytes = [&](bool staged) {
    return (4 * kWarp + (staged ? int64_t{call.logits.length} : 0)) * static_cast<int64_t>(sizeof(A));
  };
  const bool staged = bytes(true) <= kSharedLimit;
  const auto kernel =
      staged ? &simcc_kl_kernel<A, wants_gradient, true> : &simcc_kl_kernel<A, wants_gradient, false>;
  CDKD_LAUNCH("simcc_kl", kernel, dim3(grid_for(call.rows)), dim3(threads_for(call.logits.length)),
              static_cast<size_t>(bytes(staged)), stream, call);
  return cudaSuccess;
}

template <class A>
cudaError_t launch_in(const SimccKl& call, cudaStream_t stream) {
  return call.gradient.data ? launch_as<A, true>(call, stream) : launch_as<A, false>(call, stream);
}

}  // namespace

cudaError_t launch_simcc_kl(const SimccKl& call, cudaStream_t stream) {
  if (call.rows == 0) return cudaSuccess;
  return call.wide ? launch_in<double>(call, stream) : launch_in<float>(call, stream);
}

}  // namespace cdkd::cuda
