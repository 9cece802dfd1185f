"""SimCC's own loss, from labels (Li et al., SimCC)."""

from __future__ import annotations

from torch import Tensor, nn

from cdkd_ext import ops
from cdkd_ext.codecs import SimCCCodec
from cdkd_ext.errors import check, check_option
from cdkd_ext.models import SimCCOutput
from cdkd_ext.tensor_checks import check_tensor, check_weights


class SimCCLoss(nn.Module):
    """KL divergence of the predicted bins from hard or Gaussian labels at split_ratio · coordinate.

    A joint whose label falls outside the bins of either axis has no loss, nor has one of weight 0.

    Args:
        split_ratio: bins per pixel of the student.
        kind: "gaussian" or "hard".
        sigma: standard deviation of the Gaussian in bins.
        label_smoothing: share of a hard label that is spread over the other bins, in [0, 1).
        reduction: "row_mean" sums over bins and averages over samples and joints; "sum" (published for COCO)
            sums over bins and joints and averages over samples; "mean" (published for MPII and for Gaussian
            labels) averages over bins, samples and joints. All of them add the two axes.
        scale: factor on the result; the CDKD release has 1000 on the "mean" form.

    Raises:
        InputError: a number is out of range or an option is unknown.

    Example:
        >>> import torch
        >>> from cdkd_ext.distillation import SimCCLoss
        >>> from cdkd_ext.models import SimCCOutput
        >>> student = SimCCOutput(torch.randn(2, 17, 8, 8), torch.randn(2, 17, 64), torch.randn(2, 17, 64))
        >>> SimCCLoss(2.0)(student, torch.rand(2, 17, 2) * 31, torch.ones(2, 17)).shape
        torch.Size([])
    """

    name = "simcc"

    def __init__(
        self,
        split_ratio: float,
        *,
        kind: str = "gaussian",
        sigma: float = 1.0,
        label_smoothing: float = 0.0,
        reduction: str = "row_mean",
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        check(
            0 < split_ratio < float("inf"), "split_ratio", split_ratio, "a positive number of bins per pixel"
        )
        check_option("kind", kind, ("gaussian", "hard"))
        check(0 < sigma < float("inf"), "sigma", sigma, "a positive number of bins")
        check(0 <= label_smoothing < 1, "label_smoothing", label_smoothing, "a share in [0, 1)")
        check_option("reduction", reduction, ("row_mean", "sum", "mean"))
        check(0 < scale < float("inf"), "scale", scale, "a positive number")
        self.split_ratio = float(split_ratio)
        self.kind = kind
        self.sigma = float(sigma)
        self.label_smoothing = float(label_smoothing)
        self.reduction = reduction
        self.scale = float(scale)

    def forward(self, student: SimCCOutput, keypoints: Tensor, weights: Tensor) -> Tensor:
        """Reduced loss, a scalar.

        Args:
            student: logits (B, J, N) per axis.
            keypoints: (B, J, 2) x and y in pixels of the student's crop; anything where the weight is 0.
            weights: (B, J) factors, 0 for joints without a label.

        Raises:
            InputError: a shape does not fit, or a weight is negative.
        """
        check_tensor("student.logits_x", student.logits_x, ("B", "J", "N"))
        batch, joints, _ = student.logits_x.shape
        check_tensor("student.logits_y", student.logits_y, (batch, joints, "N"))
        check_tensor("keypoints", keypoints, (batch, joints, 2))
        check_weights("weights", weights, (batch, joints))
        targets, used = SimCCCodec(self.split_ratio).targets(student, keypoints, weights)
        total = targets.new_zeros(())
        for axis, axis_logits in enumerate((student.logits_x, student.logits_y)):
            rows = ops.simcc_kl(
                axis_logits,
                targets[..., axis],
                label_smoothing=self.label_smoothing if self.kind == "hard" else 0.0,
                sigma=self.sigma if self.kind == "gaussian" else None,
            )
            total = total + self._reduce(rows * used, axis_logits.shape[-1])
        return total * self.scale

    def _reduce(self, rows: Tensor, bins: int) -> Tensor:
        if self.reduction == "sum":
            return rows.sum(1).mean()
        return rows.mean() / bins if self.reduction == "mean" else rows.mean()
