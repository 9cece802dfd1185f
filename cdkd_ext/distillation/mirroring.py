"""A teacher's output for a crop, turned into the one for the crop's mirror image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cdkd_ext.distillation.outputs import TeacherOutput, TeacherSpec
from cdkd_ext.errors import fail


def mirror_shift(spec: TeacherSpec, width: int, bins: int) -> float:
    """By how many bins the reversed bins of a teacher move where a student's crop is mirrored.

    The student's pixel x becomes W - 1 - x. The teacher's crop of r times the width shows what lies at its pixel p at
    p / r of the student's, so that p becomes W_t - r - p, and not W_t - 1 - p: the axes of the two mirrors lie (r - 1)/2
    pixels apart. With bins of d pixels and bin 0 at pixel o, bin i becomes N - c - i with c = (r + 2 o) / d.

    Args:
        spec: of the teacher.
        width: W, of the student's crops in pixels.
        bins: N, along the teacher's x axis.

    Returns:
        c, not always whole.
    """
    across = spec.input_size[1]
    origin = 0.0 if spec.num_bins is None else spec.bin_origin[0]
    return (across / width + 2 * origin) * bins / across


def mirror_rows(rows: Tensor, shift: float) -> Tensor:
    """Reverse logits along x: bin i becomes bin N - shift - i.

    Between bins, probabilities are interpolated linearly, which keeps means and adds at most a quarter of a squared bin to
    variances. What lies beyond bin 0 afterwards is counted there; bins that nothing is known of get the row's least.

    Args:
        rows: (…, N) logits.
        shift: of `mirror_shift`.
    """
    whole = math.floor(shift)
    part = shift - whole
    first = _reversed(rows, whole)
    if part < 1e-6:
        return first
    second = _reversed(rows, whole + 1)
    # the logarithm of a sum: probabilities are interpolated
    return torch.logaddexp(first + math.log(1 - part), second + math.log(part))


def mirror_output(
    output: TeacherOutput, mirrored: Tensor, permutation: Sequence[int], spec: TeacherSpec, width: int
) -> TeacherOutput:
    """Return a teacher's output with some rows turned into those for the mirrored crops of a student.

    SimCC's distributions, any teacher's marginals and heatmaps of this package mirror exactly where `mirror_shift` is a
    whole number. Feature maps in front of SimCC do not: their channels are nobody's left or right. They are left out.

    Args:
        output: for B crops, in float32; see `TeacherOutput.widened`.
        mirrored: (B,) bool, which rows.
        permutation: (J,), which joint each becomes.
        spec: of the teacher.
        width: of the student's crops in pixels.

    Example:
        >>> import torch
        >>> from cdkd_ext.distillation import TeacherOutput, TeacherSpec, mirror_output
        >>> spec = TeacherSpec(input_size=(64, 64), num_joints=2, num_bins=(64, 64))
        >>> rows = torch.zeros(1, 2, 64).scatter_(-1, torch.tensor([[[10], [50]]]), 9.0)
        >>> output = TeacherOutput(None, rows, rows)
        >>> mirror_output(output, torch.tensor([True]), (1, 0), spec, 32).logits_x.argmax(-1)
        tensor([[12, 52]])
    """

    def chosen(own: Tensor | None, other: Tensor | None) -> Tensor | None:
        if own is None or other is None:
            return None
        # no index tensor, which would have to be sent to the device
        swapped = torch.stack([other[:, joint] for joint in permutation], 1)
        return torch.where(mirrored.view(-1, *[1] * (own.dim() - 1)), swapped, own)

    x, y, confidence, feature = output.logits_x, output.logits_y, output.confidence, None
    if spec.feature_mirrors and output.feature is not None:
        maps = output.feature
        shift = mirror_shift(spec, width, maps.shape[-1])
        feature = chosen(maps, _mirror_maps(maps, shift))
    return TeacherOutput(
        feature,
        chosen(x, None if x is None else mirror_rows(x, mirror_shift(spec, width, x.shape[-1]))),
        chosen(y, y),
        chosen(confidence, confidence),
    )


def check_mirrors(spec: TeacherSpec, *, features: bool) -> None:
    """Check that all that is learnt from a teacher can be mirrored.

    Args:
        spec: of the teacher.
        features: whether its feature maps are learnt from.

    Raises:
        InputError: they are, and are no heatmaps.
    """
    if features and spec.feature_channels and not spec.feature_mirrors:
        fail(
            "data.mirror_views",
            "true beside sape.enabled",
            "one of the two: feature maps that are not of joints do not mirror",
        )


def _places(bins: int, shift: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each bin the one that it was, and whether there was one."""
    was = bins - shift - torch.arange(bins, device=device)
    return was.clamp(0, bins - 1), (was >= 0) & (was < bins)


def _reversed(rows: Tensor, shift: int) -> Tensor:
    bins = rows.shape[-1]
    was, known = _places(bins, shift, rows.device)
    result = torch.where(known, rows[..., was], rows.amin(-1, keepdim=True))
    if 0 < shift <= bins:
        result[..., 0] = rows[..., bins - shift :].logsumexp(-1)
    return result


def _mirror_maps(maps: Tensor, shift: float) -> Tensor:
    """Heatmaps (…, W) reversed along x and interpolated between cells; 0 where nothing is known."""
    whole = math.floor(shift)
    result = torch.zeros_like(maps)
    for step, weight in ((whole, 1 - (shift - whole)), (whole + 1, shift - whole)):
        was, known = _places(maps.shape[-1], step, maps.device)
        result += weight * torch.where(known, maps[..., was], 0.0)
    return result
