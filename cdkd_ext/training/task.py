"""The trainable whole: a student beside the modules that only its training needs, and the teacher it learns from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cdkd_ext.distillation import (
    CCA,
    ETHT,
    SAPE,
    AdversarialScalar,
    DescribedNetwork,
    DistillationLoss,
    FeatureAlignment,
    TeacherOutput,
    TeacherSpec,
)
from cdkd_ext.errors import check, check_type, fail
from cdkd_ext.methods import LabelLoss, LabelLossOptions, Teaching
from cdkd_ext.models import PoseNetwork, channels_last
from cdkd_ext.teachers.frozen import FrozenTeacher, Teacher
from cdkd_ext.training.pair import (
    can_be_aligned,
    cca_between,
    channels_agree,
    check_cca,
    check_label_loss,
    check_pair,
    check_sape,
    check_teaching,
    sape_between,
    spec_of,
    teaching_between,
)

Auto = Literal["auto"]


class _Asked(tuple[Teacher, ...]):
    """A teacher, or none: in a tuple one that is a module is not registered as one, and a copy of the task asks the same."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Asked:
        return self


class DistillationTask(nn.Module):
    """A student, its losses and its teacher: images and labels in, named losses out.

    All that learns is here, so that no optimiser and no wrapper can miss a parameter. The teacher is no part of the
    module: it is neither trained, nor moved, nor saved with it. Without a teacher this is plain training.

    Args:
        student: the network that is trained; its weights are laid out channels last.
        teacher: a `PoseNetwork`, which is frozen, a `FrozenTeacher` or a `ForeignTeacher`; or anything that returns a
            `TeacherOutput` for its crops, which needs `sape` and `cca` given unless it has a `teacher_spec`, or the
            attributes of a `DescribedNetwork`. None trains from labels alone, or from stored outputs with `sape` or
            `cca` given.
        label_loss: the loss from labels; None takes that of the student's method with its defaults.
        sape: the feature term, a `FeatureAlignment` or None; "auto" is SAPE with its defaults where there is no other term and
            the channels of both last feature maps agree.
        cca: the logit term, or None; "auto" is CCA where both networks have class distributions, or the student
            heatmaps and the teacher distributions.
        teaching: the own distillation of the student's method, or None; "auto" is that which the method has from the
            teacher's, if any: DistilPose's from a TokenPose-B.
        tau: the temperature of `cca`: fixed, or learnt against the loss.
        alpha: weight of the feature term: fixed, or learnt against the loss; None is 2 beside classes, 0.002 beside maps.
        beta: weight of the logit term: fixed, or learnt against the loss; None is 4 beside classes, 1 beside heatmaps.
        annotated_weights: in the logit term, leave out the joints of labelled samples that are not annotated.

    Attributes:
        student: the network that is trained.
        loss: the `DistillationLoss`, with all that its terms learn.

    Raises:
        InputError: the networks, or a term and a network, do not fit: joints, aspect ratio, bins, channels or heads.
        TypeError: an argument is of another type.

    Example:
        >>> import torch
        >>> from cdkd_ext.models import create_model
        >>> from cdkd_ext.training import DistillationTask
        >>> student, teacher = (
        ...     create_model("hrnet_w8_small", input_size=(side, side), num_joints=17) for side in (32, 64)
        ... )
        >>> task = DistillationTask(student, teacher)
        >>> optimizer = torch.optim.AdamW(task.parameters(), 1e-3)
        >>> small, large = (torch.zeros(2, 3, side, side, dtype=torch.uint8) for side in (32, 64))
        >>> losses = task(small, large, torch.rand(2, 17, 2) * 31, torch.ones(2, 17))
        >>> losses["total"].backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        student: PoseNetwork,
        teacher: PoseNetwork | Teacher | None = None,
        *,
        label_loss: LabelLoss | None = None,
        sape: FeatureAlignment | Auto | None = "auto",
        cca: CCA | Auto | None = "auto",
        teaching: Teaching | Auto | None = "auto",
        tau: float | ETHT = 1.0,
        alpha: float | AdversarialScalar | None = None,
        beta: float | AdversarialScalar | None = None,
        annotated_weights: bool = False,
    ) -> None:
        super().__init__()
        check_type("student", student, PoseNetwork, "a PoseNetwork")
        check(teacher is not student, "teacher", "the student itself", "another network, such as a copy")
        trained = any(value.requires_grad for value in student.parameters())
        check(
            trained,
            "student",
            "a network whose parameters are all frozen",
            "one to train, and not the teacher's",
        )
        described = spec_of(teacher)
        if described is not None:
            check_pair(student, described)
        label_loss = default_label_loss(student) if label_loss is None else label_loss
        check_label_loss(student, label_loss)
        if teacher is not None and described is None:
            _refuse_auto(sape=sape, cca=cca)
        cca = _default_cca(student, teacher, described) if cca == "auto" else cca
        if cca is not None:
            check_type("cca", cca, CCA, "a CCA, None or 'auto'")
            check_cca(student, described)
        teaching = teaching_between(student, teacher) if teaching == "auto" else teaching
        if teaching is not None:
            check_teaching(student, teacher, teaching)
        if sape == "auto":
            sape = _default_sape(student, described) if cca is None and teaching is None else None
        if sape is not None:
            check_type("sape", sape, FeatureAlignment, "a SAPE, None or 'auto'")
            check_sape(student, described, sape)
        if teacher is not None and teaching is None:
            got = "neither SAPE (the channels of the features differ, or sape=None) nor CCA (no classes, or cca=None)"
            check(sape is not None or cca is not None, "teacher", got, "a term that the student learns by")
        self.student = channels_last(student)
        self.loss = DistillationLoss(
            label_loss,
            sape=sape,
            cca=cca,
            teaching=teaching,
            tau=tau,
            alpha=alpha,
            beta=beta,
            annotated_weights=annotated_weights,
        )
        self._teacher = (
            _Asked() if teacher is None else _Asked([_frozen(teacher, tokens=teaching is not None)])
        )

    def forward(
        self,
        images: Tensor,
        teacher_images: Tensor | None,
        keypoints: Tensor,
        annotated: Tensor,
        *,
        labelled: Tensor | None = None,
        progress: float = 0.0,
        teacher_output: TeacherOutput | None = None,
    ) -> dict[str, Tensor]:
        """Return the named losses, scalars, "total" among them; `DistillationLoss` lists the others.

        Args:
            images: the student's crops, RGB (B, 3, h, w) uint8.
            teacher_images: the teacher's crops of the same people and regions, RGB (B, 3, H, W) uint8, on any
                device; None without a teacher or beside `teacher_output`.
            keypoints: (B, J, 2) x and y in pixels of the student's crops; anything where not annotated.
            annotated: (B, J), 1 for annotated joints and 0 for others.
            labelled: (B,), 0 for samples that train through the distillation terms alone; None for all labelled.
            progress: share of the training done, in [0, 1]; matters to what is learnt against the loss, to PCT, whose
                classifier begins at one half, and to OKDHP, whose distillation rises with it.
            teacher_output: the teacher's output for the crops, where it was computed before.

        Raises:
            InputError: a shape does not fit, or the teacher's crops are missing or too many.
        """
        output = self.student(images.contiguous(memory_format=torch.channels_last))
        taught = self._taught(teacher_images, teacher_output, images.device)
        if labelled is None:
            labelled = keypoints.new_ones(len(keypoints))
        return self.loss(output, taught, keypoints, annotated, labelled, progress)

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Parameter groups of the main optimiser: matrices and kernels decay, biases and norms do not.

        What is learnt against the loss is in neither: it belongs into plain SGD (`adversarial_parameters`).
        """
        adversarial = {id(parameter) for parameter in self.adversarial_parameters()}
        parameters = [
            value for value in self.parameters() if value.requires_grad and id(value) not in adversarial
        ]
        return [
            {"params": [value for value in parameters if value.dim() > 1], "weight_decay": weight_decay},
            {"params": [value for value in parameters if value.dim() <= 1], "weight_decay": 0.0},
        ]

    def adversarial_parameters(self) -> list[nn.Parameter]:
        """θ of every scalar that is learnt against the loss, for an optimiser of their own: SGD without momentum."""
        return self.loss.adversarial_parameters()

    def ask_teacher(self, images: Tensor) -> TeacherOutput:
        """Return the teacher's output for its crops, RGB (B, 3, H, W) uint8, for `forward` to take.

        Raises:
            InputError: there is no teacher.
            TypeError: the teacher does not return a `TeacherOutput`.
        """
        if not self._teacher:
            fail("teacher_images", "the teacher's crops", "None for a task without a teacher")
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            output = self._teacher[0](images)
        check_type("teacher", output, TeacherOutput, "a callable that returns a TeacherOutput")
        return output

    def _taught(
        self, images: Tensor | None, output: TeacherOutput | None, device: torch.device
    ) -> TeacherOutput | None:
        if images is not None:
            check(
                output is None,
                "teacher_images",
                "the teacher's crops beside teacher_output",
                "one of the two",
            )
            output = self.ask_teacher(images)
        return None if output is None else output.to(device).widened()


def default_label_loss(student: DescribedNetwork) -> LabelLoss:
    """The loss from labels for a network's method, with its defaults."""
    return student.spec.method.label_loss(student, LabelLossOptions())


def _refuse_auto(**terms: object) -> None:
    """Fail for a term that would have to be chosen for a teacher that does not say what its outputs are."""
    for name, term in terms.items():
        if term == "auto":
            expected = f"a {name.upper()}, or None"
            fail(name, "'auto' beside a teacher without spec and feature_size", expected)


def _default_sape(student: DescribedNetwork, described: TeacherSpec | None) -> SAPE | None:
    if described is None or not channels_agree(student, described):
        return None
    return sape_between(student, described)


def _default_cca(student: DescribedNetwork, teacher: object, described: TeacherSpec | None) -> CCA | None:
    if described is None or not can_be_aligned(student, described):
        return None
    return cca_between(student, teacher)


def _frozen(teacher: PoseNetwork | Teacher, *, tokens: bool) -> Teacher:
    if isinstance(teacher, PoseNetwork):
        teacher = FrozenTeacher(teacher)
    if isinstance(teacher, FrozenTeacher):
        # one that several students share gives them where one of the students needs them
        teacher.tokens = teacher.tokens or tokens
        return teacher
    expected = "a network, or a callable that returns a TeacherOutput"
    check_type("teacher", teacher, Callable, expected)  # type: ignore[arg-type]
    return teacher.eval().requires_grad_(False) if isinstance(teacher, nn.Module) else teacher
