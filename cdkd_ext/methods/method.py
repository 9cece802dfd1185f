"""The contract of a method: how a network represents keypoints, from its last layers to the loss from labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor, nn

from cdkd_ext.methods.codec import Codec, CodecOptions

Trunk = Literal["map", "two_maps", "pyramid", "stem"]
Counter = Literal["hrnet", "thop", "mmcv"]


class MethodOptions(CodecOptions, Protocol):
    """What a method builds its layers from; `models.ModelSpec` is one."""

    @property
    def name(self) -> str:
        """The network."""
        ...

    @property
    def num_joints(self) -> int:
        """J."""
        ...

    @property
    def channels_per_joint(self) -> int:
        """Feature maps that a joint's SimCC classes are read from."""
        ...

    @property
    def num_bins(self) -> tuple[int, int]:
        """Bins of the SimCC axes (x, y)."""
        ...

    @property
    def own_stem_stride(self) -> int:
        """By which a network's first layers divide the resolution."""
        ...

    @property
    def depth(self) -> int | None:
        """Layers of a transformer; None is the method's own."""
        ...

    @property
    def heads(self) -> int | None:
        """Attention heads of a transformer; None is the method's own."""
        ...

    @property
    def patch(self) -> int | None:
        """Side of a visual token's patch in cells; None is the method's own."""
        ...


@dataclass
class LabelLossOptions:
    """What a user chooses about the loss from labels; a method looks at those that concern it.

    Args:
        kind: SimCC: "gaussian" spreads a label over `sigma` bins, "hard" puts it on one bin.
        sigma: SimCC: standard deviation of the Gaussian in bins.
        label_smoothing: SimCC: share of a hard label that is spread over the other bins.
        reduction: SimCC: "row_mean" (per joint, summed over bins and axes), or the published "sum" and "mean" forms.
        scale: factor on the loss, whatever the method.
        heatmap_sigma: methods with heatmaps: standard deviation of the targets in cells; None takes the published one,
            for the heads "heatmap" 2 for 64 cells, in proportion, at least 1.
        offset_weight: CAL: factor on the offsets' part of the loss.
        confidence_mask: CAL: weigh the cells around a joint by where the predictions of the batch fall; else all within
            four cells count alike.
        stage: PCT: what is trained, the tokenizer, then the classifier in a run of its own; "both" in one run, the
            tokenizer for the first half.
        frozen_backbone: PCT: leave the backbone, which guides the tokenizer, as its weights are.
    """

    kind: Literal["gaussian", "hard"] = "gaussian"
    sigma: float = 1.0
    label_smoothing: float = 0.0
    reduction: Literal["row_mean", "sum", "mean"] = "row_mean"
    scale: float = 1.0
    heatmap_sigma: float | None = None
    offset_weight: float = 0.7
    confidence_mask: bool = True
    stage: Literal["both", "tokenizer", "classifier"] = "both"
    frozen_backbone: bool = True


class LabelLoss(nn.Module, ABC):
    """The loss of a method from labels.

    Attributes:
        name: the method's; the loss's name among the terms of a training.
        has_classes: whether the student's output has class distributions, which CCA aligns.
        has_heatmaps: whether its `feature` is a heatmap per joint, which `HeatmapCCA` aligns.
        replayable: whether a step can be replayed from a CUDA graph: the loss is the same at any progress, and asks a GPU for
            no value.
    """

    name: ClassVar[str]
    has_classes: ClassVar[bool] = False
    has_heatmaps: ClassVar[bool] = False
    replayable: ClassVar[bool] = False

    @abstractmethod
    def forward(self, student: Any, keypoints: Tensor, weights: Tensor, progress: float = 0.0) -> Tensor:
        """Reduced loss, a scalar.

        Args:
            student: the network's output.
            keypoints: (B, J, 2) x and y in pixels of the student's crop; anything where the weight is 0.
            weights: (B, J) factors, 0 for joints without a label.
            progress: share of the training done, in [0, 1]; for losses that change on the way.
        """

    def used(self, student: Any, keypoints: Tensor, weights: Tensor) -> Tensor:
        """The weights (B, J) of joints that have a target, 0 of others; see `forward` for the arguments."""
        return weights

    def check_student(self, spec: MethodOptions) -> None:  # most losses fit every size
        """Fail unless the loss is one for the sizes of a described network.

        Raises:
            InputError: names the option that differs.
        """


class Teaching(nn.Module, ABC):
    """A method's own distillation, from a teacher of a method that fits."""

    @abstractmethod
    def forward(self, student: Any, teacher: Any, weights: Tensor) -> dict[str, Tensor]:
        """Named terms of the loss, scalars, each with its factor.

        Args:
            student: the network's output.
            teacher: a `distillation.TeacherOutput`; gets no gradient.
            weights: (B, J) factors, 0 for joints that the teacher does not teach.
        """

    def check_pair(
        self, student: MethodOptions, teacher: MethodOptions
    ) -> None:  # most need no more than their shapes
        """Fail unless it is for a student and a teacher of these descriptions.

        Raises:
            InputError: names what differs.
        """


class Method(ABC):
    """A way to represent keypoints: layers behind a backbone, their output, its codec and its loss from labels.

    A method is one file with a subclass and a line in `METHODS`; docs/adding-a-method.md leads through one. Methods are
    stateless: a network's description says everything.

    Attributes:
        name: unique; the name of the loss from labels as well.
        head: value of the option `head` that asks for the method.
        networks: names of networks that always have this method where the option is `head`; without any, every backbone
            that gives the maps in question can have it.
        trunk: what `read` takes of the backbone: "map", the last map (B, C, h, w) alone; "two_maps", a pair of those from
            two independent last stages; "pyramid", the maps of all resolutions, highest first; "stem", the map of networks
            that have nothing but a stem in front of the method's layers.
        takes_low_resolution: whether it reads maps of a 32nd of the crop's resolution, without cells to point at.
        options: those of `models.ModelOptions` that concern only some methods, and this one.
        loss: the class of the loss from labels.
        codec_type: the class of the codec.
        has_classes: whether the output has `logits_x` and `logits_y`, class distributions that CCA aligns.
        has_heatmaps: whether the output's `feature` is a heatmap per joint, which `HeatmapCCA` aligns with distributions.
        unbiased_crop: whether the centres of a crop's corner pixels lie on the edges of its region (UDP), so that a
            region of width b has pixels b / (n - 1) apart; else they are b / n apart, as HRNet's.
        backbone_prefix: what stands before the names of the backbone's tensors in the method's published files.
        head_prefix: the same for the tensors of `layers`.
        unused_parts: what the names of tensors in the method's published files begin with that serve its training alone.
        backbone_parts: names of `layers` that are parts of published backbones.
        published: networks whose size and cost the literature tells; `cdkd models` lists them.
        counter: whose count of operations the "GFLOPs" of those are.
        counts_backbone: whether they are of the backbone alone.
    """

    name: ClassVar[str]
    head: ClassVar[str]
    networks: ClassVar[tuple[str, ...]] = ()
    trunk: ClassVar[Trunk] = "map"
    takes_low_resolution: ClassVar[bool] = False
    options: ClassVar[frozenset[str]] = frozenset()
    loss: ClassVar[type[LabelLoss]]
    codec_type: ClassVar[type[Codec]]
    has_classes: ClassVar[bool] = False
    has_heatmaps: ClassVar[bool] = False
    unbiased_crop: ClassVar[bool] = False
    backbone_prefix: ClassVar[str] = ""
    head_prefix: ClassVar[str] = ""
    unused_parts: ClassVar[tuple[str, ...]] = ()
    backbone_parts: ClassVar[tuple[str, ...]] = ()
    published: ClassVar[tuple[str, ...]] = ()
    counter: ClassVar[Counter] = "hrnet"
    counts_backbone: ClassVar[bool] = False

    def check(self, spec: MethodOptions) -> None:  # noqa: B027  # most methods take every size
        """Fail unless the method can be had with this description.

        Raises:
            InputError: names the option, and says why.
        """

    def feature_channels(self, spec: MethodOptions) -> int:
        """C of the output's `feature` (B, C, h, w), which SAPE compares; 0 of an output without one."""
        return 0

    def places(self, spec: MethodOptions) -> tuple[int, int] | None:
        """Classes, or cells of a heatmap, along x and y, that a teacher's distributions are drawn for; None without them."""
        return None

    @abstractmethod
    def layers(
        self, spec: MethodOptions, channels: tuple[int, ...], size: tuple[int, int]
    ) -> dict[str, nn.Module]:
        """The layers behind a backbone by the name that each has in the network.

        Args:
            spec: the network's description.
            channels: of the backbone's maps.
            size: (h, w) of the first of them.
        """

    def initialize(self, layers: dict[str, nn.Module]) -> None:  # noqa: B027  # most keep what all networks have
        """Draw the fresh weights of `layers` that differ from what `blocks.initialize` and torch draw."""

    @abstractmethod
    def read(self, network: Any, features: Any) -> Any:
        """What the network says: a named tuple with a property or field `feature`, see `feature_channels`.

        Args:
            network: with the `layers` as attributes.
            features: what the backbone computed: a tensor, or a tuple of them, as `trunk` says.
        """

    def teaching(self, spec: MethodOptions, teacher: MethodOptions) -> Teaching | None:
        """The method's own distillation from a described network; None where it has none from that network's method.

        Raises:
            InputError: the method of the teacher is right, and something else is not.
        """
        return None

    @abstractmethod
    def codec(self, spec: CodecOptions, *, simcc_score: str = "min") -> Codec:
        """The codec of a described network; `simcc_score` matters to SimCC alone."""

    @abstractmethod
    def label_loss(self, network: Any, options: LabelLossOptions) -> LabelLoss:
        """The loss from labels of a network.

        Args:
            network: a `models.PoseNetwork`, or for most methods anything with its `spec`.
            options: what the user chose.

        Raises:
            InputError: an option is unknown or out of range.
        """
