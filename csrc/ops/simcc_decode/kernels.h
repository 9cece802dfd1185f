// SimCC logits to keypoints on raw pointers; the arguments are those of cdkd_ext.ops.simcc_decode.
#pragma once
#include "cuda/call.h"

namespace cdkd::cuda {

enum class Score : int32_t { kMin, kMax, kMean };

// The logits of one axis, and those of the mirrored image if there are some.
struct DecodeAxis {
  Rows logits;    // (B·J, N)
  Rows mirrored;  // (B·J, N) or null
};

// Accumulators are double if `wide`, else float.
struct SimccDecode {
  DecodeAxis x;
  DecodeAxis y;
  int64_t mirror_sum;  // of an x bin and its mirror image
  const int64_t*
      permutation;  // (J,) the joint that takes a joint's place in the mirrored image; null without
  int64_t batch;
  int64_t joints;
  double split_ratio;
  Rows to_image;  // (B, 6) or null
  Score score;
  bool wide;
  void* keypoints;  // (B, J, 2) accumulators
  void* scores;     // (B, J) accumulators
};

// One launch, on the current device. A joint whose counterpart is none of the J becomes NaN.
cudaError_t launch_simcc_decode(const SimccDecode& call, cudaStream_t stream);

}  // namespace cdkd::cuda
