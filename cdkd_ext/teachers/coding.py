"""Distributions over bins in some ninety bytes: a window of 8-bit log-densities around the peak, and what lies outside."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cdkd_ext.errors import check
from cdkd_ext.tensor_checks import check_tensor

CODES = 84  # of a window: two axes of 17 joints then take 3,026 bytes
RANGE = 16.0  # nats from the peak down to what counts as nothing
_LEVELS = 255
_MOST_BINS = CODES * _LEVELS  # the step is a byte
# enough of a choice: half as much again from one to the next
_STEPS = (1, 2, 3, 5, 7, 10, 15, 22, 33, 50, 75, 112, 168)
_SMALLEST = torch.finfo(torch.float32).tiny


class CodedDistributions(NamedTuple):
    """Distributions over N bins, coded; see `encode`.

    Attributes:
        codes: (B, J, W + 2) uint8, W = min(84, N): the density left of the window, in its W blocks, and right of it. A
            code c stands for 16·(c/255)² nats below the densest block.
        start: (B, J) int32, the window's first bin.
        step: (B, J) uint8, bins of a block.
        bins: N.
    """

    codes: Tensor
    start: Tensor
    step: Tensor
    bins: int

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> CodedDistributions:
        """The same on another device; see `torch.Tensor.to`."""
        moved = [value.to(device, non_blocking=non_blocking) for value in self[:3]]
        return CodedDistributions(moved[0], moved[1], moved[2], self.bins)


def encode(logits: Tensor) -> CodedDistributions:
    """Code softmax(logits), each row with the window that loses least.

    A row's window is W blocks of equally many bins. Of the widths 1, 2, 3, 5, 7, 10, … bins up to the one that covers
    the row, each put where it holds most of the mass, the one with the smallest Kullback-Leibler divergence of the decoded row
    from the given one is kept.

    Args:
        logits: (B, J, N) of any floating type on any device, N at most 21,420; -inf is a probability of 0.

    Raises:
        InputError: there are no bins or too many, or a row holds NaN or +inf, or nothing but -inf.

    Example:
        >>> import torch
        >>> from cdkd_ext.teachers.coding import decode, encode
        >>> coded = encode(-(torch.arange(768.0) - 300).square().expand(8, 17, -1) / 200)
        >>> coded.codes.shape, int(coded.step[0, 0])
        (torch.Size([8, 17, 86]), 1)
        >>> int(decode(coded)[0, 0].argmax())
        300
    """
    check_tensor("logits", logits, ("B", "J", "N"))
    bins = logits.shape[-1]
    check(0 < bins <= _MOST_BINS, "logits", f"{bins} bins", f"1 to {_MOST_BINS} bins")
    rows = logits.detach().to(torch.promote_types(logits.dtype, torch.float32)).reshape(-1, bins)
    p = rows.softmax(-1)
    check(
        bool(p.isfinite().all()),
        "teacher",
        "logits without a finite sum of exponentials",
        "logits below infinity",
    )
    # with a zero in front: differences of it are masses
    cumulative = torch.nn.functional.pad(p.cumsum(-1), (1, 0))
    best, least = None, None
    for step in _steps(bins):
        coded = _with_step(cumulative, step, bins)
        # the divergence of the decoded row without the entropy of the given one, which all steps share
        decoded = decode(coded)
        divergence = decoded.logsumexp(-1) - (p * decoded).sum(-1)
        if best is None or least is None:
            best, least = coded, divergence
            continue
        better = divergence < least
        least = torch.where(better, divergence, least)
        best = CodedDistributions(
            torch.where(better[:, None], coded.codes, best.codes),
            torch.where(better, coded.start, best.start),
            torch.where(better, coded.step, best.step),
            bins,
        )
    assert best is not None
    shape = logits.shape[:-1]
    return CodedDistributions(
        best.codes.reshape(*shape, best.codes.shape[-1]),
        best.start.reshape(shape),
        best.step.reshape(shape),
        bins,
    )


def decode(coded: CodedDistributions) -> Tensor:
    """Return logits (B, J, N) float32 of coded distributions, none above 0.

    A row is linear between the middles of its blocks, and constant on each side of the window from half a block on.
    """
    width = coded.codes.shape[-1] - 2
    levels = torch.arange(_LEVELS + 1, dtype=torch.float32, device=coded.codes.device)
    heights = (-RANGE * (levels / _LEVELS).square())[coded.codes.int()]
    slopes = torch.nn.functional.pad(heights.diff(dim=-1), (0, 1))
    per_bin = coded.step.unsqueeze(-1).float().reciprocal()
    bins = torch.arange(coded.bins, dtype=torch.float32, device=per_bin.device)
    # places among the densities: the first block's middle is at 1
    places = torch.addcmul((0.5 - coded.start.unsqueeze(-1)) * per_bin + 0.5, bins, per_bin).clamp_(
        0, width + 1
    )
    index = places.long()
    return heights.gather(-1, index).addcmul_(slopes.gather(-1, index), places.frac_())


def _steps(bins: int) -> list[int]:
    """The widths of blocks that are tried."""
    widest = -(-bins // CODES)
    return [step for step in _STEPS if step < widest] + [widest]


def _with_step(cumulative: Tensor, step: int, bins: int) -> CodedDistributions:
    """Code rows, given as (R, N + 1) cumulative probabilities, with blocks of `step` bins where they hold most."""
    width = min(CODES, bins)
    span = min(width * step, bins)
    start = (cumulative[:, span:] - cumulative[:, : cumulative.shape[1] - span]).argmax(-1, keepdim=True)
    edges = start + step * torch.arange(width + 1, device=start.device)
    # a block that begins behind the row repeats the last one
    last = start + step * (-(-span // step) - 1)
    low, high = edges[:, :-1].minimum(last), edges[:, 1:].minimum(last + step).clamp(max=bins)
    masses = cumulative.gather(-1, high) - cumulative.gather(-1, low)
    densities = masses / (high - low)
    behind = bins - start - span
    left = cumulative.gather(-1, start) / start.clamp(min=1)
    right = (cumulative[:, -1:] - cumulative.gather(-1, start + span)) / behind.clamp(min=1)
    # where nothing lies outside, the row goes on as it ends
    left = torch.where(start > 0, left, densities[:, :1])
    right = torch.where(behind > 0, right, densities[:, -1:])
    heights = torch.cat([left, densities, right], -1).clamp(min=_SMALLEST).log()
    below = heights.amax(-1, keepdim=True) - heights
    codes = ((below / RANGE).clamp(0, 1).sqrt() * _LEVELS).round().to(torch.uint8)
    start = start[:, 0]
    return CodedDistributions(codes, start.int(), torch.full_like(start, step, dtype=torch.uint8), bins)
