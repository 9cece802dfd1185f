// What the kernels know of their problem. A block owns a 64 x 64 tile of an output and
// walks the projectors and the depth of the product; a map of one projector exists only as the sums in its
// registers. Sums between blocks are parts that a later launch adds in a fixed order.
#pragma once
#include <algorithm>

#include "cuda/launch.h"
#include "kernel_tiles.h"
#include "kernels.h"

namespace cdkd::cuda::projector {

CDKD_INLINE constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Samples whose projections are in memory at the same time.
struct Slab {
  const ProjectorCosine& call;
  int64_t first_sample, samples;
  void* projected;  // (rows, T), or null when nobody will read it
  uint8_t* active;  // (planes, rows, T), or null
};

// Its problem, with types.
template <class In, bool tensor>
struct Typed {
  using T = Accumulate<In>;

  int64_t first_row, rows, channels, positions, targets,
      projectors;  // rows of a slab of samples, from first_row on
  bool relu, position_vectors,
      target_vectors;  // whether lines along S and T consist of whole aligned vectors
  const In* feature;   // feature, teacher, projected and active begin with the slab
  const In* weight;
  const T* bias;
  const T* select;
  const In* teacher;
  T* projected;
  uint8_t* active;

  explicit Typed(const Slab& slab)
      : first_row(slab.first_sample * slab.call.channels),
        rows(slab.samples * slab.call.channels),
        channels(slab.call.channels),
        positions(slab.call.positions),
        targets(slab.call.targets),
        projectors(slab.call.projectors),
        relu(slab.call.relu),
        feature(static_cast<const In*>(slab.call.feature) + first_row * positions),
        weight(static_cast<const In*>(slab.call.weight)),
        bias(static_cast<const T*>(slab.call.bias)),
        select(static_cast<const T*>(slab.call.select)),
        teacher(static_cast<const In*>(slab.call.teacher) + first_row * targets),
        projected(static_cast<T*>(slab.projected)),
        active(slab.active) {
    const auto aligned = [](const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; };
    position_vectors = positions % Vector<T>::kSize == 0 && positions % Vector<In>::kSize == 0 &&
                       aligned(feature) && aligned(weight);
    target_vectors = targets % 16 == 0 && aligned(teacher) && aligned(projected) && aligned(active);
  }

  CDKD_DEVICE int64_t sample(int64_t row) const { return (first_row + row) / channels; }
  // where select[b, 0, c] is
  CDKD_DEVICE int64_t selected(int64_t row) const {
    const int64_t global = first_row + row;
    return global / channels * projectors * channels + global % channels;
  }
};

// Call f(Typed{}) for the types of the problem; returns its error.
template <class F>
cudaError_t with_types(const Slab& p, F f) {
  switch (p.call.format) {
    case Format::kFloat64:
      return f(Typed<double, false>(p));
    case Format::kFloat32:
      return f(Typed<float, false>(p));
    case Format::kFloat16:
      return f(Typed<Float16, true>(p));
    case Format::kBFloat16:
      return p.call.tensor_cores ? f(Typed<BFloat16, true>(p)) : f(Typed<BFloat16, false>(p));
  }
  return cudaSuccess;  // there are no other formats
}

// Project the rows of a slab. partial: (tiles of targets, 3, rows) wide numbers, or null.
cudaError_t project(const Slab& slab, void* partial, cudaStream_t stream);

}  // namespace cdkd::cuda::projector
