"""The typed configuration of every training command; the recipes are YAML files of these fields."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import torch

from cdkd_ext.data.camera_faults import check_strength
from cdkd_ext.data.config import DataConfig
from cdkd_ext.distillation import (
    CCA,
    ETHT,
    AdversarialScalar,
    DescribedNetwork,
    FeatureAlignment,
    FullyConnectedClasses,
    FullyConnectedFeatures,
    StridedConvolution,
    TeacherSpec,
)
from cdkd_ext.distillation.loss import default_alpha, default_beta
from cdkd_ext.errors import check, check_option, fail
from cdkd_ext.methods import LabelLoss, LabelLossOptions, Teaching
from cdkd_ext.models import ModelOptions, list_models
from cdkd_ext.resampling import RESAMPLINGS
from cdkd_ext.teachers import TeacherFile, TeacherOptions
from cdkd_ext.teachers.frozen import PRECISIONS as TEACHER_PRECISIONS
from cdkd_ext.training.pair import (
    aligns,
    can_be_aligned,
    cca_between,
    channels_agree,
    sape_between,
    spec_of,
    teaching_between,
    what_without_classes,
)
from cdkd_ext.training.task import DistillationTask

PRECISIONS = ("no", "bf16", "fp16")
# as many as NumPy's generators take
_SEEDS = 2**32


@dataclass(frozen=True, kw_only=True)
class ModelConfig(ModelOptions):
    """The network that is trained.

    Args:
        weights: a checkpoint to start from, of this package or another; None starts from random weights.
        backbone_only: take the backbone alone from `weights`, such as ImageNet's, and leave the head fresh.
    """

    name: str = "hrnet_w16_small"
    input_size: tuple[int, int] = (32, 32)
    split_ratio: float = 2.0
    weights: str | None = None
    backbone_only: bool = False


@dataclass
class LabelLossConfig(LabelLossOptions):
    """The loss from labels."""

    def build(self, student: DescribedNetwork) -> LabelLoss:
        """The loss of the student's method.

        Raises:
            InputError: an option is unknown or out of range.
        """
        return student.spec.method.label_loss(student, self)


class Grouped(Protocol):
    """What learns, such as a `DistillationTask`."""

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Its parameters, by whether they decay."""
        ...


@dataclass
class OptimizerConfig:
    """The optimiser and its learning-rate schedule.

    Args:
        name: "adamw" or "adam".
        learning_rate: the highest rate.
        weight_decay: on matrices and kernels, not on biases and norms.
        schedule: "cosine" to zero, "step" at the milestones, or "constant".
        milestones: epochs after which "step" multiplies the rate by `milestone_factor`.
        milestone_factor: in (0, 1], a tenth unless said otherwise.
        warmup: epochs of linear warm-up.
        clip: largest gradient norm; 0 does not clip.
    """

    name: Literal["adamw", "adam"] = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    milestones: list[int] = field(default_factory=list)
    milestone_factor: float = 0.1
    warmup: float = 0.5
    clip: float = 0.0

    def build(self, task: Grouped) -> torch.optim.Optimizer:
        """The optimiser of everything that learns but for what is learnt against the loss."""
        kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[self.name]
        return kind(task.parameter_groups(self.weight_decay), self.learning_rate, fused=True)

    def validate(self) -> None:
        """Check the numbers; `optimizer` is what they are called in the YAML and on the command line.

        Raises:
            InputError: names the field.
        """
        check(self.learning_rate > 0, "optimizer.learning_rate", self.learning_rate, "a positive number")
        for name in ("weight_decay", "warmup", "clip"):
            value = getattr(self, name)
            check(value >= 0, f"optimizer.{name}", value, "zero or more")
        factor = self.milestone_factor
        check(0 < factor <= 1, "optimizer.milestone_factor", factor, "a number in (0, 1]")
        for epoch in self.milestones:
            check(epoch > 0, "optimizer.milestones", epoch, "positive numbers of epochs")
        check_option("optimizer.name", self.name, ("adamw", "adam"))
        check_option("optimizer.schedule", self.schedule, ("cosine", "step", "constant"))


@dataclass
class TrainingConfig:
    """One training run: a teacher, or a student that learns from labels alone.

    Args:
        output: folder of the run: configuration, checkpoints, metrics, TensorBoard events.
        model: the network.
        data: images and annotations.
        label_loss: the loss from labels.
        optimizer: optimiser and schedule.
        epochs: passes over the training people.
        batch_size: people per step and process.
        evaluate_every: epochs between validations; the last epoch is always validated.
        checkpoint_every: steps between checkpoints within an epoch, from which a killed run goes on; 0 keeps one at
            the end of each epoch alone.
        flip_test: average the predictions for the image and its mirror image in validation.
        simcc_score: of the two axes' maxima in validation; it matters to AP alone. The published code takes "max" for
            hard labels, "min" for Gaussian ones.
        seed: of initialisation, order and augmentation.
        ema_decay: follow the weights, and the statistics of batch norms, with an exponential moving average that keeps this
            share in every step (such as 0.999), and measure and save the average in place of the last weights; 0 is off.
        precision: "no" (float32), "bf16" or "fp16" mixed precision.
        tf32: on a GPU, multiply float32 with ten bits of mantissa, in convolutions and in matrix products: several times
            as fast. Set while the command runs; without it neither uses TF32, whatever torch's defaults are.
        cuda_graphs: on a single GPU, replay forward and backward of a step from a CUDA graph: the host launches one
            graph instead of thousands of kernels. It keeps the memory of one step. For SimCC and heatmaps; not with fp16, whose
            loss scale moves.
        cpu: stay on the CPU where there is a GPU.
    """

    command: ClassVar[str] = "train"

    output: str = "runs/train"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    label_loss: LabelLossConfig = field(default_factory=LabelLossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    epochs: int = 30
    batch_size: int = 32
    evaluate_every: int = 1
    checkpoint_every: int = 0
    flip_test: bool = True
    simcc_score: Literal["min", "max", "mean"] = "min"
    seed: int = 0
    ema_decay: float = 0.0
    precision: Literal["no", "bf16", "fp16"] = "no"
    tf32: bool = True
    cuda_graphs: bool = True
    cpu: bool = False

    def validate(self) -> None:
        """Check the numbers that no other constructor checks.

        Raises:
            InputError: names the field as it is written in the YAML and on the command line.
        """
        for name in ("epochs", "batch_size", "evaluate_every"):
            check(getattr(self, name) > 0, name, getattr(self, name), "a positive number")
        check_seeds("seed", (self.seed,))
        check(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "a number in [0, 1)")
        check(self.checkpoint_every >= 0, "checkpoint_every", self.checkpoint_every, "zero or more")
        # before people are drawn for it
        check_option("model.name", self.model.name, list_models())
        people = self.data.synthetic_people
        check(people > 0, "data.synthetic_people", people, "a positive number")
        for name in ("views", "workers"):
            value = getattr(self.data, name)
            check(value >= 0, f"data.{name}", value, "zero or more")
        check_option("data.teacher_cache", self.data.teacher_cache, ("dense", "compact"))
        check_option("data.view_images", self.data.view_images, ("raw", "jpeg"))
        for name, plain in (("teacher_cache", "dense"), ("view_images", "raw")):
            value = getattr(self.data, name)
            alone = value != plain and self.data.views == 0
            check(
                not alone, f"data.{name}", f"{value} without data.views", f"{plain}, or fixed views to store"
            )
        smoothing = self.label_loss.label_smoothing
        smoothed = self.model.head == "simcc" and self.label_loss.kind == "gaussian" and smoothing > 0
        check(
            not smoothed,
            "label_loss.label_smoothing",
            smoothing,
            "0 with Gaussian labels (label_loss.kind hard)",
        )
        share = self.data.unlabelled_share
        check(share is None or 0 <= share <= 1, "data.unlabelled_share", share, "a number in [0, 1], or None")
        if self.data.images and self.teacher_file() is None:
            fail(
                "data.images",
                "footage",
                "nothing: without a teacher nobody can learn from it (`cdkd distill`)",
            )
        alone = self.data.metric == "agreement" and self.teacher_file() is None
        check(not alone, "data.metric", "agreement without a teacher", "a metric of labels, or a teacher")
        both = self.data.stored_crops and self.data.views > 0
        check(not both, "data.stored_crops", "true beside data.views", "one of the two")
        check_strength("data.camera_faults", self.data.camera_faults)
        changed = {"camera_faults": self.data.camera_faults > 0, "photometric": self.data.photometric.active}
        for name, active in changed.items():
            both = self.data.stored_crops and active
            check(not both, "data.stored_crops", f"true beside data.{name}", "one of the two")
        alone = self.data.mirror_views and self.data.views == 0
        check(
            not alone,
            "data.mirror_views",
            "true without data.views",
            "fixed views to mirror (--data.views N)",
        )
        if self.data.resample is not None:
            check_option("data.resample", self.data.resample, RESAMPLINGS)
        self.optimizer.validate()
        warmup = self.optimizer.warmup
        check(
            warmup <= self.epochs,
            "optimizer.warmup",
            warmup,
            f"at most the {self.epochs} epochs of the training",
        )
        check_option("simcc_score", self.simcc_score, ("min", "max", "mean"))
        check_option("precision", self.precision, PRECISIONS)

    def teacher_file(self) -> TeacherFile | None:
        """The file of the network that teaches, if there is one."""
        return None

    def uses_features(self) -> bool:
        """Whether the student learns from the teacher's feature maps."""
        return False

    def uses_tokens(self) -> bool:
        """Whether the student learns from the tokens of the teacher's transformer."""
        return False

    def terms(self, student: DescribedNetwork, teacher: object) -> dict[str, Any]:
        """The options of `DistillationTask` that a teacher, which says what its outputs are, adds."""
        return {}

    def adversarial_optimizer(self, task: DistillationTask) -> torch.optim.Optimizer | None:
        """The optimiser of what is learnt against the loss, if anything is."""
        return None


@dataclass
class SAPEConfig:
    """Feature distillation (scale-adaptive projector ensemble).

    Args:
        enabled: whether the term is used; None uses it where there is no other one. On top of CCA it did not help
            on photographs beside classes, and did beside heatmaps at a small weight (the results page).
        alignment: "projectors" is SAPE, which the options below concern; "strided" and "connected" are what the paper compares
            it with, see `StridedConvolution` and `FullyConnectedFeatures`.
        weight: α in the total loss; None is 2 beside classes and 0.002 beside a student's maps.
        num_projectors: K.
        kernels: kernel sizes of the selecting unit's branches.
        use_sau: let the selecting unit weight the projectors; without it they are averaged.
        activation: after each projector; the paper prints "relu".
        center_teacher: remove the teacher feature's spatial mean per channel.
        mode: "spatial" shares a projector between channels, "flatten" does not (very large).
    """

    enabled: bool | None = None
    alignment: Literal["projectors", "strided", "connected"] = "projectors"
    weight: float | None = None
    num_projectors: int = 3
    kernels: list[int] = field(default_factory=lambda: [3, 5, 7, 7])
    use_sau: bool = True
    activation: Literal["relu", "none"] = "none"
    center_teacher: bool = True
    mode: Literal["spatial", "flatten"] = "spatial"

    def alpha(self, student: DescribedNetwork) -> float:
        """α: the weight, or what None stands for beside the student's labels."""
        return default_alpha(student.spec.method.loss) if self.weight is None else self.weight

    def used(self, *, beside: bool) -> bool:
        """Whether the term is used, beside others or alone."""
        return not beside if self.enabled is None else self.enabled

    def build(self, student: DescribedNetwork, teacher: object, *, beside: bool) -> FeatureAlignment | None:
        """The term between two networks, or None where it is not used or the teacher shows no features.

        Args:
            student: learns.
            teacher: says what its outputs are.
            beside: whether there are other terms.

        Raises:
            InputError: the channels of the last features differ, an option is out of range, or the term is asked for of a
                teacher without features.
        """
        spec = _spec(teacher)
        if not self.used(beside=beside):
            return None
        if spec.feature_channels == 0:
            expected = "false for a teacher that shows no feature maps, or a description whose outputs name a feature"
            check(not self.enabled, "sape.enabled", "true", expected)
            return None
        own, other = student.spec.feature_channels, spec.feature_channels
        check(
            channels_agree(student, spec),
            "sape.enabled",
            f"true for {own} channels of the student and {other} of the teacher",
            "as many channels of the last feature on both sides, or false",
        )
        if self.alignment != "projectors":
            alignment = {"strided": StridedConvolution, "connected": FullyConnectedFeatures}[self.alignment]
            return alignment(own, student.feature_size, spec.feature_size)
        names = ("num_projectors", "kernels", "use_sau", "activation", "center_teacher", "mode")
        return sape_between(student, spec, **{name: getattr(self, name) for name in names})


@dataclass
class CCAConfig:
    """Logit distillation (cross-class alignment).

    Args:
        enabled: whether the term is used.
        alignment: "merged" is CCA; "connected" is what the paper compares it with, see `FullyConnectedClasses`.
        weight: β in the total loss; None is 4 for classes and 1 for a student's heatmaps.
        phase: "paper" merges bins as printed, "centered" aligns the merged bins' coordinates. Those of a teacher that has
            heatmaps or is not of this package, and those that become a heatmap's cells, are always aligned.
        annotated_weights: leave out the joints of labelled people that are not annotated.
    """

    enabled: bool = True
    alignment: Literal["merged", "connected"] = "merged"
    weight: float | None = None
    phase: Literal["paper", "centered"] = "paper"
    annotated_weights: bool = False

    def build(self, student: DescribedNetwork, teacher: object) -> CCA | None:
        """The term between two networks, or None where it is not used.

        Raises:
            InputError: one of them has neither classes nor heatmaps, or an option is unknown.
        """
        if not self.enabled:
            return None
        which = "teacher" if aligns(student) else "student"
        check(
            can_be_aligned(student, _spec(teacher)),
            "cca.enabled",
            f"true for a {which} {what_without_classes(student, which)}",
            "false: CCA aligns classes and heatmaps",
        )
        if self.alignment == "connected":
            got = "connected for a student with heatmaps"
            check(not student.spec.method.has_heatmaps, "cca.alignment", got, "merged")
            bins = _spec(teacher).num_bins
            assert bins is not None
            return FullyConnectedClasses(student.spec.num_bins, bins)
        return cca_between(student, teacher, self.phase)

    def beta(self, student: DescribedNetwork) -> float:
        """β: the weight, or what None stands for beside the student's labels."""
        return default_beta(student.spec.method.loss) if self.weight is None else self.weight


@dataclass
class TeachingConfig:
    """The own distillation of the student's method: DistilPose's from a TokenPose-B of the same crops.

    Args:
        enabled: whether it is used.
    """

    enabled: bool = False

    def build(self, student: DescribedNetwork, teacher: object) -> Teaching | None:
        """The terms between two networks, or None where they are not used.

        Raises:
            InputError: the student's method has none from the teacher's.
        """
        if not self.enabled:
            return None
        found = teaching_between(student, teacher)
        method = student.spec.method.name
        got = f"true for a student of the method {method} and a teacher without what it learns from"
        check(found is not None, "teaching.enabled", got, "false, or distilpose and a teacher of tokenpose_b")
        return found


@dataclass
class TemperatureConfig:
    """The temperature of the logit distillation.

    Args:
        adversarial: learn τ against the loss (easy-to-hard training); otherwise it is fixed.
        tau: the fixed temperature.
        tau_min: lower bound of the learnt temperature.
        tau_max: upper bound of the learnt temperature.
        theta: start of the learnt parameter; τ = τ_min + (τ_max − τ_min)·sigmoid(θ).
        learning_rate: of θ's own plain gradient step.
        ramp: share of the training over which the reversal ξ rises from 0 to 1.
        detach_scale: keep the factor τ² out of θ's gradient; beside heatmaps the loss has none.
        learn_weights: learn α and β against the loss as well, between half and twice their values.
        learn_alpha: learn α so, and β only with `learn_weights`.
    """

    adversarial: bool = False
    tau: float = 1.0
    tau_min: float = 1.0
    tau_max: float = 21.0
    theta: float = 1.0
    learning_rate: float = 1e-3
    ramp: float = 1.0
    detach_scale: bool = False
    learn_weights: bool = False
    learn_alpha: bool = False

    def build(self) -> float | ETHT:
        """τ, fixed or learnt.

        Raises:
            InputError: a bound or the share of the training is out of range.
        """
        if not self.adversarial:
            return self.tau
        return ETHT(self.tau_min, self.tau_max, self.theta, ramp=self.ramp, detach_scale=self.detach_scale)

    def build_alpha(self, weight: float) -> float | AdversarialScalar:
        """α, fixed or learnt, from its value at the start.

        Raises:
            InputError: it is learnt, and 0.
        """
        return self._learnt("sape.weight", weight) if self.learn_weights or self.learn_alpha else weight

    def build_beta(self, weight: float) -> float | AdversarialScalar:
        """β, as `build_alpha`."""
        return self._learnt("cca.weight", weight) if self.learn_weights else weight

    def _learnt(self, option: str, weight: float) -> AdversarialScalar:
        check(weight > 0, option, weight, "a positive number where it is learnt (temperature)")
        return AdversarialScalar.between_half_and_twice(weight, ramp=self.ramp)

    def build_optimizer(self, task: DistillationTask) -> torch.optim.Optimizer | None:
        """Plain SGD of what is learnt against the loss: Adam would normalise the reversal's ξ away."""
        adversarial = task.adversarial_parameters()
        return torch.optim.SGD(adversarial, self.learning_rate) if adversarial else None


@dataclass
class DistillationConfig(TrainingConfig):
    """One distillation run: a training run with a teacher.

    Args:
        teacher: checkpoint of the teacher, as `cdkd train` writes it; or an ONNX file, or a YAML file that describes one.
        teacher_precision: of the teacher's backbone: "bfloat16" takes half the time on a CPU with instructions for
            it (AVX-512 BF16) and changes the outputs by about one percent; "auto" is "bfloat16" there and on a GPU
            ("float16" before compute capability 8.0), and "float32" elsewhere. Of a checkpoint of this package alone.
        teacher_options: how a teacher that is not of this package teaches.
        watched_people: at most so many people, and at most a tenth of all, are kept aside where agreement with the teacher
            chooses the best checkpoint (`data.metric`) and nobody is there to validate on.
        sape: feature distillation.
        cca: logit distillation.
        teaching: own distillation of the student's method.
        temperature: temperature of the logit distillation.
    """

    command: ClassVar[str] = "distill"

    output: str = "runs/distill"
    teacher: str = ""
    teacher_precision: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    teacher_options: TeacherOptions = field(default_factory=TeacherOptions)
    watched_people: int = 128
    sape: SAPEConfig = field(default_factory=SAPEConfig)
    cca: CCAConfig = field(default_factory=CCAConfig)
    teaching: TeachingConfig = field(default_factory=TeachingConfig)
    temperature: TemperatureConfig = field(default_factory=TemperatureConfig)

    def validate(self) -> None:
        """Check the numbers that no other constructor checks; see `TrainingConfig.validate`."""
        super().validate()
        check_option("teacher_precision", self.teacher_precision, TEACHER_PRECISIONS)
        check(self.teacher, "teacher", "nothing", "the path of a checkpoint (--teacher FILE)")
        self.teacher_options.validate()
        rate = self.temperature.learning_rate
        check(0 <= rate < math.inf, "temperature.learning_rate", rate, "a finite number of at least 0")
        check(self.watched_people > 0, "watched_people", self.watched_people, "a positive number")
        check(
            self.uses_features() or self._has_others(),
            "sape.enabled and cca.enabled",
            "both false",
            "at least one distillation term (or use `cdkd train`)",
        )

    def teacher_file(self) -> TeacherFile:
        """The file of the network that teaches."""
        return TeacherFile(self.teacher, self.teacher_precision, self.teacher_options)

    def uses_features(self) -> bool:
        """Whether the student learns from the teacher's feature maps."""
        return self.teaching.enabled or self.sape.used(beside=self._has_others())

    def uses_tokens(self) -> bool:
        """Whether the student learns from the tokens of the teacher's transformer."""
        return self.teaching.enabled

    def _has_others(self) -> bool:
        """Whether there are terms beside SAPE's."""
        return self.cca.enabled or self.teaching.enabled

    def terms(self, student: DescribedNetwork, teacher: object) -> dict[str, Any]:
        """The distillation terms between two networks, as options of `DistillationTask`."""
        return {
            "sape": self.sape.build(student, teacher, beside=self._has_others()),
            "cca": self.cca.build(student, teacher),
            "teaching": self.teaching.build(student, teacher),
            "tau": self.temperature.build(),
            "alpha": self.temperature.build_alpha(self.sape.alpha(student)),
            "beta": self.temperature.build_beta(self.cca.beta(student)),
            "annotated_weights": self.cca.annotated_weights,
        }

    def adversarial_optimizer(self, task: DistillationTask) -> torch.optim.Optimizer | None:
        """The optimiser of θ, α and β where they are learnt."""
        return self.temperature.build_optimizer(task)


def _spec(teacher: object) -> TeacherSpec:
    spec = spec_of(teacher)
    if spec is None:
        fail("teacher", type(teacher).__name__, "one that says what its outputs are: `teacher_spec`")
    return spec


def check_seeds(argument: str, seeds: Sequence[int]) -> None:
    """Check that generators take each of some seeds.

    Raises:
        InputError: names the argument.
    """
    for seed in seeds:
        check(0 <= seed < _SEEDS, argument, seed, f"an integer from 0 to {_SEEDS - 1}")
