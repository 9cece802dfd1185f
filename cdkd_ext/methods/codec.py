"""The contract of a codec: how the output of one kind of head speaks of positions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol

from torch import Tensor


class CodecOptions(Protocol):
    """What a codec is made from; `models.ModelSpec` is one."""

    @property
    def head(self) -> str:
        """Kind of output."""
        ...

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the crops in pixels."""
        ...

    @property
    def split_ratio(self) -> float:
        """SimCC bins per pixel."""
        ...

    @property
    def decoding(self) -> str:
        """How heatmaps become keypoints."""
        ...

    @property
    def offset_scale(self) -> float:
        """Cells that an offset of 1 stands for."""
        ...


class Codec(ABC):
    """From keypoints to what a network is trained towards, and from what it says to keypoints.

    Along each axis an output has places, bins or cells, and place i stands for pixel i / `places_per_pixel`; an output of
    coordinates has one place per pixel.

    Attributes:
        score_threshold: a joint whose score is at or below it does not count in the score of a COCO result.
        traceable: whether `decode` consists of operations on tensors alone, which `cdkd export` can write down.
    """

    score_threshold: ClassVar[float]
    traceable: ClassVar[bool] = True

    @abstractmethod
    def places_per_pixel(self, output: Any) -> tuple[float, float]:
        """Bins or cells per pixel of the crop along (x, y)."""

    @abstractmethod
    def targets(self, output: Any, keypoints: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """What `output` should have said.

        Args:
            output: of the network, for its sizes.
            keypoints: (B, J, 2) x and y in pixels of the crop; anything where the weight is 0.
            weights: (B, J) factors, 0 for joints without a label.

        Returns:
            The targets, in float32 at least, and the weights (B, J), 0 where a joint has no target in this crop.
        """

    @abstractmethod
    def decode(
        self, output: Any, *, flipped: tuple[Any, Tensor] | None = None, to_image: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What `output` says.

        Args:
            output: of the network, for B crops.
            flipped: the output for the mirrored crops and the permutation (J,) int64 of the joints, to average with.
            to_image: (B, 2, 3) affine maps from the crop's pixels to the whole image's.

        Returns:
            Keypoints (B, J, 2) as (x, y) in pixels of the crop, or of the image with `to_image`, and scores (B, J).
        """
