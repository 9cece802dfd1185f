#include "cuda/device.h"
#include "kernels.h"

namespace cdkd::cuda {

void compute(const Device& device, const ScaleRows& call) {
  ScaleRows with_work = call;
  const Tensor partials = device.allocate({call.sum ? kScaleRowsPartials : 0}, Format::kFloat64);
  with_work.partials = static_cast<double*>(partials.mutable_data_ptr());
  check_launch(launch_scale_rows(with_work, device.stream()));
}

}  // namespace cdkd::cuda
