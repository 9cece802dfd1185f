// Cross-class alignment on raw pointers; the arguments are those of cdkd_ext.ops.cca_kl.
#pragma once
#include "cuda/call.h"

namespace cdkd::cuda {

// Accumulators are double if `wide`, else float. Pointers to results that are not wanted are null; tau's
// gradient needs the student's.
struct CcaKl {
  Rows student;  // (rows, N_s)
  Rows teacher;  // (rows, N_t)
  Rows tau;      // one scalar; what is not positive and finite makes all results NaN
  int64_t rows;
  bool centered;
  bool wide;
  void* loss;                    // (rows,) accumulators
  MutableRows student_gradient;  // (rows, N_s), of each row's loss
  void* tau_gradient;            // (rows,) accumulators, of each row's loss
};

// One launch, on the current device.
cudaError_t launch_cca_kl(const CcaKl& call, cudaStream_t stream);

}  // namespace cdkd::cuda
