"""What methods share whose networks say coordinates: targets, decoding, and merging with the mirrored crop."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from cdkd_ext.errors import check, check_type
from cdkd_ext.methods.codec import Codec
from cdkd_ext.tensor_checks import check_tensor


@dataclass(frozen=True)
class CoordinateCodec(Codec):
    """Coordinate c of an axis of n pixels stands for pixel (c - `origin`) · n.

    Pixel x of a crop of width W mirrors to W - 1 - x. A network that is averaged with 1 - c, as PRTR's and DistilPose's
    code does, is half a pixel off.

    Args:
        input_size: (height, width) of the crops in pixels.

    Attributes:
        origin: the coordinate of pixel 0.
        inside_only: whether joints outside the crop have no target.
    """

    input_size: tuple[int, int]
    origin: ClassVar[float] = 0.0
    inside_only: ClassVar[bool] = False
    score_threshold: ClassVar[float] = 0.2

    def places_per_pixel(self, output: Any) -> tuple[float, float]:
        """One: an output of coordinates is as fine as pixels are."""
        return 1.0, 1.0

    def targets(self, output: Any, keypoints: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates (B, J, 2), the origin where the weight is 0; see `Codec.targets`."""
        dtype = torch.promote_types(keypoints.dtype, torch.float32)
        used = weights > 0
        if self.inside_only:
            height, width = self.input_size
            last = pair(width - 1, height - 1, keypoints)
            used = used & ((keypoints >= 0) & (keypoints <= last)).all(-1)
        pixels = torch.where(used[..., None], keypoints.to(dtype), 0)
        return pixels / self._size(pixels) + self.origin, weights * used

    @abstractmethod
    def read(self, output: Any) -> tuple[Tensor, Tensor]:
        """Coordinates (B, J, 2) and scores (B, J), in float32 at least."""

    def decode(
        self, output: Any, *, flipped: tuple[Any, Tensor] | None = None, to_image: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The coordinates in pixels; of two outputs the mean, of scores too. See `Codec.decode`."""
        keypoints, scores = self._pixels(output)
        if flipped is not None:
            other, permutation = flipped
            check_permutation(permutation, keypoints.shape[1])
            back, other_scores = self._pixels(other)
            x = self.input_size[1] - 1 - back[..., 0]
            back = torch.stack([x, back[..., 1]], -1)[:, permutation]
            keypoints = (keypoints + back) / 2
            scores = (scores + other_scores[:, permutation]) / 2
        return mapped(keypoints, to_image), scores

    def _pixels(self, output: Any) -> tuple[Tensor, Tensor]:
        coordinates, scores = self.read(output)
        return (coordinates - self.origin) * self._size(coordinates), scores

    def _size(self, like: Tensor) -> Tensor:
        return pair(self.input_size[1], self.input_size[0], like)


def pair(x: float, y: float, like: Tensor) -> Tensor:
    """(2,), filled on the device of `like`: a GPU would be waited for while numbers are copied from the host."""
    return torch.cat([like.new_full((1,), x), like.new_full((1,), y)])


def mapped(keypoints: Tensor, to_image: Tensor | None) -> Tensor:
    """Keypoints (B, J, 2) in pixels of the image by affine maps (B, 2, 3), or as they are without."""
    if to_image is None:
        return keypoints
    check_tensor("to_image", to_image, (len(keypoints), 2, 3))
    affine = to_image.to(keypoints.dtype)
    return keypoints @ affine[:, :, :2].mT + affine[:, None, :, 2]


def check_permutation(permutation: Tensor, joints: int) -> None:
    """Fail unless it is an int64 tensor with the index of each joint once, where looking at it costs no synchronisation."""
    check_type("flipped[1]", permutation, Tensor, "a torch.Tensor")
    if permutation.dtype != torch.int64:
        raise TypeError(f"flipped[1]: expected int64, got {permutation.dtype}")
    check(permutation.shape == (joints,), "flipped[1]", tuple(permutation.shape), f"shape ({joints},)")
    if permutation.is_cpu and not torch.compiler.is_compiling():
        joint = permutation.tolist()
        check(
            sorted(joint) == list(range(joints)), "flipped[1]", joint, f"a permutation of 0 to {joints - 1}"
        )
