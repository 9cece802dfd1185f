"""The five ops in plain PyTorch, written to be read beside the equations: the oracle of the tests.

Every function has the arguments of its compiled twin, but for `recompute`, and is differentiated by autograd.
Letters: B samples, J joints, N bins (N_s of the student, N_t of the teacher), C channels, S and T positions, K
projectors, M branches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def cca_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    tau: float | Tensor,
    *,
    phase: str = "paper",
    offset: float | None = None,
    weights: Tensor | None = None,
    probabilities: bool = False,
) -> Tensor:
    """τ² · KL(merged teacher ‖ student) per row, times its weight: (…, N_s), (…, N_t) -> (…,)."""
    student, teacher = _wide(student_logits), _wide(teacher_logits.detach())
    if weights is not None:  # what a row of weight 0 holds is not looked at
        nothing = (weights.detach() == 0)[..., None]
        student, teacher = torch.where(nothing, 0, student), torch.where(nothing, 1, teacher)
    if not isinstance(tau, Tensor):
        tau = torch.tensor(tau, dtype=torch.float64, device=student_logits.device)
    tau = tau.reshape(())
    merge = merge_matrix(teacher.shape[-1], student.shape[-1], phase, offset).to(student.device)  # (N_t, N_s)
    log_student = torch.log_softmax(_tempered(student, tau), -1)  # (…, N_s)
    powers = (
        _powers(teacher, tau) if probabilities else torch.softmax(_tempered(teacher, tau), -1)
    )  # (…, N_t)
    merged = powers @ merge.to(powers.dtype)  # (…, N_s)
    loss = tau.to(merged.dtype) ** 2 * _relative_entropy(merged, log_student)
    return loss if weights is None else loss * weights.detach().to(loss.dtype)


def merge_matrix(bins: int, classes: int, phase: str = "paper", offset: float | None = None) -> Tensor:
    """Fraction of each teacher bin that falls in each student class: (N_t, N_s) float64, rows sum to one."""
    ratio = bins / classes
    if offset is None:
        offset = (ratio - 1) / 2 if phase == "centered" else 0.0
    edges = torch.arange(classes + 1, dtype=torch.float64) * ratio - offset  # (N_s + 1,)
    edges[0], edges[-1] = 0, bins  # what an offset leaves outside goes to the first or the last class
    edges = edges.clamp(0, bins)
    left = torch.arange(bins, dtype=torch.float64)[:, None]  # (N_t, 1)
    return (torch.minimum(left + 1, edges[1:]) - torch.maximum(left, edges[:-1])).clamp(min=0)


def sau_select(
    feature: Tensor,
    conv_weights: Sequence[Tensor],
    norm_weight: Tensor,
    norm_bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    squeeze_weight: Tensor,
    squeeze_bias: Tensor,
    select_weight: Tensor,
    select_bias: Tensor,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Weights of the K projectors per channel, from several receptive fields: (B, C, h, w) -> (B, K, C).

    In training the batch statistics normalise and `running_mean`, `running_var` are updated in place.
    """
    norm = (norm_weight, norm_bias, running_mean, running_var)
    linear = (squeeze_weight, squeeze_bias, select_weight, select_bias)
    selection, mean, variance = selection_and_statistics(
        feature, conv_weights, *norm, *linear, training=training, eps=eps
    )
    if training:
        count = feature.numel() // feature.shape[1]
        with torch.no_grad():
            running_mean += momentum * (mean - running_mean)
            running_var += momentum * (variance * count / (count - 1) - running_var)
    return selection


def selection_and_statistics(
    feature: Tensor,
    conv_weights: Sequence[Tensor],
    norm_weight: Tensor,
    norm_bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    squeeze_weight: Tensor,
    squeeze_bias: Tensor,
    select_weight: Tensor,
    select_bias: Tensor,
    *,
    training: bool,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor]:
    """What `sau_select` returns, and the mean and variance (M, C) that normalised."""
    feature = _wide(feature)
    squeeze_weight, squeeze_bias = squeeze_weight.to(feature.dtype), squeeze_bias.to(feature.dtype)
    select_weight, select_bias = select_weight.to(feature.dtype), select_bias.to(feature.dtype)
    pooled = feature.new_zeros(feature.shape[:2])  # (B, C)
    means, variances = [], []
    for m, kernel in enumerate(conv_weights):  # (C, C, k, k)
        response = F.conv2d(feature, kernel.to(feature.dtype), padding=kernel.shape[-1] // 2)  # (B, C, h, w)
        if training:
            variance, mean = torch.var_mean(response, (0, 2, 3), correction=0)  # (C,)
        else:
            mean, variance = running_mean[m].to(feature.dtype), running_var[m].to(feature.dtype)
        normalised = (response - mean[:, None, None]) / (variance[:, None, None] + eps).sqrt()
        activated = torch.relu(normalised * norm_weight[m, :, None, None] + norm_bias[m, :, None, None])
        pooled = pooled + activated.mean((2, 3))
        means.append(mean)
        variances.append(variance)
    squeezed = torch.relu(F.linear(pooled, squeeze_weight, squeeze_bias))  # (B, d)
    scores = torch.einsum("bd,kcd->bkc", squeezed, select_weight) + select_bias  # (B, K, C)
    return torch.softmax(scores, 1), torch.stack(means), torch.stack(variances)


def projector_cosine(
    feature: Tensor,
    weight: Tensor,
    bias: Tensor,
    select: Tensor,
    teacher: Tensor,
    *,
    activation: str = "relu",
    eps: float = 1e-8,
) -> Tensor:
    """Cosine of the selected projections and the teacher's feature per sample: (B, C, S) -> (B,)."""
    feature, weight, bias, select = _wide(feature), _wide(weight), _wide(bias), _wide(select)
    teacher = _wide(teacher.detach()).flatten(1)  # (B, C·T)
    projected = torch.einsum("bcs,kts->bkct", feature, weight) + bias[:, None, :]  # (B, K, C, T)
    if activation == "relu":
        projected = torch.relu(projected)
    selected = torch.einsum("bkc,bkct->bct", select, projected).flatten(1)  # (B, C·T)
    norms = selected.norm(dim=1).clamp(min=eps) * teacher.norm(dim=1).clamp(min=eps)  # (B,)
    return (selected * teacher).sum(1) / norms


@torch.no_grad()
def simcc_decode(
    logits_x: Tensor,
    logits_y: Tensor,
    split_ratio: float,
    *,
    flipped: tuple[Tensor, Tensor, Tensor] | None = None,
    to_image: Tensor | None = None,
    score: str = "min",
) -> tuple[Tensor, Tensor]:
    """Keypoints (B, J, 2) in pixels and scores (B, J) from the logits (B, J, N_x) and (B, J, N_y)."""
    x, y = _wide(logits_x), _wide(logits_y)
    probability_x, probability_y = torch.softmax(x, -1), torch.softmax(y, -1)
    if flipped is None:
        bin_x, bin_y = x.argmax(-1), y.argmax(-1)  # (B, J), the lowest bin of a tie
    else:
        mirrored_x, mirrored_y, permutation = flipped
        mirrored_x = torch.softmax(_wide(mirrored_x)[:, permutation], -1)
        mirrored_y = torch.softmax(_wide(mirrored_y)[:, permutation], -1)
        probability_x = (probability_x + unmirror(mirrored_x, split_ratio)) / 2
        probability_y = (probability_y + mirrored_y) / 2
        bin_x, bin_y = probability_x.argmax(-1), probability_y.argmax(-1)
    peak_x, peak_y = probability_x.amax(-1), probability_y.amax(-1)  # (B, J)
    scores = {"min": torch.minimum(peak_x, peak_y), "max": torch.maximum(peak_x, peak_y)}.get(
        score, (peak_x + peak_y) / 2
    )
    keypoints = torch.stack((bin_x, bin_y), -1).to(scores.dtype) / split_ratio  # (B, J, 2)
    if to_image is not None:
        affine = to_image.to(scores.dtype)  # (B, 2, 3)
        keypoints = keypoints @ affine[:, :, :2].mT + affine[:, None, :, 2]
    # a NaN in either axis makes the whole keypoint unknown
    return torch.where(scores.isnan()[..., None], torch.nan, keypoints), scores


def mirror_sum(bins: int, split_ratio: float) -> int:
    """Sum of a bin and its mirror image: pixel x mirrors to width − 1 − x, so bin k·x to k·(width − 1) − k·x.

    The width is the smallest one that has this many bins; a fractional sum (of a fractional split ratio) is
    rounded half to even.
    """
    width = math.ceil(bins / split_ratio - 1e-6)
    return round(split_ratio * (width - 1))


def unmirror(probability: Tensor, split_ratio: float) -> Tensor:
    """Undo the mirroring of the last axis (…, N); a bin whose mirror image lies outside gets 0."""
    bins = probability.shape[-1]
    source = mirror_sum(bins, split_ratio) - torch.arange(bins, device=probability.device)  # (N,)
    inside = (source >= 0) & (source < bins)
    return torch.where(inside, probability[..., source.clamp(0, bins - 1)], 0)


def simcc_kl(
    logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0, sigma: float | None = None
) -> Tensor:
    """SimCC's own loss per row, Σ t·(log t − log p): logits (…, N), bin coordinates (…,) -> (…,)."""
    bins = logits.shape[-1]
    logits = _wide(logits)
    target = target.detach().to(logits.dtype)
    label = target.round()  # half to even
    outside = (label < 0) | (label >= bins)
    log_p = torch.log_softmax(torch.where(outside[..., None], 0, logits), -1)  # (…, N)
    index = torch.arange(bins, dtype=logits.dtype, device=logits.device)  # (N,)
    if sigma is None:
        smoothing = label_smoothing if bins > 1 else 0.0
        others = torch.full_like(log_p, smoothing / max(bins - 1, 1))
        t = torch.where(index == label[..., None], 1 - smoothing, others)
        t = torch.where(target.isnan()[..., None], torch.nan, t)
        log_t = t.log()
    else:
        distance = (index - target[..., None]) / sigma
        log_t = -(distance**2) / 2 - math.log(sigma * math.sqrt(2 * math.pi))
        t = log_t.exp()
    loss = torch.where(t == 0, 0, t * (log_t - log_p)).sum(-1)
    return torch.where(outside, 0, loss)


def _wide(x: Tensor) -> Tensor:
    """Float32, or float64 as it is."""
    return x if x.dtype == torch.float64 else x.float()


def _tempered(logits: Tensor, tau: Tensor) -> Tensor:
    """Logits / τ; the slope of -∞ / τ is 0."""
    excluded = logits == -math.inf
    return torch.where(excluded, -math.inf, torch.where(excluded, 0, logits) / tau)


def _powers(p: Tensor, tau: Tensor) -> Tensor:
    """p^(1/τ) over its sum along the last axis: the softmax at τ of the logits log p, which p = 0 makes -inf."""
    none = p == 0
    log_p = torch.where(none, 1, p).log()
    largest = torch.where(none, -math.inf, log_p).amax(-1, keepdim=True)
    powers = torch.where(none, 0, (torch.where(none, 0, log_p - largest) / tau).exp())
    return powers / powers.sum(-1, keepdim=True)


def _relative_entropy(p: Tensor, log_q: Tensor) -> Tensor:
    """Σ p·(log p − log q) over the last axis, where p = 0 contributes nothing."""
    some = p != 0
    log_p = torch.where(some, p, 1).log()
    return torch.where(some, p * (log_p - torch.where(some, log_q, 0)), 0).sum(-1)
