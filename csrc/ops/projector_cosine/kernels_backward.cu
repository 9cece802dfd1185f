// The backward pass of projector_cosine on CUDA. With U_k the gradient of projector k's product times W_k,
// without the selection, the feature's gradient is Σ_k select_k · U_k and that of select_k is <U_k, feature>
// + <gradient, b_k>: one product gives both, and the projections are not needed again.
#include "cuda/reduce.h"
#include "kernel_problem.h"

namespace cdkd::cuda {
namespace projector {
namespace {

// Projectors that a block multiplies side by side: they share what is read of the teacher and the output.
template <class T>
constexpr int kGroup = sizeof(T) == 8 ? 1 : 3;

constexpr int64_t kEnoughBlocks = 256;  // then the targets are not divided further
constexpr int64_t kLeastTargets = 128;  // of a part

// Projectors first … first + count of a group; groups are of nearly equal size.
struct Group {
  int64_t first;
  int count;
  CDKD_DEVICE Group(int64_t group, int64_t groups, int64_t projectors)
      : first(group * projectors / groups),
        count(static_cast<int>((group + 1) * projectors / groups - first)) {}
};

constexpr int64_t kSlabs = 4;  // parts of the batch that are projected again one after the other

struct Sizes {
  int64_t rows, positions, targets, projectors;
};

// How the feature's gradient is divided into blocks.
struct Division {
  int64_t row_tiles, position_tiles, groups, splits;
  int64_t parts() const { return groups * splits; }
};

template <class T, class Any>
Division divide(const Any& p) {
  Division d{divide_up(p.rows, kTile), divide_up(p.positions, kTile), divide_up(p.projectors, kGroup<T>), 1};
  const int64_t blocks = d.row_tiles * d.position_tiles * d.groups;
  d.splits = std::max<int64_t>(1, std::min(divide_up(kEnoughBlocks, blocks), p.targets / kLeastTargets));
  return d;
}

// Per row, for the product gradient factor · select · (teacher_share · teacher - output_share · output): the
// bracket's numbers are near one whatever the features' scale, so that they fit 16 bits.
template <class T>
struct RowScales {
  T* teacher_share;  // (rows)
  T* output_share;   // (rows)
  T* weigh;          // (K, rows): factor · select
};

template <class T>
struct Incoming {
  const T* gradient;
  const T* products;
  double eps;
};

struct SampleScale {
  double factor, teacher_share, output_share;
};

template <class T>
CDKD_DEVICE SampleScale sample_scale(const Incoming<T>& in, int64_t sample, double size) {
  const double with_teacher = load(in.products + 3 * sample),
               with_output = load(in.products + 3 * sample + 1),
               of_teacher = load(in.products + 3 * sample + 2);
  const bool clamped = sqrt(with_output) < in.eps || with_output == 0;
  const double output_norm = sqrt(with_output) < in.eps ? in.eps : sqrt(with_output);
  const double teacher_norm = sqrt(of_teacher) < in.eps ? in.eps : sqrt(of_teacher);
  if (of_teacher == 0) return {0, 1, clamped ? 0 : with_teacher / with_output};  // the bracket is 0, or NaN
  const double typical = sqrt(of_teacher / size);
  return {load(in.gradient + sample) / (output_norm * teacher_norm) * typical, 1 / typical,
          clamped ? 0 : with_teacher / with_output / typical};
}

// Eight neighbouring elements, zeros beyond those that are left.
template <class T>
CDKD_DEVICE void load_eight(const T* from, bool vectors, int64_t left, T (&to)[8]) {
  if (vectors) {
    constexpr int size = Vector<T>::kSize;
    CDKD_UNROLL
    for (int v = 0; v < 8 / size; ++v) {
      const Vector<T> vector = load(reinterpret_cast<const Vector<T>*>(from) + v);
      CDKD_UNROLL
      for (int e = 0; e < size; ++e) to[v * size + e] = vector.at[e];
    }
  } else {
    CDKD_UNROLL
    for (int e = 0; e < 8; ++e) to[e] = e < left ? load(from + e) : T{};
  }
}

// Their bytes of a plane of the ReLU's bits, as two words.
CDKD_DEVICE uint2 load_bits(const uint8_t* from, bool vectors, int64_t left) {
  if (vectors) return load(reinterpret_cast<const uint2*>(from));
  uint2 bits = {0, 0};
  CDKD_UNROLL
  for (int e = 0; e < 8; ++e) {
    const unsigned byte = e < left ? load(from + e) : 0u;
    (e < 4 ? bits.x : bits.y) |= byte << e % 4 * 8;
  }
  return bits;
}

// Computed in registers, then multiplied.
template <class In, bool tensor>
using Operand = std::conditional_t<tensor, In, Accumulate<In>>;

// One thread's eight targets of a row: the bracket above.
template <class In, bool tensor, class T>
CDKD_DEVICE void bracket(const Typed<In, tensor>& p, int64_t row, int64_t target, T teacher_share,
                         T output_share, T (&to)[8]) {
  In teacher[8];
  const int64_t left = row < p.rows ? p.targets - target : 0, at = row * p.targets + target;
  if (left <= 0) {
    CDKD_UNROLL
    for (int e = 0; e < 8; ++e) to[e] = 0;
    return;
  }
  load_eight(p.teacher + at, p.target_vectors, left, teacher);
  load_eight(static_cast<const T*>(p.projected) + at, p.target_vectors, left, to);
  CDKD_UNROLL
  for (int e = 0; e < 8; ++e) to[e] = teacher_share * widen(teacher[e]) - output_share * to[e];
}

// Clear what the ReLU of projector k stops.
template <class In, bool tensor, class T>
CDKD_DEVICE void stop_inactive(const Typed<In, tensor>& p, int64_t k, int64_t row, int64_t target,
                               const T (&from)[8], T (&to)[8]) {
  uint2 bits = {~0u, ~0u};
  if (p.active != nullptr) {
    const bool exists = row < p.rows && target < p.targets;
    const uint8_t* const plane = p.active + k / 8 * p.rows * p.targets;
    bits = exists ? load_bits(plane + row * p.targets + target, p.target_vectors, p.targets - target)
                  : uint2{0, 0};
  }
  CDKD_UNROLL
  for (int e = 0; e < 8; ++e) to[e] = (e < 4 ? bits.x : bits.y) >> (e % 4 * 8 + k % 8) & 1u ? from[e] : T(0);
}

// Eight neighbouring operands to shared memory.
template <class Operand, class T>
CDKD_DEVICE void store_eight(Operand* to, const T (&from)[8]) {
  constexpr int size = Vector<Operand>::kSize;
  CDKD_UNROLL
  for (int v = 0; v < 8 / size; ++v) {
    Vector<Operand> vector;
    CDKD_UNROLL
    for (int e = 0; e < size; ++e) vector.at[e] = Narrow<Operand>::from(from[v * size + e]);
    reinterpret_cast<Vector<Operand>*>(to)[v] = vector;
  }
}

template <class In, bool tensor>
struct FeatureShared {
  using T = Accumulate<In>;
  static constexpr int kGradientStride = padded(kDepth<In>, sizeof(Operand<In, tensor>));
  static constexpr int kWeightStride = padded(kTile, sizeof(In));
  static constexpr int kResultStride = padded(kTile, sizeof(T));
  union {
    struct {
      alignas(16) Operand<In, tensor> gradient[kGroup<T>][kTile * kGradientStride];
      alignas(16) In weight[kGroup<T>][kDepth<In> * kWeightStride];
    } factors;
    In feature[kTile * kWeightStride];  // when all is multiplied
    T result[kTile * kResultStride];
  };
  T teacher_share[kTile];
  T output_share[kTile];
  T weigh[kGroup<T>][kTile];
  T sums[kGroup<T>][Place<tensor>::kParts][kTile];
  T bias[kGroup<T>][kTile];
};

// Blocks: tiles of rows, then of positions, then parts: splits of the targets, then groups of projectors.
// feature: (parts, rows, S) or null; select: (splits, tiles of positions, K, rows).
template <class In, bool tensor>
__global__ void __launch_bounds__(kThreads, 2)
    projector_cosine_feature_kernel(Typed<In, tensor> p, Incoming<Accumulate<In>> incoming, Division d,
                                    RowScales<Accumulate<In>> scales, Accumulate<In>* to_feature,
                                    Accumulate<In>* to_select) {
  if constexpr (kCompiled<In, tensor>) {
    using T = Accumulate<In>;
    using P = Place<tensor>;
    using Shared = FeatureShared<In, tensor>;
    constexpr int depth = kDepth<In>, group_size = kGroup<T>;
    constexpr int eights = depth / 8, slots = kTile * eights, rounds = (slots + kThreads - 1) / kThreads;
    CDKD_DYNAMIC_SHARED(memory);
    Shared& shared = *reinterpret_cast<Shared*>(memory);
    const int thread = static_cast<int>(threadIdx.x);
    const int64_t first = blockIdx.x % d.row_tiles * kTile;
    const int64_t tile = blockIdx.x / d.row_tiles % d.position_tiles, position = tile * kTile;
    const int64_t part = blockIdx.x / d.row_tiles / d.position_tiles, split = part % d.splits;
    const Group group(part / d.splits, d.groups, p.projectors);
    for (int i = thread; i < kTile; i += kThreads) {
      const int64_t row = first + i;
      SampleScale scale{0, 0, 0};
      if (row < p.rows)
        scale = sample_scale(incoming, p.sample(row),
                             static_cast<double>(p.channels) * static_cast<double>(p.targets));
      shared.teacher_share[i] = static_cast<T>(scale.teacher_share);
      shared.output_share[i] = static_cast<T>(scale.output_share);
      for (int g = 0; g < group.count; ++g) {
        const T factor = static_cast<T>(scale.factor);
        const T select =
            row < p.rows ? load(p.select + p.selected(row) + (group.first + g) * p.channels) : T(0);
        shared.weigh[g][i] = factor * select;
        shared.bias[g][i] = factor;
        if (tile == 0 && split == 0 && row < p.rows)
          store(scales.weigh + (group.first + g) * p.rows + row, factor * select);
      }
      if (tile == 0 && part == 0 && row < p.rows) {
        store(scales.teacher_share + row, static_cast<T>(scale.teacher_share));
        store(scales.output_share + row, static_cast<T>(scale.output_share));
      }
    }

    T sums[group_size][P::kRows][P::kColumns] = {};
    T with_bias[rounds][group_size] = {};
    const int64_t chunks = divide_up(p.targets, depth);
    for (int64_t chunk = split * chunks / d.splits; chunk < (split + 1) * chunks / d.splits; ++chunk) {
      const int64_t target = chunk * depth;
      __syncthreads();  // the tiles have been multiplied
      CDKD_UNROLL
      for (int g = 0; g < group_size; ++g)
        if (g < group.count)
          load_tile<depth, kTile, Shared::kWeightStride>(
              shared.factors.weight[g],
              p.weight + ((group.first + g) * p.targets + target) * p.positions + position, p.positions,
              p.targets - target, p.positions - position, p.position_vectors);
      commit_copies();
      CDKD_UNROLL
      for (int round = 0; round < rounds; ++round) {
        const int slot = thread + round * kThreads, r = slot / eights, c = slot % eights * 8;
        if (slot >= slots) break;
        T values[8], passed[8];
        bracket(p, first + r, target + c, shared.teacher_share[r], shared.output_share[r], values);
        CDKD_UNROLL
        for (int g = 0; g < group_size; ++g) {
          if (g >= group.count) break;
          stop_inactive(p, group.first + g, first + r, target + c, values, passed);
          store_eight(shared.factors.gradient[g] + r * Shared::kGradientStride + c, passed);
          if (tile != 0) continue;
          const T* const bias = p.bias + (group.first + g) * p.targets + target + c;
          CDKD_UNROLL
          for (int e = 0; e < 8; ++e)
            if (target + c + e < p.targets && passed[e] != T(0))
              with_bias[round][g] += passed[e] * load(bias + e);
        }
      }
      wait_copies<0>();
      __syncthreads();
      CDKD_UNROLL
      for (int g = 0; g < group_size; ++g)
        if (g < group.count)
          multiply<tensor, false, true, depth>(shared.factors.gradient[g], shared.factors.weight[g], sums[g]);
    }

    __syncthreads();
    load_tile<kTile, kTile, Shared::kWeightStride>(shared.feature, p.feature + first * p.positions + position,
                                                   p.positions, p.rows - first, p.positions - position,
                                                   p.position_vectors);
    commit_copies();
    wait_copies<0>();
    __syncthreads();
    CDKD_UNROLL
    for (int i = 0; i < P::kRows; ++i) {
      T products[group_size] = {};
      CDKD_UNROLL
      for (int j = 0; j < P::kColumns; ++j) {
        const T x = widen(shared.feature[P::row(i) * Shared::kWeightStride + P::column(j)]);
        T feature = 0;
        CDKD_UNROLL
        for (int g = 0; g < group_size; ++g) {
          if (g >= group.count) break;
          products[g] += sums[g][i][j] * x;
          feature += sums[g][i][j] * shared.weigh[g][P::row(i)];
        }
        sums[0][i][j] = feature;
      }
      CDKD_UNROLL
      for (int g = 0; g < group_size; ++g) {
        products[g] = sum_over_lanes<P::kLanes>(products[g]);
        if (thread % P::kLanes == 0) shared.sums[g][P::part()][P::row(i)] = products[g];
      }
    }
    CDKD_UNROLL
    for (int round = 0; round < rounds; ++round) CDKD_UNROLL
    for (int g = 0; g < group_size; ++g) with_bias[round][g] = sum_over_lanes<eights>(with_bias[round][g]);
    __syncthreads();
    CDKD_UNROLL
    for (int round = 0; round < rounds; ++round) {
      const int slot = thread + round * kThreads, r = slot / eights;
      if (slot >= slots || slot % eights != 0 || first + r >= p.rows) continue;
      CDKD_UNROLL
      for (int g = 0; g < group_size; ++g) {
        if (g >= group.count) break;
        T sum = shared.sums[g][0][r] + with_bias[round][g];
        if constexpr (P::kParts == 2) sum += shared.sums[g][1][r];
        store(to_select + ((split * d.position_tiles + tile) * p.projectors + group.first + g) * p.rows +
                  first + r,
              sum * shared.bias[g][r]);
      }
    }
    if (to_feature == nullptr) return;
    CDKD_UNROLL
    for (int i = 0; i < P::kRows; ++i) CDKD_UNROLL
    for (int j = 0; j < P::kColumns; ++j)
      shared.result[P::row(i) * Shared::kResultStride + P::column(j)] = sums[0][i][j];
    __syncthreads();
    store_tile<kTile, kTile, Shared::kResultStride, false>(
        to_feature + (part * p.rows + first) * p.positions + position, shared.result, p.positions,
        p.rows - first, p.positions - position, p.position_vectors);
  } else {
    not_compiled();
  }
}

template <class In, bool tensor>
struct WeightShared {
  using T = Accumulate<In>;
  static constexpr int kGradientStride = padded(kTile, sizeof(Operand<In, tensor>));
  static constexpr int kFeatureStride = padded(kTile, sizeof(In));
  static constexpr int kResultStride = padded(kTile, sizeof(T));
  union {
    struct {
      alignas(16) Operand<In, tensor> gradient[kGroup<T>][kDepth<In> * kGradientStride];
      alignas(16) In feature[kDepth<In> * kFeatureStride];
    } factors;
    T result[kTile * kResultStride];  // when all is multiplied
  };
  T scratch[kThreads / kWarp];
  T bias[kGroup<T>][kTile];
};

// Blocks: tiles of targets, then of positions, then groups of projectors. Adds to what is there, or writes.
template <class In, bool tensor, bool add>
__global__ void __launch_bounds__(kThreads, sizeof(In) == 8 ? 2 : 3)
    projector_cosine_weight_kernel(Typed<In, tensor> p, RowScales<Accumulate<In>> scales, int64_t groups,
                                   Accumulate<In>* to_weight, Accumulate<In>* to_bias) {
  if constexpr (kCompiled<In, tensor>) {
    using T = Accumulate<In>;
    using P = Place<tensor>;
    using Shared = WeightShared<In, tensor>;
    constexpr int depth = kDepth<In>, group_size = kGroup<T>;
    constexpr int eights = kTile / 8, slots = depth * eights, rounds = (slots + kThreads - 1) / kThreads;
    CDKD_DYNAMIC_SHARED(memory);
    Shared& shared = *reinterpret_cast<Shared*>(memory);
    const int thread = static_cast<int>(threadIdx.x);
    const int64_t target_tiles = divide_up(p.targets, kTile), position_tiles = divide_up(p.positions, kTile);
    const int64_t target = blockIdx.x % target_tiles * kTile;
    const int64_t position = blockIdx.x / target_tiles % position_tiles * kTile;
    const Group group(blockIdx.x / target_tiles / position_tiles, groups, p.projectors);

    // the largest weight becomes one, so that products fit 16 bits
    T most[1] = {0};
    if constexpr (tensor) {
      for (int64_t i = thread; i < group.count * p.rows; i += kThreads) {
        const T weigh = load(scales.weigh + group.first * p.rows + i);
        const T size = weigh < 0 ? -weigh : weigh;
        if (size > most[0]) most[0] = size;
      }
      reduce_block(most, shared.scratch, [](T a, T b) { return a > b ? a : b; });
    }
    const T unit = most[0] > 0 ? most[0] : T(1);

    T sums[group_size][P::kRows][P::kColumns] = {};
    T bias[group_size] = {};
    const int column = thread % kTile, half = thread / kTile;  // what this thread adds to the bias's gradient
    for (int64_t first = 0; first < p.rows; first += depth) {
      __syncthreads();  // the tiles have been multiplied
      load_tile<depth, kTile, Shared::kFeatureStride>(
          shared.factors.feature, p.feature + first * p.positions + position, p.positions, p.rows - first,
          p.positions - position, p.position_vectors);
      commit_copies();
      CDKD_UNROLL
      for (int round = 0; round < rounds; ++round) {
        const int slot = thread + round * kThreads, r = slot / eights, c = slot % eights * 8;
        if (slot >= slots) break;
        const int64_t row = first + r;
        const bool exists = row < p.rows;
        T values[8], passed[8];
        bracket(p, row, target + c, exists ? load(scales.teacher_share + row) : T(0),
                exists ? load(scales.output_share + row) : T(0), values);
        CDKD_UNROLL
        for (int g = 0; g < group_size; ++g) {
          if (g >= group.count) break;
          const T weigh = exists ? load(scales.weigh + (group.first + g) * p.rows + row) / unit : T(0);
          stop_inactive(p, group.first + g, row, target + c, values, passed);
          CDKD_UNROLL
          for (int e = 0; e < 8; ++e) passed[e] *= weigh;
          store_eight(shared.factors.gradient[g] + r * Shared::kGradientStride + c, passed);
        }
      }
      wait_copies<0>();
      __syncthreads();
      CDKD_UNROLL
      for (int g = 0; g < group_size; ++g) {
        if (g >= group.count) break;
        multiply<tensor, true, true, depth>(shared.factors.gradient[g], shared.factors.feature, sums[g]);
        if (position == 0)
          for (int r = half * depth / 2; r < (half + 1) * depth / 2; ++r)
            bias[g] += widen(shared.factors.gradient[g][r * Shared::kGradientStride + column]);
      }
    }

    CDKD_UNROLL
    for (int g = 0; g < group_size; ++g) {
      if (g >= group.count) break;
      __syncthreads();
      CDKD_UNROLL
      for (int i = 0; i < P::kRows; ++i) CDKD_UNROLL
      for (int j = 0; j < P::kColumns; ++j)
        shared.result[P::row(i) * Shared::kResultStride + P::column(j)] = sums[g][i][j] * unit;
      __syncthreads();
      store_tile<kTile, kTile, Shared::kResultStride, add>(
          to_weight + ((group.first + g) * p.targets + target) * p.positions + position, shared.result,
          p.positions, p.targets - target, p.positions - position, p.position_vectors);
    }
    if (position != 0) return;
    if (half == 1) CDKD_UNROLL
    for (int g = 0; g < group_size; ++g) shared.bias[g][column] = bias[g];
    __syncthreads();
    if (half == 1 || target + column >= p.targets) return;
    CDKD_UNROLL
    for (int g = 0; g < group_size; ++g) {
      if (g >= group.count) break;
      T* const to = to_bias + (group.first + g) * p.targets + target + column;
      store(to, (add ? load(to) : T(0)) + (bias[g] + shared.bias[g][column]) * unit);
    }
  } else {
    not_compiled();
  }
}

// Add the parts: a thread for each element of the feature's gradient, if it is in parts, then of select's.
template <class In, bool tensor>
__global__ void __launch_bounds__(kThreads)
    projector_cosine_sum_kernel(Typed<In, tensor> p, Division d, const Accumulate<In>* feature,
                                Accumulate<In>* to_feature, const Accumulate<In>* select,
                                Accumulate<In>* to_select) {
  using T = Accumulate<In>;
  const int64_t elements = to_feature == nullptr ? 0 : p.rows * p.positions;
  int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  T sum = 0;
  if (i < elements) {
    for (int64_t part = 0; part < d.groups * d.splits; ++part) sum += load(feature + part * elements + i);
    store(to_feature + i, sum);
    return;
  }
  i -= elements;
  const int64_t width = p.projectors * p.rows;
  if (i >= width) return;
  for (int64_t part = 0; part < d.splits * d.position_tiles; ++part) sum += load(select + part * width + i);
  store(to_select + p.selected(i % p.rows) + i / p.rows * p.channels, sum);
}

// Wide numbers of the workspace.
template <class T>
struct Workspace {
  T* feature_parts;
  T* select_parts;
  T* scales;
  T* projected;     // of a slab, if projected again
  uint8_t* active;  // likewise
  int64_t bytes;

  Workspace(const ProjectorCosine& call, int64_t slab_samples, bool again) {
    const int64_t rows = slab_samples * call.channels;
    const Division d = divide<T>(Sizes{rows, call.positions, call.targets, call.projectors});
    const bool parts = call.feature_gradient != nullptr && d.parts() > 1;
    const uintptr_t memory = reinterpret_cast<uintptr_t>(call.workspace);
    uintptr_t at = memory;
    const auto take = [&](int64_t count, int64_t size) {
      const uintptr_t from = at;
      at += static_cast<uintptr_t>(divide_up(count * size, 16) * 16);
      return from;
    };
    const int64_t size = sizeof(T), planes = call.relu ? divide_up(call.projectors, 8) : 0;
    feature_parts = reinterpret_cast<T*>(take(parts ? d.parts() * rows * call.positions : 0, size));
    select_parts = reinterpret_cast<T*>(take(d.splits * d.position_tiles * call.projectors * rows, size));
    scales = reinterpret_cast<T*>(take((2 + call.projectors) * rows, size));
    projected = reinterpret_cast<T*>(take(again ? rows * call.targets : 0, size));
    active = reinterpret_cast<uint8_t*>(take(again ? planes * rows * call.targets : 0, 1));
    bytes = static_cast<int64_t>(at - memory);
  }
};

template <class In, bool tensor>
cudaError_t launch_slab(const Typed<In, tensor>& p, const ProjectorCosine& call,
                        const Workspace<Accumulate<In>>& memory, cudaStream_t stream) {
  using T = Accumulate<In>;
  static_assert(sizeof(FeatureShared<In, tensor>) <= kSharedLimit, "what every device gives without asking");
  static_assert(sizeof(WeightShared<In, tensor>) <= kSharedLimit, "what every device gives without asking");
  const Division d = divide<T>(p);
  const RowScales<T> scales{memory.scales, memory.scales + p.rows, memory.scales + 2 * p.rows};
  const Incoming<T> incoming{static_cast<const T*>(call.gradient), static_cast<const T*>(call.products),
                             call.eps};
  T* feature = static_cast<T*>(call.feature_gradient);
  if (feature != nullptr) feature += p.first_row * p.positions;
  T* const parts = feature != nullptr && d.parts() > 1 ? memory.feature_parts : feature;
  const int64_t blocks = d.row_tiles * d.position_tiles * d.parts();
  CDKD_LAUNCH("projector_cosine_feature", (&projector_cosine_feature_kernel<In, tensor>),
              dim3(static_cast<unsigned>(blocks)), dim3(kThreads), sizeof(FeatureShared<In, tensor>), stream,
              p, incoming, d, scales, parts, memory.select_parts);
  if (call.weight_gradient != nullptr) {
    const int64_t weight_blocks = divide_up(p.targets, kTile) * d.position_tiles * d.groups;
    const auto kernel = p.first_row > 0 ? &projector_cosine_weight_kernel<In, tensor, true>
                                        : &projector_cosine_weight_kernel<In, tensor, false>;
    CDKD_LAUNCH("projector_cosine_weight", kernel, dim3(static_cast<unsigned>(weight_blocks)), dim3(kThreads),
                sizeof(WeightShared<In, tensor>), stream, p, scales, d.groups,
                static_cast<T*>(call.weight_gradient), static_cast<T*>(call.bias_gradient));
  }
  T* const sum = parts == feature ? nullptr : feature;
  const int64_t elements = (sum == nullptr ? 0 : p.rows * p.positions) + p.projectors * p.rows;
  CDKD_LAUNCH("projector_cosine_sum", (&projector_cosine_sum_kernel<In, tensor>),
              dim3(static_cast<unsigned>(divide_up(elements, kThreads))), dim3(kThreads), 0, stream, p, d,
              static_cast<const T*>(parts), sum, static_cast<const T*>(memory.select_parts),
              static_cast<T*>(call.select_gradient));
  return cudaSuccess;
}

int64_t slab_samples(const ProjectorCosine& call) {
  return call.projected != nullptr ? call.samples : divide_up(call.samples, kSlabs);
}

template <class T>
cudaError_t launch_slabs(const ProjectorCosine& call, cudaStream_t stream) {
  const bool again = call.projected == nullptr;
  const int64_t most = slab_samples(call);
  const Workspace<T> memory(call, most, again);
  for (int64_t first = 0; first < call.samples; first += most) {
    const Slab slab{call, first, std::min(most, call.samples - first),
                    again ? memory.projected : call.projected,
                    !call.relu ? nullptr
                    : again    ? memory.active
                               : call.active};
    cudaError_t error = again ? project(slab, nullptr, stream) : cudaSuccess;
    if (error != cudaSuccess) return error;
    error = with_types(slab, [&](const auto& typed) {
      if constexpr (std::is_same_v<decltype(typed.bias), const T*>)
        return launch_slab(typed, call, memory, stream);
      else
        return cudaSuccess;  // of the other width: never taken
    });
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace
}  // namespace projector

int64_t projector_cosine_backward_workspace(const ProjectorCosine& call) {
  const int64_t samples = projector::slab_samples(call);
  const bool again = call.projected == nullptr;
  return call.wide() ? projector::Workspace<double>(call, samples, again).bytes
                     : projector::Workspace<float>(call, samples, again).bytes;
}

cudaError_t launch_projector_cosine_backward(const ProjectorCosine& call, cudaStream_t stream) {
  if (call.samples == 0) return cudaSuccess;
  return call.wide() ? projector::launch_slabs<double>(call, stream)
                     : projector::launch_slabs<float>(call, stream);
}

}  // namespace cdkd::cuda
