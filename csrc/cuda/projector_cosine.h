// The launchers of projector_cosine, on raw pointers. Letters: B samples, C channels, R = B·C rows, S positions of
// the feature, T of the teacher, K projectors.
#pragma once
#include <cstdint>

#include "cuda/device.h"
#include "cuda/element.h"

namespace cdkd::cuda::projector {

// All tensors contiguous; `wide` ones are float, or double if the format is float64. Rows count from first_row on:
// feature, teacher, projected and active point at it, everything else at the whole batch.
struct Problem {
  Format format;
  bool tensor_cores;  // for 16-bit formats; bfloat16 needs compute capability 8.0
  bool relu;
  int64_t first_row, rows, channels, positions, targets, projectors;
  const void* feature;  // (rows, S)
  const void* weight;   // (K, T, S)
  const void* bias;     // (K, T), wide
  const void* select;   // (B, K, C), wide
  const void* teacher;  // (rows, T)
  void* projected;      // (rows, T), wide: Σ_k select · activation; null when nobody will read it
  uint8_t* active;      // (planes of 8 projectors, rows, T): bit k % 8 is set where the ReLU passes; null likewise
};

// Scalars that each row of project_rows() leaves per tile of targets.
int64_t partial_sums(const Problem& problem);

// Project the rows. partial: partial_sums() wide numbers, or null.
cudaError_t project(const Problem& problem, void* partial, cudaStream_t stream);

// From the partial sums of all rows: products (B, 3), <output, teacher>, <output, output>, <teacher, teacher>, and
// the cosines (B,).
cudaError_t finish_cosine(const Problem& problem, const void* partial, double eps, void* products, void* cosine,
                          cudaStream_t stream);

// Wide numbers that the backward pass needs beside its results.
struct BackwardSizes {
  int64_t feature_parts, select_parts, scales;
};
BackwardSizes backward_sizes(const Problem& problem);

struct Gradients {
  const void* gradient;  // (B,), wide, of the cosines
  const void* products;  // (B, 3), wide
  double eps;
  void* feature_parts;  // memory of backward_sizes()
  void* select_parts;
  void* scales;
  void* feature;  // (rows, S), wide, from first_row on; null if not wanted
  void* weight;   // (K, T, S), wide; null if not wanted
  void* bias;     // (K, T), wide; null if not wanted
  void* select;   // (B, K, C), wide
  bool add;       // to weight and bias
};

// Three launches: the feature's gradient and select's in parts, the weight's with the bias's, and the parts' sums.
// Reads projected and active.
cudaError_t backward(const Problem& problem, const Gradients& gradients, cudaStream_t stream);

}  // namespace cdkd::cuda::projector
