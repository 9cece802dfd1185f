"""What an adapted network learns by: its own kind of output against a teacher's keypoints."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cdkd_ext import ops
from cdkd_ext.adaptation.networks import AdaptableNetwork
from cdkd_ext.errors import check
from cdkd_ext.teachers import TeacherDescription
from cdkd_ext.teachers.distributions import gaussians
from cdkd_ext.teachers.readers import HeatmapReader, KeypointReader, Reader, SimCCReader

_NEAR = 1.5  # cells around a keypoint whose offsets learn: what a maximum beside the right cell still needs
_TAUGHT = ("heatmap", "offset", "x", "y", "keypoints")
_SMALLEST_PROBABILITY = 1e-6
_SCORE_WEIGHT = 0.25
_RIGHT = 0.05  # share of a map's longer side within which a peak is at the right place
_OFFSET_WEIGHT = 0.25  # half a cell of offset is worth less than the right cell
_WIDTH = 0.02  # share of a crop's longer side from which on an error of keypoints counts in proportion


class KeypointLoss(nn.Module):
    """The loss of a network's outputs against keypoints, weighted by their confidence.

    - Heatmaps: the KL divergence of the softmax over all cells of a joint's map to a Gaussian around the keypoint, and the
      error of the offsets near it where the network has offsets; and how high the peak is, which is to be the keypoint's
      confidence if it lies right, else nothing. Maps that were regressed to a height of 1 are compared
      with Gaussians of that height.
    - SimCC: the KL divergence of each axis to a Gaussian (`ops.cca_kl`).
    - Keypoints: their distance (Huber's).

    Args:
        description: of the outputs.
        reader: of the outputs.
        sigma: standard deviation of the Gaussians, as a share of the crop's longer side.

    Raises:
        InputError: sigma is not positive.
    """

    def __init__(self, description: TeacherDescription, reader: Reader, sigma: float = 0.025) -> None:
        super().__init__()
        check(0 < sigma < 1, "sigma", sigma, "a share of the crop's longer side in (0, 1)")
        assert description.input_size is not None
        self._description, self._reader = description, reader
        self._size = description.input_size
        self._sigma = sigma * max(self._size)
        self._joints = reader.count - description.ignored_joints

    @classmethod
    def of(cls, network: AdaptableNetwork, sigma: float = 0.025) -> KeypointLoss:
        """The loss of a network's outputs."""
        return cls(network.description, network.reader, sigma)

    def forward(self, outputs: Mapping[str, Tensor], keypoints: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """Return the terms by name, scalars: means over the joints by their weights.

        Args:
            outputs: of the network.
            keypoints: (B, J, 2) x and y in pixels of the crops.
            weights: (B, J) at least 0; a joint of weight 0 counts for nothing, wherever its keypoint is.
        """
        if isinstance(self._reader, HeatmapReader):
            return self._heatmaps(self._reader, outputs, keypoints, weights)
        if isinstance(self._reader, SimCCReader):
            return {"axes": self._axes(self._reader, outputs, keypoints, weights)}
        assert isinstance(self._reader, KeypointReader)
        points = self._reader.points(outputs)[:, : self._joints]
        side = max(self._size)
        wanted = torch.where(weights[..., None] > 0, keypoints, 0.0)
        error = F.smooth_l1_loss(points / side, wanted / side, reduction="none", beta=_WIDTH).sum(-1)
        return {"distance": _mean(error / _WIDTH, weights)}

    def _axes(
        self, reader: SimCCReader, outputs: Mapping[str, Tensor], keypoints: Tensor, weights: Tensor
    ) -> Tensor:
        assert reader.num_bins is not None
        terms = []
        for axis, role in enumerate(("x", "y")):
            logits = outputs[reader.names[role]].float()[:, : self._joints] * self._description.logit_scale
            pixels = self._size[1 - axis] / reader.num_bins[axis]
            center = (keypoints[..., axis] - reader.bin_origin[axis]) / pixels
            target = gaussians(_known(center, weights), self._sigma / pixels, reader.num_bins[axis])
            terms.append(ops.cca_kl(logits.contiguous(), target, 1.0, weights=weights).sum())
        return (terms[0] + terms[1]) / weights.sum().clamp(min=1e-6)

    def _heatmaps(
        self, reader: HeatmapReader, outputs: Mapping[str, Tensor], keypoints: Tensor, weights: Tensor
    ) -> dict[str, Tensor]:
        maps = reader.planes(outputs, "heatmap")[:, : self._joints]
        cells = self._cells(reader, keypoints)
        x, y = (_known(cells[..., axis], weights) for axis in (0, 1))
        height, width = maps.shape[2:]
        sigma = [
            self._sigma * size / pixels for size, pixels in ((width, self._size[1]), (height, self._size[0]))
        ]
        across, down = gaussians(x, sigma[0], width), gaussians(y, sigma[1], height)
        target = down[..., :, None] + across[..., None, :]
        terms = {"heatmap": self._map_term(maps, target, weights)}
        if "offset" in reader.names:
            offsets = reader.planes(outputs, "offset").unflatten(1, (-1, 2))[:, : self._joints]
            offset = self._offset_term(offsets, torch.stack([x, y], 2), target.exp(), weights)
            terms["offset"] = _OFFSET_WEIGHT * offset
        if self._description.values != "gaussians":
            terms["score"] = _SCORE_WEIGHT * self._score_term(maps, torch.stack([x, y], 2), weights)
        return terms

    def _map_term(self, maps: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        values = self._description.values
        if values == "gaussians":
            shape = (target - target.amax((-2, -1), keepdim=True)).exp()
            # as a sum over the cells of a map, which are mostly background
            return _mean(((maps - shape) ** 2).sum((-2, -1)), weights)
        if values == "probabilities":
            maps = maps.clamp(_SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY).logit()
        rows = ops.cca_kl(maps.flatten(2).contiguous(), target.flatten(2), 1.0, weights=weights)
        return rows.sum() / weights.sum().clamp(min=1e-6)

    def _score_term(self, maps: Tensor, cells: Tensor, weights: Tensor) -> Tensor:
        """Let the height of a peak say how sure the teacher is where it lies right, and nothing elsewhere.

        The softmax leaves the height open, and programs compare it with thresholds.
        """
        if self._description.values == "probabilities":
            maps = maps.clamp(_SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY).logit()
        height, place = maps.flatten(2).max(-1)
        width = maps.shape[-1]
        found = torch.stack([place % width, place // width], -1)
        right = (found - cells).abs().amax(-1) <= _RIGHT * max(maps.shape[2:])
        known = (weights > 0).to(height)
        error = F.binary_cross_entropy_with_logits(
            height, (weights * right).clamp(0, 1), known, reduction="sum"
        )
        return error / known.sum().clamp(min=1)

    def _offset_term(self, offsets: Tensor, cells: Tensor, share: Tensor, weights: Tensor) -> Tensor:
        """The error of offsets (B, J, 2, h, w) near the keypoints (B, J, 2), in cells."""
        height, width = offsets.shape[-2:]
        columns = torch.arange(width, device=offsets.device).expand(height, width)
        rows = torch.arange(height, device=offsets.device)[:, None].expand(height, width)
        wanted = cells[..., None, None] - torch.stack([columns, rows])
        share = share * (wanted.abs().amax(2) <= _NEAR)
        if self._description.offset_order == "yx":
            offsets = offsets.flip(2)
        error = F.smooth_l1_loss(offsets - self._description.offset_center, wanted, reduction="none").sum(2)
        total = share.sum((-2, -1)).clamp(min=1e-6)
        return _mean((error * share).sum((-2, -1)) / total, weights)

    def _cells(self, reader: HeatmapReader, keypoints: Tensor) -> Tensor:
        """Keypoints in cells of the maps."""
        assert reader.num_bins is not None
        pixels = keypoints.new_tensor([self._size[1], self._size[0]])
        cells = keypoints.new_tensor(reader.num_bins)
        if self._description.cells == "ends":
            return keypoints * (cells - 1) / (pixels - 1)
        return (keypoints - keypoints.new_tensor(reader.bin_origin)) * cells / pixels


def kept_outputs(
    description: TeacherDescription, reader: Reader, outputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The outputs that `KeypointLoss` does not teach, in float32: other heads, features, and scores beside keypoints."""
    taught = {name for role, name in reader.names.items() if role in _TAUGHT}
    kept = {
        name: value.float()
        for name, value in outputs.items()
        if name not in taught and value.is_floating_point()
    }
    columns = description.columns
    others = [place for place, word in enumerate(columns) if word not in ("x", "y")]
    if isinstance(reader, KeypointReader) and others:
        kept[reader.names["keypoints"]] = reader.table(outputs)[..., others]
    return kept


def kept_loss(outputs: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Tensor:
    """Hold outputs to what the unchanged network gives at full resolution, so that programs that read them go on working.

    Args:
        outputs: of `kept_outputs`, for crops at any resolution.
        wanted: of the unchanged network for the same crops at full resolution.

    Returns:
        The squared difference relative to each output's variance within the batch, averaged over the outputs.
    """
    terms = [
        F.mse_loss(value, wanted[name]) / wanted[name].var(unbiased=False).clamp(min=1e-6)
        for name, value in outputs.items()
    ]
    return torch.stack(terms).mean()


def _known(values: Tensor, weights: Tensor) -> Tensor:
    """Values with zeros where they do not count, whatever stands there."""
    return torch.where(weights > 0, values, 0.0)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (torch.where(weights > 0, values, 0.0) * weights).sum() / weights.sum().clamp(min=1e-6)
