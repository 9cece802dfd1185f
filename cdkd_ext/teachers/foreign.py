"""Any pose network as a teacher: distributions over places for the student's joints, whatever its own outputs are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cdkd_ext.distillation import TeacherOutput, TeacherSpec
from cdkd_ext.errors import check
from cdkd_ext.joints import JointSet
from cdkd_ext.onnx_file import OnnxFile
from cdkd_ext.teachers.description import TeacherDescription
from cdkd_ext.teachers.distributions import gaussians
from cdkd_ext.teachers.joint_map import JointMap
from cdkd_ext.teachers.network import CalledNetwork, CropNetwork, OnnxNetwork, Outputs
from cdkd_ext.teachers.options import TeacherOptions
from cdkd_ext.teachers.readers import READERS, HeatmapReader, Readout, input_size

_GRAY = 127
_SURE = 0.65  # mean confidence from which on a crop is not turned
_SURER = 1.1  # how much surer of a turned crop a teacher has to be


class ForeignTeacher:
    """Asks a described network and says what it means: a teacher for `DistillationTask`.

    It is no module: nothing trains it, wraps it, or saves it with the student.

    Args:
        network: takes crops and returns named outputs.
        joints: the student's joints, which the network's are matched with by name; None takes the network's own.
        options: how it teaches.
        student_bins: (x, y), the student's classes: what Gaussians around keypoints are spread over, and the unit of
            their width. None takes the heatmaps' cells, and without heatmaps a bin per four pixels.

    Attributes:
        description: of the network, with what was read from it filled in.
        teacher_spec: sizes, bins and joints of its outputs.
        joint_map: where the student's joints come from.
        options: as given.

    Raises:
        InputError: the outputs are not as described, or no joint matches.
    """

    def __init__(
        self,
        network: CropNetwork,
        joints: JointSet | None = None,
        options: TeacherOptions | None = None,
        *,
        student_bins: tuple[int, int] | None = None,
    ) -> None:
        self.options = options or TeacherOptions()
        self.options.validate()
        self._network = network
        self.description = network.description
        size = input_size(self.description)
        expected = f"nothing for a network whose input is not square, {size[0]}x{size[1]}"
        check(not self.options.turns or size[0] == size[1], "teacher_options.turns", True, expected)
        height = self.options.height
        expected = f"less than the network's own {size[0]} pixels"
        check(height is None or height < size[0], "teacher_options.height", height, expected)
        probe = network(torch.full((2, 3, *size), _GRAY, dtype=torch.uint8))
        _check_rows(probe, 2)
        self._reader = READERS[self.description.kind](self.description, probe)
        own = self.description.joint_set(self._reader.count)
        self.joint_map = JointMap.by_name(own if joints is None else joints, own)
        self._permutation = torch.tensor(
            [*own.flip_permutation, *range(len(own), len(own) + self.description.ignored_joints)]
        )
        self._draws = self.options.targets == "keypoints" or self._reader.num_bins is None
        pixels = (size[1], size[0])
        cells = self._reader.num_bins or (max(pixels[0] // 4, 2), max(pixels[1] // 4, 2))
        self._student_bins = student_bins or cells
        feature = (self.description.outputs or {}).get("feature")
        channels, feature_size = (0, (0, 0)) if feature is None else self._feature_sizes(probe[feature])
        self.teacher_spec = TeacherSpec(
            input_size=size,
            num_joints=len(self.joint_map.student),
            joints=self.joint_map.student,
            num_bins=self._student_bins if self._draws else self._reader.num_bins,
            bin_origin=(0.0, 0.0) if self._draws else self._reader.bin_origin,
            feature_channels=channels,
            feature_size=feature_size,
            padding=self.description.padding,
            resample=self.description.resample,
        )

    @classmethod
    def of(
        cls,
        function: Callable[[Tensor], Any],
        description: TeacherDescription,
        joints: JointSet | None = None,
        options: TeacherOptions | None = None,
        *,
        student_bins: tuple[int, int] | None = None,
    ) -> ForeignTeacher:
        """Teach with a PyTorch module or another callable.

        Args:
            function: takes prepared crops; see `CalledNetwork`.
            description: of the function; `input_size` is needed.
            joints: see `ForeignTeacher`, as are the other arguments.
            options: how it teaches.
            student_bins: the student's classes.

        Raises:
            InputError: the outputs are not as described, or no joint matches.

        Example:
            >>> import torch
            >>> from cdkd_ext.teachers import ForeignTeacher, TeacherDescription
            >>> describe = TeacherDescription(kind="heatmap", input_size=(64, 64), values="logits", joints="coco")
            >>> teacher = ForeignTeacher.of(torch.nn.Conv2d(3, 17, 4, 4), describe)
            >>> teacher(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).logits_x.shape
            torch.Size([2, 17, 16])
        """
        return cls(CalledNetwork(function, description), joints, options, student_bins=student_bins)

    @classmethod
    def from_onnx(
        cls,
        file: OnnxFile,
        description: TeacherDescription,
        joints: JointSet | None = None,
        options: TeacherOptions | None = None,
        *,
        student_bins: tuple[int, int] | None = None,
    ) -> ForeignTeacher:
        """Teach with a graph of onnxruntime; see `of` for the arguments, and `TeacherFile` for files."""
        return cls(OnnxNetwork(file, description), joints, options, student_bins=student_bins)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> TeacherOutput:
        """Return the output for RGB crops (B, 3, H, W) uint8, in float32, for the student's joints.

        Raises:
            InputError: the crops have another size, or an output is not as described.
        """
        outputs, values = self._values(images)
        said = self._mapped_readout(self._own(self._reader.readout(values)))
        confidence = checked_confidence(said, self.teacher_spec.input_size, self.options)
        drawn = self._draws
        logits = self._gaussians(said, confidence) if drawn else self._mapped_marginals(values, said)
        feature = (self.description.outputs or {}).get("feature")
        planes = None if feature is None else self._feature(outputs[feature])
        return TeacherOutput(planes, *logits, confidence)

    @torch.no_grad()
    def predict(self, images: Tensor) -> Readout:
        """Return keypoints (B, J, 2) in pixels of the crops (B, 3, H, W) and confidences (B, J), for the student's joints.

        A joint that the teacher says nothing of is NaN, with confidence 0.
        """
        said = self._mapped_readout(self._own(self._reader.readout(self._values(images)[1])))
        unknown = torch.tensor([not sources for sources in self.joint_map.sources])
        return said._replace(
            keypoints=said.keypoints.masked_fill(unknown[:, None].to(said.keypoints.device), math.nan)
        )

    def seen(self, images: Tensor) -> Tensor:
        """Return crops (B, 3, H, W) uint8 as the network is shown them: from afar where `options.height` says so."""
        if self.options.height is None or not len(images):
            return images
        return _from_afar(images, self.options.height)

    def _values(self, images: Tensor) -> tuple[Outputs, Any]:
        size = input_size(self.description)
        expected = f"uint8 crops (B, 3, {size[0]}, {size[1]})"
        fits = images.dtype == torch.uint8 and images.dim() == 4 and tuple(images.shape[1:]) == (3, *size)
        check(fits, "teacher_images", f"{images.dtype} {tuple(images.shape)}", expected)
        images = self.seen(images)
        outputs, values = self._asked(images)
        return outputs, self._best_turned(images, values) if self.options.turns else values

    def _asked(self, images: Tensor) -> tuple[Outputs, Any]:
        """The network's outputs for crops, and what they say, perhaps averaged with the mirror images'."""
        outputs = self._network(images)
        _check_rows(outputs, len(images))
        values = self._reader.read(outputs)
        if self.options.flip:
            mirror = self._reader.read(self._network(images.flip(-1)))
            permutation = self._permutation.to(next(iter(outputs.values())).device)
            values = self._reader.averaged(values, mirror, permutation)
        return outputs, values

    def _best_turned(self, images: Tensor, values: Any) -> Any:
        """The values of each crop in that of four positions in which the teacher is surest, upright unless clearly less so."""
        surety = self._surety(values)
        unsure = torch.nonzero(surety < _SURE)[:, 0]
        if not len(unsure):
            return values
        highest = surety[unsure] * _SURER
        turned = images[unsure.to(images.device)]
        for turns in (1, 2, 3):
            turned = torch.rot90(turned, 1, (2, 3)).contiguous()
            said = self._asked(turned)[1]
            for _ in range(turns):
                said = self._reader.turned_back(said)
            surety = self._surety(said)
            better = surety > highest
            values = _with_rows(values, unsure[better], said, better)
            highest = torch.maximum(highest, surety)
        return values

    def _surety(self, values: Any) -> Tensor:
        """Mean confidence (B,) of the network's own joints."""
        return self._own(self._reader.readout(values)).confidence.mean(1)

    def _own(self, said: Readout) -> Readout:
        """Without the joints that are none of a body."""
        count = len(self.joint_map.teacher)
        return Readout(said.keypoints[:, :count], said.confidence[:, :count])

    def _mapped_readout(self, said: Readout) -> Readout:
        if self.joint_map.is_identity:
            return said
        first, second, weight = self._source_indices(said.confidence.device)
        keypoints = (said.keypoints[:, first] + said.keypoints[:, second]) / 2
        # two are as sure as the less sure of them
        confidence = torch.minimum(said.confidence[:, first], said.confidence[:, second]) * weight
        return Readout(keypoints, confidence)

    @property
    def draws(self) -> bool:
        """Whether all targets are Gaussians in the student's own classes."""
        return self._draws

    @property
    def drawn_for(self) -> tuple[int, int] | None:
        """The student's classes (x, y) that Gaussians are as wide as; None where none are drawn."""
        return self._student_bins if self._draws or not self.joint_map.is_identity else None

    def _source_indices(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """First and last source of each joint, and 0 where there is none."""
        sources = self.joint_map.sources
        first = torch.tensor([known[0] if known else 0 for known in sources], device=device)
        second = torch.tensor([known[-1] if known else 0 for known in sources], device=device)
        return first, second, torch.tensor([float(bool(known)) for known in sources], device=device)

    def _gaussians(self, said: Readout, confidence: Tensor) -> tuple[Tensor, Tensor]:
        return drawn_gaussians(said, confidence, self.teacher_spec, self._student_bins, self.options)

    def _mapped_marginals(self, values: Any, said: Readout) -> tuple[Tensor, Tensor]:
        """The network's own distributions; of the middle of two joints a Gaussian around it."""
        cut = None if self.options.cut < 0 else self.options.cut
        x, y = self._reader.marginals(values, cut=cut, sharpen=self.options.sharpen)
        if self.joint_map.is_identity:
            return x, y
        first, second, weight = self._source_indices(x.device)
        alone = ((first == second) & (weight > 0))[:, None]
        drawn = self._gaussians(said, said.confidence)
        return torch.where(alone, x[:, first], drawn[0]), torch.where(alone, y[:, first], drawn[1])

    def _feature(self, tensor: Tensor) -> Tensor:
        return tensor.float().permute(0, 3, 1, 2).contiguous() if self._is_nhwc(tensor) else tensor.float()

    def _feature_sizes(self, tensor: Tensor) -> tuple[int, tuple[int, int]]:
        _, channels, height, width = self._feature(tensor).shape
        return channels, (height, width)

    def _is_nhwc(self, tensor: Tensor) -> bool:
        # features lie as the heatmaps beside them do
        beside = self._reader.layout if isinstance(self._reader, HeatmapReader) else None
        return (self.description.output_layout or beside or self.description.layout) == "NHWC"


def checked_confidence(said: Readout, size: tuple[int, int], options: TeacherOptions) -> Tensor:
    """0 for joints that a teacher is not sure enough of, and for those that it sees outside of its (height, width) crop."""
    height, width = size
    x, y = said.keypoints.unbind(-1)
    inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
    return torch.where(inside, counted_confidence(said.confidence, options), 0.0)


def counted_confidence(confidence: Tensor, options: TeacherOptions) -> Tensor:
    """What joints count by a teacher's confidences and the options: 0 where it is not sure enough."""
    used = (confidence >= options.min_confidence) & (confidence > 0)
    return torch.where(used, confidence if options.confidence else 1.0, 0.0)


def drawn_gaussians(
    said: Readout,
    confidence: Tensor,
    spec: TeacherSpec,
    student_bins: tuple[int, int],
    options: TeacherOptions,
) -> tuple[Tensor, Tensor]:
    """Return the logarithms of Gaussians around keypoints, along x and y, over the bins of a teacher's outputs.

    Args:
        said: keypoints in pixels of the teacher's crop, and the confidences that widen the Gaussians.
        confidence: (B, J); uniform where it is 0.
        spec: with `num_bins`.
        student_bins: (x, y), the unit of their width.
        options: `sigma`, and with the targets "marginals" `widen`.
    """
    assert spec.num_bins is not None
    sigma = torch.full_like(said.confidence, options.sigma)
    if options.targets == "marginals":
        sigma = sigma * (1 + options.widen * (1 - said.confidence.clamp(0, 1)))
    axes = []
    for axis, (bins, own) in enumerate(zip(spec.num_bins, student_bins, strict=True)):
        pixels_per_bin = spec.input_size[1 - axis] / bins
        center = (said.keypoints[..., axis] - spec.bin_origin[axis]) / pixels_per_bin
        known = confidence > 0
        drawn = gaussians(torch.where(known, center, 0.0), sigma * bins / own, bins)
        axes.append(torch.where(known[..., None], drawn, -math.log(bins)))
    return axes[0], axes[1]


def _from_afar(images: Tensor, height: int) -> Tensor:
    """Crops (B, 3, H, W) uint8 as they are seen with few pixels."""
    # OpenCV, which nothing else here needs
    from cdkd_ext.data.far_crops import crop_from_afar

    whole = np.eye(2, 3)
    crops = images.permute(0, 2, 3, 1).cpu().numpy()
    seen = [crop_from_afar(np.ascontiguousarray(crop), whole, crop.shape[:2], height) for crop in crops]
    return torch.from_numpy(np.stack(seen)).permute(0, 3, 1, 2).contiguous().to(images.device)


def _with_rows(values: Any, rows: Tensor, others: Any, chosen: Tensor) -> Any:
    """Values with the given rows replaced by those that are chosen of others."""
    pairs = zip(values, others, strict=True)
    return type(values)(
        *(None if own is None else own.index_copy(0, rows, other[chosen]) for own, other in pairs)
    )


def _check_rows(outputs: Outputs, rows: int) -> None:
    for name, tensor in outputs.items():
        fits = tensor.dim() > 0 and len(tensor) == rows
        check(fits, f"output {name}", tuple(tensor.shape), f"a row for each of the {rows} crops")
