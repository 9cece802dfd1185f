// The forward pass of projector_cosine on CUDA: project, weigh and sum in one launch, cosines in another.
#include "cuda/reduce.h"
#include "kernel_problem.h"

namespace cdkd::cuda {
namespace projector {
namespace {

constexpr int kStages = 3;

template <class In>
struct ProjectShared {
  static constexpr int kStride = padded(kDepth<In>, sizeof(In));
  static constexpr int kTeacherStride = padded(kTile, sizeof(In));
  static constexpr int kOutputStride = padded(kTile, sizeof(Accumulate<In>));
  static constexpr int kActiveStride = padded(kTile, 1);
  union {
    struct {
      In feature[kStages][kTile * kStride];
      In weight[kStages][kTile * kStride];
    } stages;
    In teacher[kTile * kTeacherStride];  // when all is multiplied
    Accumulate<In> output[kTile * kOutputStride];
  };
  alignas(16) uint8_t active[kTile * kActiveStride];
  int64_t selected[kTile];
  Accumulate<In> sums[3][2][kTile];
};

// Blocks of one multiprocessor that registers shall suffice for.
template <class In>
constexpr int kResident = sizeof(In) == 8 ? 2 : 3;

// The sums over each row of the tile of output · teacher, output² and teacher².
template <class In, bool tensor>
CDKD_DEVICE void sum_rows(const Typed<In, tensor>& p, ProjectShared<In>& shared,
                          const Accumulate<In> (&output)[Place<tensor>::kRows][Place<tensor>::kColumns],
                          int64_t first, int64_t target, Accumulate<In>* partial) {
  using T = Accumulate<In>;
  using P = Place<tensor>;
  __syncthreads();
  load_tile<kTile, kTile, ProjectShared<In>::kTeacherStride>(
      shared.teacher, p.teacher + first * p.targets + target, p.targets, p.rows - first, p.targets - target,
      p.target_vectors);
  commit_copies();
  wait_copies<0>();
  __syncthreads();
  CDKD_UNROLL
  for (int i = 0; i < P::kRows; ++i) {
    T products[3] = {};
    CDKD_UNROLL
    for (int j = 0; j < P::kColumns; ++j) {
      const T teacher = widen(shared.teacher[P::row(i) * ProjectShared<In>::kTeacherStride + P::column(j)]);
      products[0] += output[i][j] * teacher;
      products[1] += output[i][j] * output[i][j];
      products[2] += teacher * teacher;
    }
    CDKD_UNROLL
    for (int n = 0; n < 3; ++n) {
      products[n] = sum_over_lanes<P::kLanes>(products[n]);
      if (threadIdx.x % P::kLanes == 0) shared.sums[n][P::part()][P::row(i)] = products[n];
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < 3 * kTile; i += kThreads) {
    const int n = i / kTile, r = i % kTile;
    if (first + r >= p.rows) continue;
    T sum = shared.sums[n][0][r];
    if constexpr (P::kParts == 2) sum += shared.sums[n][1][r];
    store(partial + (target / kTile * 3 + n) * p.rows + first + r, sum);
  }
}

// Blocks: tiles of rows, then tiles of targets. partial: (tiles of targets, 3, rows) or null.
template <class In, bool tensor>
__global__ void __launch_bounds__(kThreads, kResident<In>)
    projector_cosine_project_kernel(Typed<In, tensor> p, Accumulate<In>* partial) {
  if constexpr (kCompiled<In, tensor>) {
    using T = Accumulate<In>;
    using P = Place<tensor>;
    using Shared = ProjectShared<In>;
    constexpr int depth = kDepth<In>;
    CDKD_DYNAMIC_SHARED(memory);
    Shared& shared = *reinterpret_cast<Shared*>(memory);
    const int64_t tiles = divide_up(p.rows, kTile);
    const int64_t first = blockIdx.x % tiles * kTile, target = blockIdx.x / tiles * kTile;
    const In* const feature = p.feature + first * p.positions;
    const In* const weight = p.weight + target * p.positions;
    for (int i = static_cast<int>(threadIdx.x); i < kTile; i += kThreads)
      shared.selected[i] = first + i < p.rows ? p.selected(first + i) : -1;

    // the depth of all projectors, one after the other
    const int chunks = static_cast<int>(divide_up(p.positions, depth));
    int64_t ahead_projector = 0;
    int ahead_chunk = 0;
    const auto load_ahead = [&](int stage) {
      if (ahead_projector < p.projectors) {
        const int64_t at = static_cast<int64_t>(ahead_chunk) * depth;
        load_tile<kTile, depth, Shared::kStride>(shared.stages.feature[stage], feature + at, p.positions,
                                                 p.rows - first, p.positions - at, p.position_vectors);
        load_tile<kTile, depth, Shared::kStride>(
            shared.stages.weight[stage], weight + ahead_projector * p.targets * p.positions + at, p.positions,
            p.targets - target, p.positions - at, p.position_vectors);
        if (++ahead_chunk == chunks) ahead_chunk = 0, ++ahead_projector;
      }
      commit_copies();  // empty groups too: the count of groups tells what has arrived
    };
    for (int stage = 0; stage < kStages - 1; ++stage) load_ahead(stage);

    T output[P::kRows][P::kColumns] = {};
    uint32_t bits[P::kRows * P::kColumns / 4] = {};  // a byte for each element
    int stage = 0;
    for (int64_t k = 0; k < p.projectors; ++k) {
      T sums[P::kRows][P::kColumns] = {};
      for (int chunk = 0; chunk < chunks; ++chunk) {
        wait_copies<kStages - 2>();
        __syncthreads();
        load_ahead(stage == 0 ? kStages - 1 : stage - 1);  // the one that was multiplied before the barrier
        multiply<tensor, false, false, depth>(shared.stages.feature[stage], shared.stages.weight[stage],
                                              sums);
        stage = stage == kStages - 1 ? 0 : stage + 1;
      }
      T bias[P::kColumns];
      CDKD_UNROLL
      for (int j = 0; j < P::kColumns; ++j) {
        const int64_t t = target + P::column(j);
        bias[j] = t < p.targets ? load(p.bias + k * p.targets + t) : T(0);
      }
      CDKD_UNROLL
      for (int i = 0; i < P::kRows; ++i) {
        const int64_t selected = shared.selected[P::row(i)];
        const T weigh = selected < 0 ? T(0) : load(p.select + selected + k * p.channels);
        CDKD_UNROLL
        for (int j = 0; j < P::kColumns; ++j) {
          const int e = i * P::kColumns + j;
          T value = sums[i][j] + bias[j];
          if (p.relu && value <= T(0))
            value = T(0);  // a NaN stays
          else
            bits[e / 4] |= 1u << (e % 4 * 8 + k % 8);
          output[i][j] += weigh * value;
        }
      }
      if (p.active != nullptr && (k % 8 == 7 || k == p.projectors - 1)) {
        CDKD_UNROLL
        for (int i = 0; i < P::kRows; ++i) CDKD_UNROLL
        for (int j = 0; j < P::kColumns; ++j) {
          const int e = i * P::kColumns + j;
          shared.active[P::row(i) * Shared::kActiveStride + P::column(j)] =
              static_cast<uint8_t>(bits[e / 4] >> e % 4 * 8);
        }
        CDKD_UNROLL
        for (uint32_t& four : bits) four = 0;
        __syncthreads();
        store_tile<kTile, kTile, Shared::kActiveStride, false>(
            p.active + (k / 8 * p.rows + first) * p.targets + target, shared.active, p.targets,
            p.rows - first, p.targets - target, p.target_vectors);
      }
    }
    wait_copies<0>();

    if (partial != nullptr) sum_rows(p, shared, output, first, target, partial);
    if (p.projected == nullptr) return;
    __syncthreads();
    CDKD_UNROLL
    for (int i = 0; i < P::kRows; ++i) CDKD_UNROLL
    for (int j = 0; j < P::kColumns; ++j)
      shared.output[P::row(i) * Shared::kOutputStride + P::column(j)] = output[i][j];
    __syncthreads();
    store_tile<kTile, kTile, Shared::kOutputStride, false>(p.projected + first * p.targets + target,
                                                           shared.output, p.targets, p.rows - first,
                                                           p.targets - target, p.target_vectors);
  } else {
    not_compiled();
  }
}

// Blocks: samples.
template <class T>
__global__ void __launch_bounds__(kThreads)
    projector_cosine_cosine_kernel(const T* partial, int64_t tiles, int64_t rows, int64_t channels,
                                   double eps, T* products, T* cosine) {
  __shared__ double scratch[3 * kThreads / kWarp];
  const int64_t sample = blockIdx.x;
  double sums[3] = {};
  for (int64_t i = threadIdx.x; i < tiles * channels; i += kThreads) CDKD_UNROLL
  for (int n = 0; n < 3; ++n)
    sums[n] +=
        static_cast<double>(load(partial + (i / channels * 3 + n) * rows + sample * channels + i % channels));
  reduce_block(sums, scratch, Add{});
  if (threadIdx.x != 0) return;
  CDKD_UNROLL
  for (int n = 0; n < 3; ++n) store(products + sample * 3 + n, static_cast<T>(sums[n]));
  // written so that a NaN is not taken for a small norm
  const double output_norm = sqrt(sums[1]) < eps ? eps : sqrt(sums[1]);
  const double teacher_norm = sqrt(sums[2]) < eps ? eps : sqrt(sums[2]);
  store(cosine + sample, static_cast<T>(sums[0] / (output_norm * teacher_norm)));
}

template <class In, bool tensor>
cudaError_t launch_project(const Typed<In, tensor>& p, void* partial, cudaStream_t stream) {
  static_assert(sizeof(ProjectShared<In>) <= kSharedLimit, "what every device gives without asking");
  const int64_t blocks = divide_up(p.rows, kTile) * divide_up(p.targets, kTile);
  CDKD_LAUNCH("projector_cosine_project", (&projector_cosine_project_kernel<In, tensor>),
              dim3(static_cast<unsigned>(blocks)), dim3(kThreads), sizeof(ProjectShared<In>), stream, p,
              static_cast<Accumulate<In>*>(partial));
  return cudaSuccess;
}

template <class T>
cudaError_t launch_sum_products(const ProjectorCosine& call, cudaStream_t stream) {
  CDKD_LAUNCH("projector_cosine_cosine", (&projector_cosine_cosine_kernel<T>),
              dim3(static_cast<unsigned>(call.samples)), dim3(kThreads), 0, stream,
              static_cast<const T*>(call.workspace), divide_up(call.targets, kTile),
              call.samples * call.channels, call.channels, call.eps, static_cast<T*>(call.products),
              static_cast<T*>(call.cosine));
  return cudaSuccess;
}

}  // namespace

cudaError_t project(const Slab& slab, void* partial, cudaStream_t stream) {
  return with_types(slab, [&](const auto& typed) { return launch_project(typed, partial, stream); });
}

}  // namespace projector

int64_t projector_cosine_workspace(const ProjectorCosine& call) {
  const int64_t size = call.wide() ? 8 : 4;
  return projector::divide_up(call.targets, projector::kTile) * 3 * call.samples * call.channels * size;
}

cudaError_t launch_projector_cosine(const ProjectorCosine& call, cudaStream_t stream) {
  if (call.samples == 0) return cudaSuccess;
  const projector::Slab whole{call, 0, call.samples, call.projected, call.active};
  if (const cudaError_t error = projector::project(whole, call.workspace, stream); error != cudaSuccess)
    return error;
  return call.wide() ? projector::launch_sum_products<double>(call, stream)
                     : projector::launch_sum_products<float>(call, stream);
}

}  // namespace cdkd::cuda
