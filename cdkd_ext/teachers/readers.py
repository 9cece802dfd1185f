"""From a network's outputs, whatever their kind, to keypoints, confidences and distributions over places."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from cdkd_ext.codecs import decode_heatmaps
from cdkd_ext.distillation.marginals import cut_marginals, log_normalized, peaks
from cdkd_ext.errors import check, fail
from cdkd_ext.teachers.description import ROLES, TeacherDescription
from cdkd_ext.teachers.distributions import mirrored, resampled

_TOLERANCE = 1e-3  # of probabilities that were rounded
_NEAR = 4  # cells or bins on either side of a peak whose mass is the confidence "mass"


class Readout(NamedTuple):
    """What a teacher says about its own joints.

    Attributes:
        keypoints: (B, J, 2) x and y in pixels of the teacher's crop.
        confidence: (B, J) in [0, 1].
    """

    keypoints: Tensor
    confidence: Tensor


class Reader(ABC):
    """Reads the outputs of one kind.

    `read` checks and unifies, `averaged` joins an image's values with its mirror image's, `turned_back` takes those of a turned
    image, and the rest says what they mean.

    Attributes:
        count: joints of the network, the ignored ones included.
        num_bins: bins (x, y) of `marginals`; None of keypoints, which have none.
        bin_origin: coordinates (x, y) of bin 0 in pixels of the crop.
        names: names of the outputs that it reads, by their roles.
    """

    count: int
    names: dict[str, str]
    num_bins: tuple[int, int] | None
    bin_origin: tuple[float, float]

    @abstractmethod
    def read(self, outputs: Mapping[str, Tensor]) -> Any:
        """The values of a batch, float32, in this kind's own form.

        Raises:
            InputError: an output is missing, of another shape, not finite, or of other values than described.
        """

    @abstractmethod
    def averaged(self, values: Any, mirror: Any, permutation: Tensor) -> Any:
        """The values of an image averaged with those of its mirror image.

        Args:
            values: of `read`.
            mirror: of `read`, for the crop mirrored left to right.
            permutation: (J,) int64; mirrored, joint ``permutation[j]`` becomes joint j.
        """

    @abstractmethod
    def turned_back(self, values: Any) -> Any:
        """The values of a square crop from those of the crop turned by 90° (``torch.rot90(crops, 1, (2, 3))``)."""

    @abstractmethod
    def readout(self, values: Any) -> Readout:
        """Keypoints and confidences."""

    @abstractmethod
    def marginals(self, values: Any, *, cut: int | None, sharpen: float) -> tuple[Tensor, Tensor]:
        """The logarithms of the distributions along x (B, J, N_x) and y (B, J, N_y)."""


class HeatmapValues(NamedTuple):
    """Heatmaps (B, J, h, w) of at least 0, and perhaps shifts (B, J, 2, h, w) from a cell to the keypoint, x and y in cells."""

    maps: Tensor
    shifts: Tensor | None


class HeatmapReader(Reader):
    """Reads one map per joint, with offsets where the network has them.

    Args:
        description: with the input's size.
        probe: the network's outputs for any crop.

    Raises:
        InputError: an output is missing, or its shape is not one of heatmaps.
    """

    def __init__(self, description: TeacherDescription, probe: Mapping[str, Tensor]) -> None:
        self._description = description
        self.names = output_names(description, probe, rank=4)
        self._size = input_size(description)
        shape = tuple(probe[self.names["heatmap"]].shape)
        self.layout = description.output_layout or _map_layout(shape, description)
        _, self.count, height, width = _in_order(shape, self.layout)
        argument = f"output {self.names['heatmap']}"
        fits = height * self._size[1] == width * self._size[0]
        check(fits, argument, shape, f"maps of the aspect ratio of the {self._size} crops")
        self._cells = (width, height)
        if "offset" in self.names:
            offsets = probe[self.names["offset"]].shape
            wanted = (offsets[0], 2 * self.count, height, width)
            got = _in_order(tuple(offsets), self.layout)
            check(
                got == wanted,
                f"output {self.names['offset']}",
                tuple(offsets),
                "two offsets per joint and cell",
            )
        self.num_bins = self._cells
        strides = self._strides()
        corner = description.cells == "corner"
        self.bin_origin = (0.0, 0.0) if corner else ((strides[0] - 1) / 2, (strides[1] - 1) / 2)

    def _strides(self) -> tuple[float, float]:
        """Pixels per cell along (x, y)."""
        return self._size[1] / self._cells[0], self._size[0] / self._cells[1]

    def read(self, outputs: Mapping[str, Tensor]) -> HeatmapValues:
        """See `Reader.read`."""
        for role in ("heatmap", "offset"):
            if role in self.names:
                check_finite(outputs, self.names[role])
        maps = self.planes(outputs, "heatmap")
        values = self._description.values
        if values == "logits":
            maps = maps.sigmoid()
        elif values == "gaussians":
            maps = maps.clamp(min=0)
        else:
            _check_probabilities(f"output {self.names['heatmap']}", maps, "values: logits or gaussians")
            maps = maps.clamp(0, 1)
        if "offset" not in self.names:
            return HeatmapValues(maps, None)
        shifts = self.planes(outputs, "offset") - self._description.offset_center
        shifts = shifts.unflatten(1, (self.count, 2))
        return HeatmapValues(maps, shifts.flip(2) if self._description.offset_order == "yx" else shifts)

    def planes(self, outputs: Mapping[str, Tensor], role: str) -> Tensor:
        """The output of a role as it is, unchecked, float32 (B, C, h, w)."""
        tensor = outputs[self.names[role]].float()
        return tensor.permute(0, 3, 1, 2).contiguous() if self.layout == "NHWC" else tensor

    def averaged(self, values: HeatmapValues, mirror: HeatmapValues, permutation: Tensor) -> HeatmapValues:
        """See `Reader.averaged`."""
        total = self._last_place()
        maps = (values.maps + mirrored(mirror.maps[:, permutation], total)) / 2
        if values.shifts is None or mirror.shifts is None:
            return HeatmapValues(maps, None)
        back = mirrored(mirror.shifts[:, permutation], total)
        back = back * back.new_tensor([-1.0, 1.0])[:, None, None]
        return HeatmapValues(maps, (values.shifts + back) / 2)

    def turned_back(self, values: HeatmapValues) -> HeatmapValues:
        """See `Reader.turned_back`."""
        total = self._last_place()
        maps = mirrored(values.maps.mT, total)
        if values.shifts is None:
            return HeatmapValues(maps, None)
        return HeatmapValues(maps, _turned_back(mirrored(values.shifts.mT, total), 2))

    def _last_place(self) -> float:
        """The column, in cells, that mirroring takes cell 0 to."""
        if self._description.cells == "corner":
            return (self._size[1] - 1) / self._strides()[0]
        # of cells that reach from the first to the last pixel, the ends mirror each other as centres do
        return self._cells[0] - 1.0

    def readout(self, values: HeatmapValues) -> Readout:
        """See `Reader.readout`."""
        maps, shifts = values
        found = peaks(maps)
        if shifts is None:
            # the codec's cell i stands for pixel stride * i
            cells, _ = decode_heatmaps(maps, self._size, method=self._description.decoding)
            cells = cells / cells.new_tensor(self._strides())
        else:
            place = (found.y * self._cells[0] + found.x)[:, :, None, None].expand(-1, -1, 2, 1)
            shift = shifts.flatten(3).gather(-1, place)[..., 0]
            cells = torch.stack([found.x, found.y], -1) + shift
        return Readout(self._pixels(cells), self._confidence(maps, found.height))

    def _pixels(self, cells: Tensor) -> Tensor:
        if self._description.cells == "ends":
            spacing = [(self._size[1] - 1) / (self._cells[0] - 1), (self._size[0] - 1) / (self._cells[1] - 1)]
            return cells * cells.new_tensor(spacing)
        return cells * cells.new_tensor(self._strides()) + cells.new_tensor(self.bin_origin)

    def _confidence(self, maps: Tensor, height: Tensor) -> Tensor:
        kind = self._description.confidence
        if kind == "none":
            return (height > 0).to(maps)
        if kind == "mass":
            columns, rows = (log_normalized(maps.sum(dim)) for dim in (-2, -1))
            return mass_near_peak(columns, rows) * (height > 0)
        return height.clamp(0, 1)

    def marginals(self, values: HeatmapValues, *, cut: int | None, sharpen: float) -> tuple[Tensor, Tensor]:
        """See `Reader.marginals`."""
        maps = values.maps
        if self._description.cells == "ends":
            for dim, cells, pixels in (
                (-1, self._cells[0], self._size[1]),
                (-2, self._cells[1], self._size[0]),
            ):
                centers = (torch.arange(cells, dtype=torch.float64) + 0.5) * (pixels / cells) - 0.5
                maps = resampled(maps, centers * (cells - 1) / (pixels - 1), dim)
        return cut_marginals(maps, peaks(maps), cut=cut, sharpen=sharpen)


class SimCCValues(NamedTuple):
    """Probabilities (B, J, N_x) and (B, J, N_y), and the smaller of the two axes' highest values (B, J) before the softmax."""

    x: Tensor
    y: Tensor
    height: Tensor


class SimCCReader(Reader):
    """Reads two tensors of classes, one per axis.

    Args:
        description: with the input's size.
        probe: the network's outputs for any crop.

    Raises:
        InputError: an output is missing, or its shape is not one of classes.
    """

    def __init__(self, description: TeacherDescription, probe: Mapping[str, Tensor]) -> None:
        self._description = description
        self.names = output_names(description, probe, rank=3)
        height, width = input_size(description)
        shapes = [tuple(probe[self.names[role]].shape) for role in ("x", "y")]
        agree = shapes[0][:2] == shapes[1][:2] and shapes[0][2] * height == shapes[1][2] * width
        shown = f"outputs {self.names['x']} and {self.names['y']}"
        check(
            agree,
            shown,
            shapes,
            f"(B, J, bins), as many bins per pixel of the {(height, width)} crops on both axes",
        )
        self.count = shapes[0][1]
        self.num_bins = (shapes[0][2], shapes[1][2])
        self._width_in_pixels = width
        self._pixels_per_bin = width / shapes[0][2]
        origin = 0.0 if description.cells == "corner" else (self._pixels_per_bin - 1) / 2
        self.bin_origin = (origin, origin)

    def read(self, outputs: Mapping[str, Tensor]) -> SimCCValues:
        """See `Reader.read`."""
        axes = [finite(outputs, self.names[role]) for role in ("x", "y")]
        height = torch.minimum(axes[0].amax(-1), axes[1].amax(-1))
        x, y = (torch.softmax(axis * self._description.logit_scale, -1) for axis in axes)
        return SimCCValues(x, y, height)

    def averaged(self, values: SimCCValues, mirror: SimCCValues, permutation: Tensor) -> SimCCValues:
        """See `Reader.averaged`."""
        total = self._last_place()
        return SimCCValues(
            (values.x + mirrored(mirror.x[:, permutation], total)) / 2,
            (values.y + mirror.y[:, permutation]) / 2,
            (values.height + mirror.height[:, permutation]) / 2,
        )

    def turned_back(self, values: SimCCValues) -> SimCCValues:
        """See `Reader.turned_back`."""
        return SimCCValues(mirrored(values.y, self._last_place()), values.x, values.height)

    def _last_place(self) -> float:
        """The bin that mirroring takes bin 0 to."""
        return (self._width_in_pixels - 1 - 2 * self.bin_origin[0]) / self._pixels_per_bin

    def readout(self, values: SimCCValues) -> Readout:
        """See `Reader.readout`."""
        bins = torch.stack([values.x.argmax(-1), values.y.argmax(-1)], -1).float()
        keypoints = bins * self._pixels_per_bin + self.bin_origin[0]
        kind = self._description.confidence
        if kind == "none":
            return Readout(keypoints, torch.ones_like(values.height))
        near = values.height.clamp(0, 1) if kind == "peak" else mass_near_peak(values.x.log(), values.y.log())
        return Readout(keypoints, near)

    def marginals(self, values: SimCCValues, *, cut: int | None, sharpen: float) -> tuple[Tensor, Tensor]:
        """See `Reader.marginals`; `cut` is of cells of heatmaps alone."""
        x, y = (torch.log_softmax(sharpen * axis.log(), -1) for axis in (values.x, values.y))
        return x, y


class KeypointReader(Reader):
    """Reads coordinates, with scores where the network has them.

    Args:
        description: with the input's size.
        probe: the network's outputs for any crop.

    Raises:
        InputError: an output is missing, or has not as many values as the columns say.
    """

    num_bins = None
    bin_origin = (0.0, 0.0)

    def __init__(self, description: TeacherDescription, probe: Mapping[str, Tensor]) -> None:
        self._description = description
        self._size = input_size(description)
        self.names = output_names(description, probe, rank=None)
        name = self.names["keypoints"]
        values, columns = probe[name][0].numel(), len(description.columns)
        expected = f"{columns} values per joint ({', '.join(description.columns)})"
        check(values % columns == 0 and values > 0, f"output {name}", tuple(probe[name].shape), expected)
        self.count = values // columns
        if "scores" in self.names:
            scores = probe[self.names["scores"]]
            fits = scores[0].numel() == self.count
            check(fits, f"output {self.names['scores']}", tuple(scores.shape), f"{self.count} scores")

    def read(self, outputs: Mapping[str, Tensor]) -> Readout:
        """See `Reader.read`."""
        name = self.names["keypoints"]
        check_finite(outputs, name)
        table = self.table(outputs)
        if self._description.coordinates == "unit":
            places = [self._description.columns.index(axis) for axis in ("x", "y")]
            highest = table[..., places].abs().max()
            # far outside of the crop no network looks
            check(
                highest < 5,
                f"output {name}",
                f"coordinates to {highest:.4g}",
                "0 to 1, or `coordinates: pixels`",
            )
        return Readout(self.points(outputs), self._scores(outputs, table))

    def table(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """The values of each joint as they are, unchecked, float32 (B, J, columns)."""
        columns = len(self._description.columns)
        return outputs[self.names["keypoints"]].float().reshape(-1, self.count, columns)

    def points(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """Keypoints (B, J, 2) in pixels of the crop, unchecked."""
        table, columns = self.table(outputs), self._description.columns
        points = torch.stack([table[..., columns.index(axis)] for axis in ("x", "y")], -1)
        if self._description.coordinates == "unit":
            points = points * points.new_tensor([self._size[1], self._size[0]])
        return points - 0.5 if self._description.cells == "center" else points

    def _scores(self, outputs: Mapping[str, Tensor], table: Tensor) -> Tensor:
        columns = self._description.columns
        if self._description.confidence == "none":
            return table.new_ones(table.shape[:2])
        if "scores" in self.names:
            name = self.names["scores"]
            scores = finite(outputs, name).reshape(-1, self.count)
        elif "score" in columns:
            name = self.names["keypoints"]
            scores = table[..., columns.index("score")]
        else:
            return table.new_ones(table.shape[:2])
        if self._description.score_values == "logits":
            return scores.sigmoid()
        _check_probabilities(f"scores of output {name}", scores, "`score_values: logits`")
        return scores.clamp(0, 1)

    def averaged(self, values: Readout, mirror: Readout, permutation: Tensor) -> Readout:
        """See `Reader.averaged`; the surer of the two counts for more."""
        points, weights = mirror.keypoints[:, permutation], mirror.confidence[:, permutation]
        points = points * points.new_tensor([-1.0, 1.0]) + points.new_tensor([self._size[1] - 1.0, 0.0])
        total = values.confidence + weights
        share = torch.where(total > 0, weights / total.clamp(min=1e-9), 0.5)[..., None]
        return Readout(values.keypoints + (points - values.keypoints) * share, total / 2)

    def turned_back(self, values: Readout) -> Readout:
        """See `Reader.turned_back`."""
        points = _turned_back(values.keypoints, -1)
        last_pixel = points.new_tensor([self._size[1] - 1.0, 0.0])
        return Readout(points + last_pixel, values.confidence)

    def readout(self, values: Readout) -> Readout:
        """See `Reader.readout`."""
        return values

    def marginals(self, values: Readout, *, cut: int | None, sharpen: float) -> tuple[Tensor, Tensor]:
        """Keypoints have none."""
        fail("targets", "marginals of a network of keypoints", "keypoints")


def _turned_back(vectors: Tensor, dim: int) -> Tensor:
    """Vectors (x, y) along an axis, in an image turned by 90°, as they are in the image: (-y, x)."""
    x, y = vectors.unbind(dim)
    return torch.stack([-y, x], dim)


READERS: dict[str, Callable[[TeacherDescription, Mapping[str, Tensor]], Reader]] = {
    "heatmap": HeatmapReader,
    "simcc": SimCCReader,
    "keypoints": KeypointReader,
}


def output_names(
    description: TeacherDescription, probe: Mapping[str, Tensor], *, rank: int | None
) -> dict[str, str]:
    """The names of the described outputs by role.

    Args:
        description: what it leaves open is taken where nothing else fits.
        probe: the network's outputs.
        rank: dimensions that the outputs of this kind have; None takes any.

    Raises:
        InputError: an output is missing, has another number of dimensions, or several would fit.
    """
    names = dict(description.outputs or {})
    shown = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in probe.items())
    needed = ROLES[description.kind][0]
    if not any(role in names for role in needed):
        fitting = [name for name, tensor in probe.items() if rank in (None, tensor.dim())]
        fitting = [name for name in fitting if name not in names.values()]
        if len(fitting) != len(needed):
            fail("outputs", f"nothing for a network with {shown}", f"the names of {', '.join(needed)}")
        names |= dict(zip(needed, fitting, strict=True))
    for role in needed:
        check(role in names, f"outputs.{role}", "nothing", f"one of {shown}")
    for role, name in names.items():
        check(name in probe, f"outputs.{role}", repr(name), f"one of {shown}")
        wanted = 4 if role == "feature" else rank
        dims = probe[name].dim()
        check(
            wanted in (None, dims),
            f"output {name}",
            tuple(probe[name].shape),
            f"{wanted} dimensions of a {role}",
        )
    return names


def input_size(description: TeacherDescription) -> tuple[int, int]:
    """(height, width) of a described network whose input has been read."""
    assert description.input_size is not None
    return description.input_size


def finite(outputs: Mapping[str, Tensor], name: str) -> Tensor:
    """An output in float32; raises as `check_finite`."""
    check_finite(outputs, name)
    return outputs[name].float()


def check_finite(outputs: Mapping[str, Tensor], name: str) -> None:
    """Check an output's values.

    Raises:
        InputError: it holds NaN or infinite values.
    """
    fine = bool(torch.isfinite(outputs[name]).all())
    check(
        fine,
        f"output {name}",
        "NaN or infinite values",
        "finite numbers; look at range, mean and std of the input",
    )


def mass_near_peak(log_x: Tensor, log_y: Tensor) -> Tensor:
    """The smaller of the probabilities (B, J) near the highest bins of two axes (B, J, N)."""
    masses = []
    for axis in (log_x, log_y):
        places = torch.arange(axis.shape[-1], device=axis.device)
        near = (places - axis.argmax(-1, keepdim=True)).abs() <= _NEAR
        masses.append((axis.exp() * near).sum(-1).clamp(0, 1))
    return torch.minimum(*masses)


def _check_probabilities(argument: str, values: Tensor, instead: str) -> None:
    if values.numel():
        low, high = float(values.min()), float(values.max())
        fine = low >= -_TOLERANCE and high <= 1 + _TOLERANCE
        check(
            fine, argument, f"values from {low:.3g} to {high:.3g}", f"probabilities from 0 to 1, or {instead}"
        )


def _in_order(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """(B, C, h, w) of a shape in a layout."""
    return (shape[0], shape[3], shape[1], shape[2]) if layout == "NHWC" else shape


def _map_layout(shape: tuple[int, ...], description: TeacherDescription) -> Literal["NCHW", "NHWC"]:
    """The layout whose sides have the aspect ratio of the crops; of two, the input's."""
    height, width = input_size(description)
    layouts: tuple[Literal["NCHW", "NHWC"], ...] = ("NCHW", "NHWC")
    fitting = []
    for layout in layouts:
        _, _, rows, columns = _in_order(shape, layout)
        if rows * width == columns * height:
            fitting.append(layout)
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        fail("output of heatmaps", shape, f"maps of the aspect ratio of the {(height, width)} crops")
    return description.layout or "NCHW"
