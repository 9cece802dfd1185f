"""CAL: heatmaps for the cell, and offsets from the cell to the joint, learnt where predictions tend to fall.

Wang et al., Low-resolution Human Pose Estimation (confidence-aware learning), Pattern Recognition 2022. The last stage of a
high-resolution network and its head exist twice, for heatmaps and for offsets. Crops are unbiased: the centres of
corner pixels lie on the edges of a crop's region, and so do those of a map's corner cells.

The offsets count by a confidence mask: over each batch one Gaussian is fitted to the errors of the heatmaps' maxima, and
its density around a joint weighs the cells there. The release's files for MPII have neither this mask nor the published
weights: there the offsets count on a disc (`confidence_mask` false, `offset_weight` 1, `offset_scale` 1).

Differences from the published code: the Gaussian is fitted on the device, without scikit-learn, and with fewer than two
joints to fit it to the offsets count on the disc; a batch of one works.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from cdkd_ext.blocks import BasicBlock
from cdkd_ext.errors import check
from cdkd_ext.methods.codec import Codec, CodecOptions
from cdkd_ext.methods.coordinates import check_permutation, mapped
from cdkd_ext.methods.method import LabelLoss, LabelLossOptions, Method, MethodOptions
from cdkd_ext.tensor_checks import check_tensor, check_weights

# cells around a joint in which an offset is a target
_RADIUS = 4
# displacements along each axis that the confidence mask knows
_REACH = 3
_RIDGE = 1e-6
_SMALLEST_RANGE = 1e-5


class CALOutput(NamedTuple):
    """What a network of confidence-aware learning predicts for a batch of crops.

    Attributes:
        heatmaps: one map per joint, (B, J, h, w), trained towards a Gaussian of height 1.
        offsets: (B, 2J, h, w), for joint j in channel 2j along x and in 2j + 1 along y the way from a cell to the joint,
            in units of `offset_scale` cells.
    """

    heatmaps: Tensor
    offsets: Tensor

    @property
    def feature(self) -> Tensor:
        """The maps that feature distillation compares: the heatmaps."""
        return self.heatmaps


class CALHead(nn.Module):
    """Two basic blocks and a 1x1 convolution.

    Args:
        channels: of the map.
        outputs: of the result.
        suffix: of the published names: "hm" for heatmaps, "om" for offsets.
    """

    def __init__(self, channels: int, outputs: int, suffix: str) -> None:
        super().__init__()
        self.steps = ("final_block1", f"final_block_{suffix}", f"final_layer_{suffix}")
        layers = (BasicBlock(channels), BasicBlock(channels), nn.Conv2d(channels, outputs, 1))
        for name, layer in zip(self.steps, layers, strict=True):
            self.add_module(name, layer)

    def forward(self, feature: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, outputs, h, w)."""
        for name in self.steps:
            feature = self.get_submodule(name)(feature)
        return feature


@dataclass(frozen=True)
class CALCodec(Codec):
    """Cell i of w stands for pixel i · (W - 1) / (w - 1): the outermost cells for the outermost pixels.

    Args:
        input_size: (height, width) of the crops in pixels.
        offset_scale: cells that an offset of 1 stands for.
        sigma: standard deviation of the heatmaps' targets in cells.
    """

    input_size: tuple[int, int]
    offset_scale: float = 1.5
    sigma: float = 1.0
    score_threshold: ClassVar[float] = 0.2  # as in HRNet's code

    def __post_init__(self) -> None:
        for name in ("offset_scale", "sigma"):
            value = getattr(self, name)
            check(0 < value < math.inf, name, value, "a positive number of cells")

    def places_per_pixel(self, output: CALOutput) -> tuple[float, float]:
        """Cells per pixel, from the first to the last."""
        (height, width), (rows, columns) = self.input_size, output.heatmaps.shape[2:]
        return (columns - 1) / (width - 1), (rows - 1) / (height - 1)

    def targets(self, output: CALOutput, keypoints: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, J, h, w) with Gaussians centred on the keypoints, between cells too; see `Codec.targets`.

        What is below the largest value times float32's precision is 0. A joint whose three-sigma square does not touch
        the map loses its weight.
        """
        ways, used = self.ways(output, keypoints, weights)
        maps = torch.exp(-ways.square().sum(2) / (2 * self.sigma**2))
        least = torch.finfo(torch.float32).eps * maps.amax((2, 3), keepdim=True)
        return torch.where((maps >= least) & (used[..., None, None] > 0), maps, 0), used

    def ways(self, output: CALOutput, keypoints: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """From each cell to the joints, (B, J, 2, h, w) in cells, and the weights of joints that have targets."""
        rows, columns = output.heatmaps.shape[2:]
        # float32 at least: float16 cannot hold a pixel coordinate to a fraction of a cell
        keypoints = keypoints.to(torch.promote_types(keypoints.dtype, torch.float32))
        keypoints = torch.where(weights[..., None] > 0, keypoints, 0)
        places = keypoints * keypoints.new_tensor(self.places_per_pixel(output))  # (B, J, 2)
        reach = int(3 * self.sigma + 0.5)
        nearest = torch.trunc(places + 0.5)
        last = nearest.new_tensor((columns, rows))
        touches = ((nearest - reach < last) & (nearest + reach + 1 >= 0)).all(-1)
        x = torch.arange(columns, dtype=places.dtype, device=places.device).expand(rows, columns)
        y = torch.arange(rows, dtype=places.dtype, device=places.device)[:, None].expand(rows, columns)
        return places[..., None, None] - torch.stack([x, y]), weights * touches

    def decode(
        self,
        output: CALOutput,
        *,
        flipped: tuple[CALOutput, Tensor] | None = None,
        to_image: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The highest cells and the offsets there; scores are heights. See `Codec.decode`.

        With `flipped` maps and offsets are averaged; a reversed map needs no shift. A map without a positive cell is read
        at its first one.
        """
        maps, offsets = _whole(output)
        if flipped is not None:
            check_permutation(flipped[1], maps.shape[1])
            other_maps, other_offsets = (_mirrored(values, flipped[1]) for values in _whole(flipped[0]))
            sign = offsets.new_ones(2)
            sign[0] = -1
            maps = (maps + other_maps) / 2
            offsets = (offsets + other_offsets * sign[:, None, None]) / 2
        cell, scores = highest_cells(maps)
        places = torch.stack([cell % maps.shape[-1], cell // maps.shape[-1]], -1)
        read = offsets.flatten(3).gather(-1, cell[..., None, None].expand(*cell.shape, 2, 1))[..., 0]
        places = places + self.offset_scale * read
        places = torch.where(scores.isnan()[..., None], math.nan, places)
        return mapped(places / places.new_tensor(self.places_per_pixel(output)), to_image), scores


def _whole(output: CALOutput) -> tuple[Tensor, Tensor]:
    """Heatmaps (B, J, h, w) and offsets (B, J, 2, h, w), in float32 at least."""
    dtype = torch.promote_types(output.heatmaps.dtype, torch.float32)
    joints = output.heatmaps.shape[1]
    return output.heatmaps.to(dtype), output.offsets.to(dtype).unflatten(1, (joints, 2))


def _mirrored(values: Tensor, permutation: Tensor) -> Tensor:
    return values[:, permutation].flip(-1)


def highest_cells(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Flat indices (B, J) of the maxima of maps (B, J, h, w), 0 where none is positive, and the maxima (B, J)."""
    scores, cells = maps.flatten(2).max(-1)
    return torch.where(scores > 0, cells, 0), scores


def confidence_mask(predicted: Tensor, targets: Tensor, used: Tensor) -> Tensor:
    """How likely the heatmaps' maxima are to fall on each cell around a joint, by the errors of this batch.

    Args:
        predicted: heatmaps (B, J, h, w).
        targets: of the same shape.
        used: (B, J), positive for joints to look at.

    Returns:
        (B, J, h, w) in [0, 1], without gradient; within three cells of the target's maximum, else 0.
    """
    width = targets.shape[-1]
    found, wanted = highest_cells(predicted.detach())[0], highest_cells(targets)[0]
    places = torch.stack([wanted % width, wanted // width], -1).double()
    errors = torch.stack([found % width, found // width], -1) - places
    density = _fitted_density(errors, used > 0)  # (7, 7), rows are y
    pasted = _pasted(density.to(targets.dtype), wanted, targets) * (used > 0)[..., None, None]
    least, most = pasted.amin((2, 3), keepdim=True), pasted.amax((2, 3), keepdim=True)
    return (pasted - least) / (most - least + _SMALLEST_RANGE)


def _fitted_density(errors: Tensor, used: Tensor) -> Tensor:
    """Density of a Gaussian fitted to errors (B, J, 2) of the used joints, on displacements of up to three cells."""
    count = used.sum().clamp(min=1)
    kept = torch.where(used[..., None], errors, 0)
    mean = kept.sum((0, 1)) / count
    centred = torch.where(used[..., None], errors - mean, 0).flatten(0, 1)
    covariance = centred.T @ centred / count
    xx, yy, xy = covariance[0, 0] + _RIDGE, covariance[1, 1] + _RIDGE, covariance[0, 1]
    determinant = xx * yy - xy**2
    steps = torch.arange(-_REACH, _REACH + 1, dtype=errors.dtype, device=errors.device)
    dx, dy = steps - mean[0], (steps - mean[1])[:, None]
    squared = (yy * dx**2 - 2 * xy * dx * dy + xx * dy**2) / determinant
    return torch.exp(-0.5 * squared) / (2 * math.pi * determinant.sqrt())


def _pasted(patch: Tensor, cells: Tensor, like: Tensor) -> Tensor:
    """Maps (B, J, h, w) of zeros with a patch around a cell of each, cut off at the border."""
    rows, columns = like.shape[2:]
    size = patch.shape[0]
    right = torch.arange(columns, device=cells.device) - (cells % columns)[..., None] + size // 2  # (B, J, w)
    down = torch.arange(rows, device=cells.device) - (cells // columns)[..., None] + size // 2
    inside = ((right >= 0) & (right < size))[..., None, :] & ((down >= 0) & (down < size))[..., None]
    values = patch[down.clamp(0, size - 1)[..., None], right.clamp(0, size - 1)[..., None, :]]
    return torch.where(inside, values, 0)


class CALLoss(LabelLoss):
    """Half the mean squared difference of the heatmaps, and the mean absolute difference of the masked offsets.

    Differences are multiplied by the joint's weight; the means are over all samples, joints and cells.

    Args:
        codec: makes the targets.
        offset_weight: of the offsets.
        confidence_mask: weigh the cells around a joint by `confidence_mask`; else all on the disc count alike.
        scale: factor on the result.

    Raises:
        InputError: a number is out of range.

    Example:
        >>> import torch
        >>> from cdkd_ext.methods.cal import CALCodec, CALLoss, CALOutput
        >>> student = CALOutput(torch.randn(2, 17, 16, 16), torch.randn(2, 34, 16, 16))
        >>> CALLoss(CALCodec((64, 64)))(student, torch.rand(2, 17, 2) * 63, torch.ones(2, 17)).shape
        torch.Size([])
    """

    name = "cal"

    def __init__(
        self,
        codec: CALCodec,
        *,
        offset_weight: float = 0.7,
        confidence_mask: bool = True,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        check(0 <= offset_weight < math.inf, "offset_weight", offset_weight, "zero or more")
        check(0 < scale < math.inf, "scale", scale, "a positive number")
        self.codec = codec
        self.offset_weight = float(offset_weight)
        self.confidence_mask = bool(confidence_mask)
        self.scale = float(scale)

    def forward(
        self, student: CALOutput, keypoints: Tensor, weights: Tensor, progress: float = 0.0
    ) -> Tensor:
        """See `LabelLoss.forward`."""
        check_tensor("student.heatmaps", student.heatmaps, ("B", "J", "h", "w"))
        batch, joints, rows, columns = student.heatmaps.shape
        check_tensor("student.offsets", student.offsets, (batch, 2 * joints, rows, columns))
        check_tensor("keypoints", keypoints, (batch, joints, 2))
        check_weights("weights", weights, (batch, joints))
        targets, used = self.codec.targets(student, keypoints, weights)
        ways, _ = self.codec.ways(student, keypoints, weights)
        near = ways.square().sum(2) <= _RADIUS**2
        wanted = torch.where(near[:, :, None], ways, 0) / self.codec.offset_scale
        maps, offsets = (value.to(targets.dtype) for value in _whole(student))
        heights = (maps - targets) * used[..., None, None]
        mask = self._mask(maps, targets, used, near.to(targets.dtype)) * used[..., None, None]
        moved = (offsets - wanted) * mask[:, :, None]
        return (0.5 * heights.square().mean() + self.offset_weight * moved.abs().mean()) * self.scale

    def _mask(self, maps: Tensor, targets: Tensor, used: Tensor, disc: Tensor) -> Tensor:
        if not self.confidence_mask:
            return disc
        # one error has no spread
        enough = (used > 0).sum() >= 2
        return torch.where(enough, confidence_mask(maps, targets, used), disc)

    def check_student(self, spec: MethodOptions) -> None:
        """See `LabelLoss.check_student`: the crops' sizes and the offsets' unit have to agree."""
        for name in ("input_size", "offset_scale"):
            own, expected = getattr(self.codec, name), getattr(spec, name)
            check(own == expected, f"label_loss.{name}", own, f"the student's {expected}")


class CAL(Method):
    """Heatmaps and offsets; see `Method`."""

    name = head = "cal"
    trunk = "two_maps"
    options = frozenset({"offset_scale"})
    loss = CALLoss
    codec_type = CALCodec
    unbiased_crop = True
    published = ("hrnet_w32", "hrnet_w48")

    def feature_channels(self, spec: MethodOptions) -> int:
        """J: the heatmaps are the feature."""
        return spec.num_joints

    def layers(
        self, spec: MethodOptions, channels: tuple[int, ...], size: tuple[int, int]
    ) -> dict[str, nn.Module]:
        """A head for heatmaps and one for offsets."""
        return {
            "head_hm": CALHead(channels[0], spec.num_joints, "hm"),
            "head_om": CALHead(channels[1], 2 * spec.num_joints, "om"),
        }

    def read(self, network: Any, features: tuple[Tensor, Tensor]) -> CALOutput:
        """Heatmaps of the first map, offsets of the second."""
        return CALOutput(network.head_hm(features[0]), network.head_om(features[1]))

    def codec(self, spec: CodecOptions, *, simcc_score: str = "min") -> CALCodec:
        """See `Method.codec`."""
        return CALCodec(spec.input_size, spec.offset_scale)

    def label_loss(self, network: Any, options: LabelLossOptions) -> CALLoss:
        """Heatmaps and masked offsets."""
        spec = network.spec
        sigma = 1.0 if options.heatmap_sigma is None else options.heatmap_sigma
        return CALLoss(
            CALCodec(spec.input_size, spec.offset_scale, sigma),
            offset_weight=options.offset_weight,
            confidence_mask=options.confidence_mask,
            scale=options.scale,
        )
