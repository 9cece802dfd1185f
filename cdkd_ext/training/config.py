"""The typed configuration of every training command; the recipes are YAML files of these fields."""

from dataclasses import dataclass, field
from typing import Literal

from cdkd_ext.data.config import DataConfig
from cdkd_ext.errors import check, check_option
from cdkd_ext.models.spec import ModelOptions


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
class LabelConfig:
    """The loss from labels.

    Args:
        kind: "gaussian" spreads a label over `sigma` bins, "hard" puts it on one bin.
        sigma: standard deviation of the Gaussian in bins.
        label_smoothing: share of a hard label that is spread over the other bins.
        reduction: "row_mean" (per joint, summed over bins and axes), or the published "sum" and "mean" forms.
        scale: factor on the loss.
        heatmap_sigma: standard deviation of a heatmap's targets in cells, which with `scale` is all that concerns
            a heatmap head; None takes the published 2 for 64 cells, in proportion, at least 1.
    """

    kind: Literal["gaussian", "hard"] = "gaussian"
    sigma: float = 1.0
    label_smoothing: float = 0.0
    reduction: Literal["row_mean", "sum", "mean"] = "row_mean"
    scale: float = 1.0
    heatmap_sigma: float | None = None


@dataclass
class OptimizerConfig:
    """The optimiser and its learning-rate schedule.

    Args:
        name: "adamw" or "adam".
        learning_rate: the highest rate.
        weight_decay: on matrices and kernels, not on biases and norms.
        schedule: "cosine" to zero, "step" at the milestones, or "constant".
        milestones: epochs after which "step" multiplies the rate by a tenth.
        warmup: epochs of linear warm-up.
        clip: largest gradient norm; 0 does not clip.
    """

    name: Literal["adamw", "adam"] = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    milestones: list[int] = field(default_factory=list)
    warmup: float = 0.5
    clip: float = 0.0


@dataclass
class TrainingConfig:
    """One training run.

    Args:
        output: folder of the run: configuration, checkpoints, metrics, TensorBoard events.
        model: the network.
        data: pictures and annotations.
        labels: SimCC's own loss.
        optimizer: optimiser and schedule.
        epochs: passes over the training people.
        batch_size: people per step and process.
        evaluate_every: epochs between validations; the last epoch is always validated.
        flip_test: average the predictions for the picture and its mirror image in validation.
        simcc_score: of the two axes' maxima in validation; it tells in AP. The published code takes "max" for hard
            labels, "min" for Gaussian ones.
        seed: of initialisation, order and augmentation.
        precision: "no" (float32), "bf16" or "fp16" mixed precision.
        cpu: stay on the CPU where there is a GPU.
    """

    output: str = "runs/train"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    labels: LabelConfig = field(default_factory=LabelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    epochs: int = 30
    batch_size: int = 32
    evaluate_every: int = 1
    flip_test: bool = True
    simcc_score: Literal["min", "max", "mean"] = "min"
    seed: int = 0
    precision: Literal["no", "bf16", "fp16"] = "no"
    cpu: bool = False


@dataclass
class SAPEConfig:
    """Feature distillation (scale-adaptive projector ensemble).

    Args:
        enabled: whether the term is used.
        weight: α in the total loss.
        num_projectors: K.
        kernels: kernel sizes of the selecting unit's branches.
        use_sau: let the selecting unit weight the projectors; without it they are averaged.
        activation: after each projector; the paper prints "relu".
        center_teacher: remove the teacher feature's spatial mean per channel.
        mode: "spatial" shares a projector between channels, "flatten" does not (very large).
    """

    enabled: bool = True
    weight: float = 2.0
    num_projectors: int = 3
    kernels: list[int] = field(default_factory=lambda: [3, 5, 7, 7])
    use_sau: bool = True
    activation: Literal["relu", "none"] = "none"
    center_teacher: bool = True
    mode: Literal["spatial", "flatten"] = "spatial"


@dataclass
class CCAConfig:
    """Logit distillation (cross-class alignment).

    Args:
        enabled: whether the term is used.
        weight: β in the total loss.
        phase: "paper" merges bins as printed, "centered" aligns the merged bins' coordinates.
        visibility: weight labelled joints by their visibility.
    """

    enabled: bool = True
    weight: float = 4.0
    phase: Literal["paper", "centered"] = "paper"
    visibility: bool = False


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
        detach_scale: keep the factor τ² out of θ's gradient.
        learn_weights: learn α and β against the loss as well, between half and twice their values.
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


@dataclass
class DistillationConfig(TrainingConfig):
    """One distillation run: a training run with a teacher.

    Args:
        teacher: checkpoint of the teacher, as `cdkd train` writes it.
        teacher_precision: of the teacher's backbone: "bfloat16" takes half the time on a CPU with instructions for
            it (AVX-512 BF16) and changes the outputs by about one percent; "auto" is "bfloat16" there and
            "float32" elsewhere.
        sape: feature distillation.
        cca: logit distillation.
        temperature: temperature of the logit distillation.
    """

    output: str = "runs/distill"
    teacher: str = ""
    teacher_precision: Literal["float32", "bfloat16", "auto"] = "float32"
    sape: SAPEConfig = field(default_factory=SAPEConfig)
    cca: CCAConfig = field(default_factory=CCAConfig)
    temperature: TemperatureConfig = field(default_factory=TemperatureConfig)


def check_config(config: TrainingConfig) -> None:
    """Check the numbers that no other constructor checks.

    Raises:
        InputError: names the field as it is written in the YAML and on the command line.
    """
    positive = {
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "evaluate_every": config.evaluate_every,
        "data.figures": config.data.figures,
        "optimizer.learning_rate": config.optimizer.learning_rate,
    }
    for name, value in positive.items():
        check(value > 0, name, value, "a positive number")
    not_negative = {
        "data.views": config.data.views,
        "data.workers": config.data.workers,
        "optimizer.weight_decay": config.optimizer.weight_decay,
        "optimizer.warmup": config.optimizer.warmup,
        "optimizer.clip": config.optimizer.clip,
    }
    for name, value in not_negative.items():
        check(value >= 0, name, value, "zero or more")
    check_option("optimizer.schedule", config.optimizer.schedule, ("cosine", "step", "constant"))
    check_option("simcc_score", config.simcc_score, ("min", "max", "mean"))
    check_option("precision", config.precision, ("no", "bf16", "fp16"))
    if isinstance(config, DistillationConfig):
        check_option("teacher_precision", config.teacher_precision, ("auto", "float32", "bfloat16"))
        check(config.teacher, "teacher", "nothing", "the path of a checkpoint (--teacher FILE)")
        check(
            config.sape.enabled or config.cca.enabled,
            "sape.enabled and cca.enabled",
            "both false",
            "at least one distillation term (or use `cdkd train`)",
        )
