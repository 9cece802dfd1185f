// simcc_decode on CUDA tensors.
#include <torch/csrc/stable/library.h>

#include <cmath>
#include <optional>
#include <tuple>

#include "ops/simcc_decode/mirror.h"
#include "ops/simcc_decode/kernels.h"
#include "cuda/tensors.h"

namespace cdkd::cuda {
namespace {

Score score_of(const std::string& name) {
  check(name == "min" || name == "max" || name == "mean", "score", "one of 'min', 'max', 'mean'",
        "'" + name + "'");
  return name == "min" ? Score::kMin : name == "max" ? Score::kMax : Score::kMean;
}

std::tuple<Tensor, Tensor> simcc_decode(const Tensor& logits_x, const Tensor& logits_y, double split_ratio,
                                        const std::optional<std::vector<Tensor>>& flipped,
                                        const std::optional<Tensor>& to_image, const std::string& score) {
  const Place place("logits_x", logits_x);
  check_shape(logits_x.dim() == 3 && logits_x.size(2) > 0, "logits_x", "(B, J, bins)", logits_x);
  check_shape(same_rows(logits_x, logits_y) && logits_y.size(2) > 0, "logits_y",
              text("(", logits_x.size(0), ", ", logits_x.size(1), ", bins)"), logits_y);
  check(split_ratio > 0 && std::isfinite(split_ratio), "split_ratio", "a positive finite number",
        split_ratio);

  // tensors live as long as the pointers into them
  std::vector<Tensor> kept;
  const auto rows = [&](const char* argument, const Tensor& tensor) {
    place.check_here(argument, tensor);
    kept.push_back(packed(tensor));
    return rows_of(argument, kept.back());
  };
  SimccDecode call{};
  call.x.logits = rows("logits_x", logits_x);
  call.y.logits = rows("logits_y", logits_y);
  call.batch = logits_x.size(0);
  call.joints = logits_x.size(1);
  call.split_ratio = split_ratio;
  call.score = score_of(score);
  call.wide = is_wide(logits_x) || is_wide(logits_y);
  if (flipped) {
    check(flipped->size() == 3, "flipped", "logits_x, logits_y and permutation",
          text(flipped->size(), " tensors"));
    const Tensor& permutation = (*flipped)[2];
    check_shape(same_shape((*flipped)[0], logits_x), "flipped[0]", shape_text(logits_x), (*flipped)[0]);
    check_shape(same_shape((*flipped)[1], logits_y), "flipped[1]", shape_text(logits_y), (*flipped)[1]);
    place.check_here("flipped[2]", permutation);
    check(permutation.scalar_type() == ScalarType::Long, "flipped[2]", "int64",
          toString(permutation.scalar_type()));
    check_shape(permutation.dim() == 1 && permutation.size(0) == call.joints, "flipped[2]",
                text("(", call.joints, ")"), permutation);
    // a kernel that computes in float reads no float64
    const auto narrowed = [&](const Tensor& tensor) {
      return is_wide(tensor) && !call.wide ? torch::stable::to(tensor, ScalarType::Float) : tensor;
    };
    call.x.mirrored = rows("flipped[0]", narrowed((*flipped)[0]));
    call.y.mirrored = rows("flipped[1]", narrowed((*flipped)[1]));
    call.mirror_sum = mirror_sum(call.x.logits.length, split_ratio);
    kept.push_back(packed(permutation));
    call.permutation = kept.back().const_data_ptr<int64_t>();
  }
  if (to_image) {
    check_shape(to_image->dim() == 3 && to_image->size(0) == call.batch && to_image->size(1) == 2 &&
                    to_image->size(2) == 3,
                "to_image", text("(", call.batch, ", 2, 3)"), *to_image);
    call.to_image = rows("to_image", *to_image);
    call.to_image.length = 6;
  }

  const int64_t shape[] = {call.batch, call.joints, 2};
  const Tensor keypoints = allocate(logits_x, Sizes(shape, 3), accumulator_type(call.wide));
  const Tensor scores = allocate(logits_x, Sizes(shape, 2), accumulator_type(call.wide));
  call.keypoints = keypoints.mutable_data_ptr();
  call.scores = scores.mutable_data_ptr();
  check_launch(launch_simcc_decode(call, place.stream()));
  return {keypoints, scores};
}

}  // namespace
}  // namespace cdkd::cuda

STABLE_TORCH_LIBRARY_IMPL(cdkd, CUDA, m) { m.impl("simcc_decode", TORCH_BOX(&cdkd::cuda::simcc_decode)); }
