// From SimCC logits to keypoints: softmax, flip test, peak, score and affine map. One warp per joint.
#include "common/exponential.h"
#include "cuda/launch.h"
#include "cuda/logits.h"
#include "kernels.h"

namespace cdkd::cuda {

// The largest value and the lowest bin that has it.
template <class A>
struct Peak {
  A value;
  int bin;

  CDKD_DEVICE void see(A other, int other_bin) {
    const bool better = other > value || (other == value && other_bin < bin);
    value = better ? other : value;
    bin = better ? other_bin : bin;
  }

  CDKD_DEVICE void reduce() {
    CDKD_UNROLL
    for (int distance = kWarp / 2; distance > 0; distance /= 2) {
      const A other = __shfl_xor_sync(kAllLanes, value, distance);
      const int other_bin = __shfl_xor_sync(kAllLanes, bin, distance);
      see(other, other_bin);
    }
  }
};

template <class A>
CDKD_DEVICE Peak<A> no_peak() {
  return {-std::numeric_limits<A>::infinity(), std::numeric_limits<int>::max()};
}

// exp(x - max) with the sums that a maximum found later rescales; equal infinities count as equal here.
template <class A>
CDKD_DEVICE A rescale(A x, A max) {
  return x == max ? A(1) : exp_nonpositive(x - max);
}

// Probability and bin of the peak of one softmax, in one pass.
template <class A>
CDKD_DEVICE Peak<A> softmax_peak(const Rows& rows, int64_t row, Group lanes) {
  Peak<A> peak = no_peak<A>();
  A sum = 0;
  read_row<A>(rows, row, lanes, [&](int i, A x) {
    const A below = x > peak.value ? peak.value : x;
    const A above = x > peak.value ? x : peak.value;
    const A factor = rescale(below, above);
    sum = x > peak.value ? sum * factor + 1 : sum + factor;
    peak.see(x, i);
  });
  const A own = peak.value;
  peak.reduce();
  A sums[] = {sum * rescale(own, peak.value)};
  reduce_warp(sums, Add());
  // a maximum that is infinite has no softmax; a NaN is in the sum
  const A nothing = peak.value - peak.value;
  return {1 / (sums[0] + nothing), peak.bin};
}

template <class A>
struct SoftmaxOf {
  A max;
  A norm;
};

template <class A, bool staged>
CDKD_DEVICE SoftmaxOf<A> softmax_of(const Logits<A, staged>& logits, Group lanes) {
  A max[] = {logits.stage(lanes)};
  reduce_warp(max, Larger());
  __syncwarp();
  A sum[] = {0};
  for (int i = lanes.thread; i < logits.rows.length; i += lanes.size)
    sum[0] += exp_nonpositive(logits[i] - max[0]);
  reduce_warp(sum, Add());
  return {max[0], A(0.5) / sum[0]};
}

// Peak of the mean of two softmaxes: bin i of the first meets bin sum - i of the second if that is reversed,
// else bin i. A bin that meets none keeps half of its own probability.
template <bool reversed, class A, bool staged>
CDKD_DEVICE Peak<A> mean_peak(const Logits<A, staged>& own, const Logits<A, staged>& mirrored, int64_t sum,
                              Group lanes) {
  const SoftmaxOf<A> p = softmax_of(own, lanes);
  const SoftmaxOf<A> q = softmax_of(mirrored, lanes);
  const int bins = own.rows.length;
  Peak<A> peak = no_peak<A>();
  for (int i = lanes.thread; i < bins; i += lanes.size) {
    A mean = exp_nonpositive(own[i] - p.max) * p.norm;
    const int64_t source = reversed ? sum - i : i;
    if (source >= 0 && source < bins)
      mean += exp_nonpositive(mirrored[static_cast<int>(source)] - q.max) * q.norm;
    peak.see(mean, i);
  }
  peak.reduce();
  // a NaN row has a NaN norm; the maximum may have skipped it
  const A unknown = p.norm + q.norm;
  return {unknown == unknown ? peak.value : unknown, peak.bin};
}

// Lanes of a joint agree on its peaks; one of them writes.
template <class A>
CDKD_DEVICE void write_joint(const SimccDecode& call, int64_t joint, const Peak<A>& x, const Peak<A>& y) {
  // a NaN in either axis makes the whole joint unknown
  const A unknown = x.value + y.value;
  const bool known = unknown == unknown;
  const A low = x.value < y.value ? x.value : y.value;
  const A high = x.value < y.value ? y.value : x.value;
  const A score = call.score == Score::kMin ? low : call.score == Score::kMax ? high : (low + high) / 2;
  const A split_ratio = static_cast<A>(call.split_ratio);
  A crop_x = static_cast<A>(x.bin) / split_ratio;
  A crop_y = static_cast<A>(y.bin) / split_ratio;
  if (call.to_image.data) {
    const int64_t sample = joint / call.joints;
    A affine[6];
    CDKD_UNROLL
    for (int i = 0; i < 6; ++i) affine[i] = read_any<A>(call.to_image, sample, i);
    const A image_x = affine[0] * crop_x + affine[1] * crop_y + affine[2];
    crop_y = affine[3] * crop_x + affine[4] * crop_y + affine[5];
    crop_x = image_x;
  }
  A* const keypoint = static_cast<A*>(call.keypoints) + 2 * joint;
  store(keypoint, known ? crop_x : unknown);
  store(keypoint + 1, known ? crop_y : unknown);
  store(static_cast<A*>(call.scores) + joint, known ? score : unknown);
}

template <class A>
__global__ void __launch_bounds__(128, blocks_per_multiprocessor<A>(128))
    simcc_decode_kernel(const SimccDecode call) {
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  const Group lanes{static_cast<int>(threadIdx.x) % kWarp, kWarp};
  const int64_t first = int64_t{blockIdx.x} * warps + threadIdx.x / kWarp;
  for (int64_t joint = first; joint < call.batch * call.joints; joint += int64_t{gridDim.x} * warps) {
    const Peak<A> x = softmax_peak<A>(call.x.logits, joint, lanes);
    const Peak<A> y = softmax_peak<A>(call.y.logits, joint, lanes);
    if (lanes.thread == 0) write_joint(call, joint, x, y);
  }
}

// With the mirrored image. `room`: elements of shared memory that hold a row, if staged.
template <class A, bool staged>
__global__ void __launch_bounds__(128, blocks_per_multiprocessor<A>(128))
    simcc_decode_flipped_kernel(const SimccDecode call, int room) {
  CDKD_DYNAMIC_SHARED(memory);
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  A* const own = reinterpret_cast<A*>(memory) + 2 * room * warp;
  A* const other = own + room;
  const Group lanes{static_cast<int>(threadIdx.x) % kWarp, kWarp};
  const int64_t first = int64_t{blockIdx.x} * warps + warp;
  for (int64_t joint = first; joint < call.batch * call.joints; joint += int64_t{gridDim.x} * warps) {
    const int64_t sample = joint / call.joints;
    const int64_t counterpart = load_uniform(call.permutation + joint % call.joints);
    if (counterpart < 0 || counterpart >= call.joints) {
      const A nothing = std::numeric_limits<A>::quiet_NaN();
      if (lanes.thread == 0) write_joint(call, joint, Peak<A>{nothing, 0}, Peak<A>{nothing, 0});
      continue;  // the whole warp
    }
    const int64_t mirror = sample * call.joints + counterpart;
    const Peak<A> x =
        mean_peak<true>(Logits<A, staged>{call.x.logits, joint, own},
                        Logits<A, staged>{call.x.mirrored, mirror, other}, call.mirror_sum, lanes);
    __syncwarp();  // y takes the memory of x
    const Peak<A> y = mean_peak<false>(Logits<A, staged>{call.y.logits, joint, own},
                                       Logits<A, staged>{call.y.mirrored, mirror, other}, 0, lanes);
    __syncwarp();  // the next joint takes the memory
    if (lanes.thread == 0) write_joint(call, joint, x, y);
  }
}

namespace {

template <class A>
cudaError_t launch_in(const SimccDecode& call, cudaStream_t stream) {
  const int64_t joints = call.batch * call.joints;
  if (!call.permutation) {
    const auto kernel = &simcc_decode_kernel<A>;
    CDKD_LAUNCH("simcc_decode", kernel, dim3(grid_for(joints, 4)), dim3(4 * kWarp), 0, stream, call);
    return cudaSuccess;
  }
  const int64_t room =
      call.x.logits.length > call.y.logits.length ? call.x.logits.length : call.y.logits.length;
  const int64_t bytes = 2 * room * static_cast<int64_t>(sizeof(A));  // of a warp
  const bool staged = bytes <= kSharedLimit;
  int warps = 4;
  while (staged && warps * bytes > kSharedLimit) warps /= 2;
  const auto kernel = staged ? &simcc_decode_flipped_kernel<A, true> : &simcc_decode_flipped_kernel<A, false>;
  CDKD_LAUNCH("simcc_decode", kernel, dim3(grid_for(joints, warps)), dim3(warps * kWarp),
              static_cast<size_t>(staged ? warps * bytes : 0), stream, call,
              static_cast<int>(staged ? room : 0));
  return cudaSuccess;
}

}  // namespace

cudaError_t launch_simcc_decode(const SimccDecode& call, cudaStream_t stream) {
  if (call.batch * call.joints == 0) return cudaSuccess;
  return call.wide ? launch_in<double>(call, stream) : launch_in<float>(call, stream);
}

}  // namespace cdkd::cuda
