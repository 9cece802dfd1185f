// The schemas of the operators. Kernels register themselves in cpu/, fakes and derivatives in cdkd_ext/ops.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(cdkd, m) {
  // …_gradients also returns the derivative of each row's loss; …_backward scales it by the incoming gradient
  m.def("cca_kl(Tensor student_logits, Tensor teacher_logits, Tensor tau, *, str phase=\"paper\") -> Tensor");
}
