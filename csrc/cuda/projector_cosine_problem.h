// What the kernels of projector_cosine know of their problem. A block owns a 64 x 64 tile of an output and walks the
// projectors and the depth of the product; a map of one projector exists only as the sums in its registers. Sums
// between blocks are parts that a later launch adds in a fixed order.
#pragma once
#include <algorithm>

#include "cuda/projector_cosine.h"
#include "cuda/projector_cosine_tiles.h"

namespace cdkd::cuda::projector {

CDKD_INLINE constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A problem whose types are known.
template <class In, bool tensor>
struct Typed {
  using T = Accumulate<In>;

  int64_t first_row, rows, channels, positions, targets, projectors;
  bool relu, position_vectors, target_vectors;  // whether lines along S and T consist of whole aligned vectors
  const In* feature;
  const In* weight;
  const T* bias;
  const T* select;
  const In* teacher;
  T* projected;
  uint8_t* active;

  explicit Typed(const Problem& p)
      : first_row(p.first_row),
        rows(p.rows),
        channels(p.channels),
        positions(p.positions),
        targets(p.targets),
        projectors(p.projectors),
        relu(p.relu),
        feature(static_cast<const In*>(p.feature)),
        weight(static_cast<const In*>(p.weight)),
        bias(static_cast<const T*>(p.bias)),
        select(static_cast<const T*>(p.select)),
        teacher(static_cast<const In*>(p.teacher)),
        projected(static_cast<T*>(p.projected)),
        active(p.active) {
    const auto aligned = [](const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; };
    position_vectors = positions % Vector<In>::kSize == 0 && aligned(feature) && aligned(weight);
    target_vectors = targets % 16 == 0 && aligned(teacher) && aligned(projected) && aligned(active);
  }

  CDKD_DEVICE int64_t sample(int64_t row) const { return (first_row + row) / channels; }
  // of select[b, 0, c]
  CDKD_DEVICE int64_t selected(int64_t row) const {
    const int64_t global = first_row + row;
    return global / channels * projectors * channels + global % channels;
  }
};

// Call f(Typed{}) for the types of the problem.
template <class F>
cudaError_t with_types(const Problem& p, F f) {
  switch (p.format) {
    case Format::kFloat64:
      return f(Typed<double, false>(p));
    case Format::kFloat32:
      return f(Typed<float, false>(p));
    case Format::kFloat16:
      return f(Typed<Float16, true>(p));
    case Format::kBFloat16:
      return p.tensor_cores ? f(Typed<BFloat16, true>(p)) : f(Typed<BFloat16, false>(p));
  }
  return cudaSuccess;
}

}  // namespace cdkd::cuda::projector
