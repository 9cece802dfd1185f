"""The total loss: labels, features and logits (CDKD, Eq. 8)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cdkd_ext.distillation.alignment import FeatureAlignment
from cdkd_ext.distillation.cca import CCA
from cdkd_ext.distillation.etht import ETHT, AdversarialScalar
from cdkd_ext.distillation.heatmap_cca import HeatmapCCA
from cdkd_ext.distillation.outputs import TeacherOutput
from cdkd_ext.errors import check, check_type
from cdkd_ext.methods import LabelLoss, Teaching
from cdkd_ext.tensor_checks import check_tensor, check_weights


class DistillationLoss(nn.Module):
    """L = L_labels + α·L_SAPE + β·L_CCA; without SAPE and CCA it is plain training.

    Everything here that learns is a submodule: keep the loss in one module beside the student, so that no
    optimiser and no wrapper misses a parameter.

    Args:
        label_loss: of the student's method, such as `SimCCLoss` or `HeatmapLoss`.
        sape: the feature term, or None: a `SAPE`, or another `FeatureAlignment`.
        cca: the logit term, or None: a `CCA`, beside heatmaps a `HeatmapCCA`.
        teaching: the own distillation of the student's method, or None.
        tau: the temperature of `cca`: fixed, or learnt against the loss.
        alpha: weight of the feature term: fixed, or learnt against the loss; None takes the `default_alpha` of the label loss.
        beta: weight of the logit term, in the same way with `default_beta`.
        annotated_weights: in the logit term, leave out the joints of labelled samples that are not annotated;
            unlabelled samples always count in full.

    Raises:
        InputError: a number is out of range, or the CCA is not one for the method.
        TypeError: an argument is of another type.

    Example:
        >>> from cdkd_ext.distillation import CCA, SAPE, DistillationLoss, SimCCLoss
        >>> loss = DistillationLoss(SimCCLoss(2.0), sape=SAPE(17, (8, 8), (64, 64)), cca=CCA())
        >>> loss.adversarial_parameters()
        []
    """

    def __init__(
        self,
        label_loss: LabelLoss,
        *,
        sape: FeatureAlignment | None = None,
        cca: CCA | None = None,
        teaching: Teaching | None = None,
        tau: float | ETHT = 1.0,
        alpha: float | AdversarialScalar | None = None,
        beta: float | AdversarialScalar | None = None,
        annotated_weights: bool = False,
    ) -> None:
        super().__init__()
        check_type("label_loss", label_loss, LabelLoss, "the loss of a method, such as a SimCCLoss")
        _check_cca(cca, label_loss)
        if not isinstance(tau, ETHT):
            check_type("tau", tau, (int, float), "a number or an ETHT")
            check(0 < tau < float("inf"), "tau", tau, "a positive temperature")
        alpha = default_alpha(label_loss) if alpha is None else alpha
        beta = default_beta(label_loss) if beta is None else beta
        for name, weight in (("alpha", alpha), ("beta", beta)):
            if not isinstance(weight, AdversarialScalar):
                check_type(name, weight, (int, float), "a number or an AdversarialScalar")
                check(0 <= weight < float("inf"), name, weight, "a finite number of at least 0")
        self.label_loss = label_loss
        self.sape = sape
        self.cca = cca
        self.teaching = teaching
        self.tau = tau
        self.alpha = alpha
        self.beta = beta
        self.annotated_weights = annotated_weights
        # what no term uses gets no gradient, which several processes would wait for
        for scalar in {alpha, beta, tau} - set(self._adversarial_scalars()):
            if isinstance(scalar, AdversarialScalar):
                scalar.requires_grad_(False)

    def adversarial_parameters(self) -> list[nn.Parameter]:
        """θ of every learnt scalar in use: they belong into plain SGD, outside the main optimiser."""
        return [scalar.theta for scalar in self._adversarial_scalars()]

    def projector_parameters(self) -> list[nn.Parameter]:
        """Parameters of the feature term, for the main optimiser."""
        return [] if self.sape is None else list(self.sape.parameters())

    def forward(
        self,
        student: Any,
        teacher: TeacherOutput | None,
        keypoints: Tensor,
        annotated: Tensor,
        labelled: Tensor,
        progress: float,
    ) -> dict[str, Tensor]:
        """Compute every term in float32 (float64 for float64 input), under mixed precision too.

        Args:
            student: the output of its network: for SAPE with a feature (B, C, h, w), for CCA with logits (B, J, N) per axis.
            teacher: the teacher's, with logits for CCA, whose joints count as its confidence says; None only if there
                is neither SAPE nor CCA.
            keypoints: (B, J, 2) x and y in pixels of the student's crop.
            annotated: (B, J), 1 for annotated joints and 0 for others.
            labelled: (B,), 0 for samples that train through the distillation terms alone.
            progress: share of the training done, in [0, 1].

        Returns:
            Scalars: "total" and the label loss by its method's name; with SAPE "sape" and "alpha"; with CCA "cca",
            "beta" and "tau"; with a teaching its terms; with anything learnt against the loss "xi".

        Raises:
            InputError: a shape does not fit, the batch is empty, or the teacher's outputs are missing.
        """
        first = student[0] if student.feature is None else student.feature
        batch = first.shape[0]
        check_tensor("keypoints", keypoints, (batch, "J", 2))
        joints = keypoints.shape[1]
        check(batch > 0, "student", "an empty batch", "at least one sample")
        check_tensor("annotated", annotated, (batch, joints))
        check_weights("labelled", labelled, (batch,))
        with torch.autocast(first.device.type, enabled=False):
            total = self.label_loss(student, keypoints, annotated * labelled[:, None], progress)
            terms = {self.label_loss.name: total}
            if teacher is None:
                without = self.sape is None and self.cca is None and self.teaching is None
                check(without, "teacher", None, "the teacher's outputs")
                return {"total": total, **terms}
            if self.sape is not None:
                feature = teacher.feature
                check(feature is not None, "teacher.feature", None, "a feature map for SAPE")
                terms["sape"] = self.sape(student.feature, feature)
                terms["alpha"] = _value(self.alpha, progress, total)
                total = total + terms["alpha"] * terms["sape"]
            if self.cca is not None:
                weights = torch.where(labelled[:, None] > 0, annotated, 1) if self.annotated_weights else None
                # a network's plain output teaches too, and has none
                confidence = getattr(teacher, "confidence", None)
                if confidence is not None:
                    check_weights("teacher.confidence", confidence, (batch, joints))
                    weights = confidence if weights is None else weights * confidence
                terms["tau"] = _value(self.tau, progress, total)
                terms["cca"] = self.cca(student, teacher, terms["tau"], weights)
                if isinstance(self.tau, ETHT) and self.cca.carries_tau_squared:
                    terms["cca"] = terms["cca"] * self.tau.scale(terms["tau"])
                terms["beta"] = _value(self.beta, progress, total)
                total = total + terms["beta"] * terms["cca"]
            if self.teaching is not None:
                # of a joint without a target the teacher knows nothing
                used = self.label_loss.used(student, keypoints, annotated)
                known = torch.where(labelled[:, None] > 0, used, 1)
                taught = self.teaching(student, teacher, known)
                terms |= taught
                total = total + torch.stack([*taught.values()]).sum()
            for scalar in self._adversarial_scalars()[:1]:
                terms["xi"] = total.new_full((), scalar.xi(progress))
            return {"total": total, **terms}

    def move_to(self, progress: float, losses: dict[str, Tensor]) -> None:
        """Turn what a pass at progress 1 gave into what it gives earlier: only ξ and what learns through it differ.

        It is for a pass that is replayed, in which a number is a constant.

        Args:
            progress: share of the training done, in [0, 1].
            losses: of the pass; "xi" is replaced, if it is there.
        """
        scalars = self._adversarial_scalars()
        for scalar in scalars:
            end = scalar.xi(1.0)
            if scalar.theta.grad is not None and end > 0:
                scalar.theta.grad.mul_(scalar.xi(progress) / end)
        if "xi" in losses:
            losses["xi"] = torch.full_like(losses["xi"], scalars[0].xi(progress))

    def _adversarial_scalars(self) -> list[AdversarialScalar]:
        used: list[object] = []
        if self.sape is not None:
            used.append(self.alpha)
        if self.cca is not None:
            used += [self.beta, self.tau]
        return [scalar for scalar in used if isinstance(scalar, AdversarialScalar)]


def default_alpha(label_loss: LabelLoss | type[LabelLoss]) -> float:
    """The weight of the feature term: 2 beside classes, as was best on photographs, and 0.002 beside maps.

    The loss of maps is a thousandth of that of classes: beside it a weight of 2 leaves them badly trained.
    """
    return 2.0 if label_loss.has_classes else 0.002


def default_beta(label_loss: LabelLoss | type[LabelLoss]) -> float:
    """The weight of the logit term that was best on photographs: 1 beside heatmaps, 4 beside classes."""
    return 1.0 if label_loss.has_heatmaps else 4.0


def _check_cca(cca: CCA | None, label_loss: LabelLoss) -> None:
    if cca is None:
        return
    expected = f"None beside {label_loss.name} labels: CCA aligns classes and heatmaps"
    check(label_loss.has_classes or label_loss.has_heatmaps, "cca", "a CCA", expected)
    maps = isinstance(cca, HeatmapCCA)
    kind = "HeatmapCCA" if label_loss.has_heatmaps else "CCA"
    check(
        maps == label_loss.has_heatmaps,
        "cca",
        f"a {type(cca).__name__}",
        f"a {kind} beside {label_loss.name} labels",
    )


def _value(scalar: float | AdversarialScalar, progress: float, like: Tensor) -> Tensor:
    # filled on the device: copying a number to a GPU would wait for it
    return scalar.value(progress) if isinstance(scalar, AdversarialScalar) else like.new_full((), scalar)
