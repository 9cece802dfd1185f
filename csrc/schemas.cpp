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

  // …_forward also returns what …_backward reads: without `keep` only small sums, and the projections are
  // recomputed
  m.def(
      "projector_cosine(Tensor feature, Tensor weight, Tensor bias, Tensor select, Tensor teacher, *,"
      " str activation=\"relu\", float eps=1e-8, bool recompute=False) -> Tensor");
  m.def(
      "projector_cosine_forward(Tensor feature, Tensor weight, Tensor bias, Tensor select, Tensor teacher,"
      " str activation, float eps, bool keep) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "projector_cosine_backward(Tensor gradient, Tensor feature, Tensor weight, Tensor bias, Tensor select,"
      " Tensor teacher, Tensor projected, Tensor active, Tensor inner, Tensor products, str activation, "
      "float eps,"
      " bool wants_feature, bool wants_weight) -> (Tensor, Tensor, Tensor, Tensor)");

  // returns the selection and the mean and variance that normalised; …_forward also what …_backward reads
  m.def(
      "sau_select(Tensor feature, Tensor[] conv_weights, Tensor norm_weight, Tensor norm_bias, Tensor "
      "running_mean,"
      " Tensor running_var, Tensor squeeze_weight, Tensor squeeze_bias, Tensor select_weight, Tensor "
      "select_bias, *,"
      " bool training, float eps=1e-5) -> (Tensor, Tensor, Tensor)");
  m.def(
      "sau_select_forward(Tensor feature, Tensor[] conv_weights, Tensor norm_weight, Tensor norm_bias,"
      " Tensor running_mean, Tensor running_var, Tensor squeeze_weight, Tensor squeeze_bias, Tensor "
      "select_weight,"
      " Tensor select_bias, bool training, float eps) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "sau_select_backward(Tensor gradient, Tensor feature, Tensor[] conv_weights, Tensor norm_weight,"
      " Tensor norm_bias, Tensor squeeze_weight, Tensor squeeze_bias, Tensor select_weight, Tensor "
      "select_bias,"
      " Tensor selection, Tensor mean, Tensor variance, Tensor responses, Tensor pooled, Tensor passed, bool "
      "training,"
      " float eps, bool wants_feature)"
      " -> (Tensor, Tensor[], Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}
