// The schemas of the operators, and nothing else: kernels are in cpu/, fakes and derivatives in cdkd_ext/ops.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(cdkd, m) {
  // An op without derivatives is called where nothing needs a gradient. Its …_gradients twin also returns the
  // derivative of each row's loss, which …_backward scales by the incoming gradient: exponentials are
  // computed once.
  m.def("cca_kl(Tensor student_logits, Tensor teacher_logits, Tensor tau, *, str phase=\"paper\") -> Tensor");
  m.def(
      "cca_kl_gradients(Tensor student_logits, Tensor teacher_logits, Tensor tau, str phase, bool wants_tau)"
      " -> (Tensor, Tensor, Tensor)");
  m.def("cca_kl_backward(Tensor gradient, Tensor student_gradient, Tensor tau_gradient) -> (Tensor, Tensor)");

  m.def("simcc_kl(Tensor logits, Tensor target, *, float label_smoothing=0.0, float? sigma=None) -> Tensor");
  m.def(
      "simcc_kl_gradients(Tensor logits, Tensor target, float label_smoothing, float? sigma)"
      " -> (Tensor, Tensor)");
  m.def("simcc_kl_backward(Tensor gradient, Tensor logits_gradient) -> Tensor");

  // flipped: logits_x and logits_y of the mirrored image, and the joint permutation
  m.def(
      "simcc_decode(Tensor logits_x, Tensor logits_y, float split_ratio, *, Tensor[]? flipped=None,"
      " Tensor? to_image=None, str score=\"min\") -> (Tensor, Tensor)");
}
