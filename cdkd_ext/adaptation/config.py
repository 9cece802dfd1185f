"""The typed configuration of `cdkd adapt`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from cdkd_ext.adaptation.resolutions import Resolutions
from cdkd_ext.data import DataConfig
from cdkd_ext.data.camera_faults import check_strength
from cdkd_ext.errors import check, check_option
from cdkd_ext.teachers import TeacherOptions
from cdkd_ext.training import OptimizerConfig

_CHECK_EVERY = 100


@dataclass
class AdaptationConfig:
    """One adaptation: a network learns to see people from afar as a teacher sees them at full resolution.

    Args:
        output: folder of the run: configuration, adapted network, report, metrics, state.
        model: the network: an ONNX file, a YAML file that describes one, or a run or checkpoint of this package.
        preset: the description of an ONNX file by name; None recognises it by its outputs.
        input_size: height of the network's input in pixels, for ONNX files of heatmaps: a smaller one costs less, with the
            square. The network's strides have to divide it. None keeps the file's.
        size: heights of the crops to learn in pixels, such as 32 or 24-96; "full" learns at full resolution alone.
        full_share: share of the crops at full resolution, so that nothing is unlearnt.
        teacher: whose keypoints at full resolution are learnt: a file as for `model`. Empty is the network itself.
        teacher_options: how the teacher is asked: `preset`, `flip`, `turns`, `confidence`, `min_confidence`
            and `threads` count.
        data: images; annotations alone for the report's accuracy.
        optimizer: optimiser and schedule; `warmup` and `milestones` count portions of `check_every` steps.
        steps: of the training.
        batch_size: crops per step.
        check_every: steps between measurements of the agreement with the teacher on people kept aside; None takes 100, or
            all steps where they are fewer.
        patience: measurements without a better one after which the training ends; 0 goes on to the end.
        keep: which weights become the adapted network: the "best" by the agreement on people kept aside, or the "last".
        watched_people: at most so many people are kept aside, and at most a tenth of all.
        sigma: standard deviation of the Gaussians around keypoints, as a share of the crop's longer side.
        keep_outputs: weight of the term that holds other outputs than those of joints to what the unchanged network gives
            at full resolution; 0 leaves them to themselves and saves a third of the time.
        frozen: parts that do not learn: names of weights, with * for any letters.
        report_people: at most so many people are measured for the report, spread evenly.
        report_faults: strength of camera faults with which the report measures as well, 0 to 1; 0 measures without alone, and
            None takes `data.camera_faults`.
        flip_test: measure with the average over a crop and its mirror image.
        checkpoint_every: steps between checkpoints within a portion; 0 keeps one at the end of each.
        seed: of order and augmentation.
        precision: "no" (float32) or "bf16" mixed precision.
        cpu: stay on the CPU where there is a GPU.
    """

    command: ClassVar[str] = "adapt"

    output: str = "runs/adapt"
    model: str = ""
    preset: str | None = None
    input_size: int | None = None
    size: str = "32"
    full_share: float = 0.1
    teacher: str = ""
    teacher_options: TeacherOptions = field(default_factory=lambda: TeacherOptions(flip=True))
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=3e-4, weight_decay=0.0)
    )
    steps: int = 900
    batch_size: int = 16
    check_every: int | None = None
    patience: int = 4
    keep: Literal["best", "last"] = "best"
    watched_people: int = 128
    sigma: float = 0.025
    keep_outputs: float = 0.5
    frozen: list[str] = field(default_factory=list)
    report_people: int = 500
    report_faults: float | None = None
    flip_test: bool = True
    checkpoint_every: int = 0
    seed: int = 0
    precision: Literal["no", "bf16"] = "no"
    cpu: bool = False

    def __post_init__(self) -> None:
        if self.check_every is None:
            # kept in the run's folder, so that a run that is made longer keeps its portions
            self.check_every = min(_CHECK_EVERY, self.steps)

    @property
    def portion(self) -> int:
        """Steps between measurements, `check_every`."""
        assert self.check_every is not None
        return self.check_every

    @property
    def epochs(self) -> int:
        """Portions of the training, each of `check_every` steps."""
        return self.steps // self.portion

    @property
    def faults_in_report(self) -> float:
        """The strength of camera faults that the report measures as well."""
        return self.data.camera_faults if self.report_faults is None else self.report_faults

    def resolutions(self) -> Resolutions:
        """What `size` and `full_share` say."""
        return Resolutions.parse(self.size, self.full_share)

    def validate(self) -> None:
        """Check what can be checked without reading a file.

        Raises:
            InputError: names the field.
        """
        check(self.model, "model", "nothing", "an ONNX file, a YAML file that describes one, or a run")
        self.resolutions()
        for name in ("steps", "batch_size", "check_every", "watched_people", "report_people"):
            check(getattr(self, name) > 0, name, getattr(self, name), "a positive number")
        expected = f"a multiple of check_every, {self.portion}"
        check(self.steps % self.portion == 0, "steps", self.steps, expected)
        for name in ("patience", "keep_outputs", "checkpoint_every"):
            check(getattr(self, name) >= 0, name, getattr(self, name), "zero or more")
        check(
            self.input_size is None or self.input_size > 0, "input_size", self.input_size, "a positive number"
        )
        check_option("precision", self.precision, ("no", "bf16"))
        check_option("keep", self.keep, ("best", "last"))
        check_strength("report_faults", self.faults_in_report)
        self.optimizer.validate()
        self.teacher_options.validate()
        height = self.teacher_options.height
        expected = "nothing: an adaptation's teacher sees full resolution"
        check(height is None, "teacher_options.height", height, expected)
        stored = self.data.views > 0 or self.data.stored_crops
        expected = "neither: the teacher's keypoints are stored whatever the views"
        check(not stored, "data.views and data.stored_crops", "one of them", expected)
        pixels = self.data.photometric
        check(
            not pixels.active, "data.photometric", pixels, "nothing: an adaptation keeps colours as they are"
        )
        expected = "nothing: an adaptation learns from nobody's labels"
        for name in ("labelled_fraction", "unlabelled_share", "mirror_views"):
            value = getattr(self.data, name)
            check(value == getattr(DataConfig, name), f"data.{name}", value, expected)
