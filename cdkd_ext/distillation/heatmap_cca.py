"""CCA for students with heatmaps: a teacher's distributions along the axes, merged to the cells, as a target map."""

from __future__ import annotations

import torch
from torch import Tensor

from cdkd_ext.distillation.cca import CCA
from cdkd_ext.distillation.outputs import TeacherOutput
from cdkd_ext.errors import check
from cdkd_ext.methods.heatmap import HeatmapOutput
from cdkd_ext.ops.reference import merge_matrix
from cdkd_ext.tensor_checks import check_tensor, check_weights


class HeatmapCCA(CCA):
    """Half the mean squared difference of the student's heatmaps from maps made of the teacher's distributions.

    The teacher's classes along each axis are merged to the map's columns and rows as `CCA` merges them to a student's
    classes (CDKD, Eq. 6). Their product, scaled to a height of 1, is what the maps are trained towards, as they are
    towards Gaussians of height 1 around labels (`HeatmapLoss`): the weight, the teacher's confidence, multiplies the
    difference before it is squared, and the mean is over all samples, joints and cells.

    Args:
        phase: see `CCA`. Cells are coarse, and "paper" moves what is merged by up to half of one.
        offset: see `CCA`; `TeacherSpec.offset` gives the exact one for a map's cells (w, h).

    Raises:
        InputError: as of `CCA`.

    Example:
        >>> import torch
        >>> from cdkd_ext.codecs import HeatmapOutput
        >>> from cdkd_ext.distillation import HeatmapCCA, TeacherOutput
        >>> student = HeatmapOutput(torch.randn(2, 17, 16, 16))
        >>> teacher = TeacherOutput(None, torch.randn(2, 17, 64), torch.randn(2, 17, 64))
        >>> HeatmapCCA("centered")(student, teacher, tau=1.0).shape
        torch.Size([])
    """

    carries_tau_squared = False

    def __init__(self, phase: str = "paper", *, offset: float | tuple[float, float] | None = None) -> None:
        super().__init__(phase, offset=offset)
        self._merges: dict[object, Tensor] = {}

    def forward(  # type: ignore[override]  # a student of another kind
        self,
        student: HeatmapOutput,
        teacher: TeacherOutput,
        tau: float | Tensor,
        weights: Tensor | None = None,
        *,
        probabilities: bool = False,
    ) -> Tensor:
        """Mean over samples, joints and cells: a scalar, float32 at least.

        Args:
            student: its feature (B, J, h, w) is the heatmaps.
            teacher: logits (B, J, N_t) per axis; gets no gradient.
            tau: temperature of the teacher's distributions: they are raised to the power 1/τ.
            weights: (B, J) factors on the difference, or None for ones. What has a weight of 0 counts nothing, whatever the
                teacher's row holds.
            probabilities: the teacher's logits are probabilities instead, which need not sum to one.

        Raises:
            InputError: a shape does not fit, or the teacher has no distributions.
        """
        maps = student.feature
        check_tensor("student.feature", maps, ("B", "J", "h", "w"))
        batch, joints, height, width = maps.shape
        dtype = torch.promote_types(maps.dtype, torch.float32)
        if weights is not None:
            check_weights("weights", weights, (batch, joints))
        sides = []
        offsets = self.offset or (None, None)
        for axis, cells, offset in zip(("logits_x", "logits_y"), (width, height), offsets, strict=True):
            logits = getattr(teacher, axis)
            check(logits is not None, f"teacher.{axis}", None, "distributions, which are merged to cells")
            check_tensor(f"teacher.{axis}", logits, (batch, joints, "N"))
            logits = logits.detach().to(dtype)
            if weights is not None:
                logits = torch.where(weights[..., None] > 0, logits, 1)
            logits = logits.log() if probabilities else logits
            # a class without probability has none at any temperature: the derivative of -inf / τ would be NaN
            nothing = logits == -torch.inf
            shares = (logits.masked_fill(nothing, 0) / tau).masked_fill(nothing, -torch.inf).softmax(-1)
            merged = shares @ self._merge(logits, cells, offset)
            sides.append(merged / merged.amax(-1, keepdim=True))
        difference = maps.to(dtype) - sides[1][..., :, None] * sides[0][..., None, :]
        if weights is not None:
            difference = difference * weights.to(dtype)[..., None, None]
        return 0.5 * difference.square().mean()

    def _merge(self, like: Tensor, cells: int, offset: float | None) -> Tensor:
        """(N_t, cells), copied to a device once."""
        key = (like.shape[-1], cells, offset, like.device, like.dtype)
        if key not in self._merges:
            # one made while nothing is to be differentiated serves later calls, too
            with torch.inference_mode(False):
                self._merges[key] = merge_matrix(like.shape[-1], cells, self.phase, offset).to(like)
        return self._merges[key]
