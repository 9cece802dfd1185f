// The schemas of the operators, and nothing else: their kernels are in ops/, fakes and derivatives in
// cdkd_ext/ops. Shapes are the same on every device; "wide" is float64 with float64 inputs, else float32.
#include "schemas.h"

#include <torch/csrc/stable/library.h>

const char* const cdkd::kSchemas[] = {
    // An op without derivatives is called where nothing needs a gradient. Its …_gradients twin also returns
    // the derivative of each row's loss, which …_backward scales by the incoming gradient: exponentials are
    // computed once. A tau_gradient that is not wanted is empty.
    "cca_kl(Tensor student_logits, Tensor teacher_logits, Tensor tau, Tensor? weights=None, *,"
    " str phase=\"paper\", float? offset=None, bool probabilities=False) -> Tensor",
    "cca_kl_gradients(Tensor student_logits, Tensor teacher_logits, Tensor tau, Tensor? weights, str phase,"
    " float? offset, bool probabilities, bool wants_tau) -> (Tensor, Tensor, Tensor)",
    "cca_kl_backward(Tensor gradient, Tensor student_gradient, Tensor tau_gradient) -> (Tensor, Tensor)",

    "simcc_kl(Tensor logits, Tensor target, *, float label_smoothing=0.0, float? sigma=None) -> Tensor",
    "simcc_kl_gradients(Tensor logits, Tensor target, float label_smoothing, float? sigma)"
    " -> (Tensor, Tensor)",
    "simcc_kl_backward(Tensor gradient, Tensor logits_gradient) -> Tensor",

    // flipped: logits_x and logits_y of the mirrored image, and the joint permutation
    "simcc_decode(Tensor logits_x, Tensor logits_y, float split_ratio, *, Tensor[]? flipped=None,"
    " Tensor? to_image=None, str score=\"min\") -> (Tensor, Tensor)",

    // …_forward also returns what …_backward reads: projected (B·C, T) and the ReLU's bits, active (planes of
    // 8 projectors, B·C, T), both without rows unless `keep`, and then projected again; inner (2, B, K, C),
    // opaque; products (B, 3). …_backward returns the gradients of feature, weight, bias and select, all
    // wide;
    // the first three are empty where not wanted.
    "projector_cosine(Tensor feature, Tensor weight, Tensor bias, Tensor select, Tensor teacher, *,"
    " str activation=\"relu\", float eps=1e-8, bool recompute=False) -> Tensor",
    "projector_cosine_forward(Tensor feature, Tensor weight, Tensor bias, Tensor select, Tensor teacher,"
    " str activation, float eps, bool keep) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    "projector_cosine_backward(Tensor gradient, Tensor feature, Tensor weight, Tensor bias, Tensor select,"
    " Tensor teacher, Tensor projected, Tensor active, Tensor inner, Tensor products,"
    " str activation, float eps, bool wants_feature, bool wants_weight)"
    " -> (Tensor, Tensor, Tensor, Tensor)",

    // Returns the selection (B, K, C) and the mean and variance (M, C) that normalised. …_forward also
    // returns
    // what …_backward reads: responses (R, M·C, h, w) of the convolutions, opaque memory in an order of the
    // kernel's own, where R is B rounded up to a multiple of 16; pooled (B, C); passed (2, M, C, B).
    "sau_select(Tensor feature, Tensor[] conv_weights, Tensor norm_weight, Tensor norm_bias,"
    " Tensor running_mean, Tensor running_var, Tensor squeeze_weight, Tensor squeeze_bias,"
    " Tensor select_weight, Tensor select_bias, *, bool training, float eps=1e-5)"
    " -> (Tensor, Tensor, Tensor)",
    "sau_select_forward(Tensor feature, Tensor[] conv_weights, Tensor norm_weight, Tensor norm_bias,"
    " Tensor running_mean, Tensor running_var, Tensor squeeze_weight, Tensor squeeze_bias,"
    " Tensor select_weight, Tensor select_bias, bool training, float eps)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    "sau_select_backward(Tensor gradient, Tensor feature, Tensor[] conv_weights, Tensor norm_weight,"
    " Tensor norm_bias, Tensor squeeze_weight, Tensor squeeze_bias, Tensor select_weight,"
    " Tensor select_bias, Tensor selection, Tensor mean, Tensor variance, Tensor responses, Tensor pooled,"
    " Tensor passed, bool training, float eps, bool wants_feature)"
    " -> (Tensor, Tensor[], Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",

    nullptr,
};

STABLE_TORCH_LIBRARY(cdkd, m) {
  for (const char* const* schema = cdkd::kSchemas; *schema; ++schema) m.def(*schema);
}
