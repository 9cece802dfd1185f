"""Crops in other colours and with holes: colour jitter and grid dropout."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from cdkd_ext.errors import check, check_type

Crop = npt.NDArray[np.uint8]

VERSION = 1  # part of the fingerprints of stored views; to be raised when a change here changes a pixel
_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # luma of RGB (ITU-R BT.601)


@dataclass(frozen=True)
class Photometric:
    """What is drawn for the pixels of a view; by default nothing.

    Colours are changed as by torchvision's ``ColorJitter``: four factors, in a random order. The dropout is of Chen et al.,
    GridMask data augmentation (2020), as Albumentations' ``GridDropout`` has it: squares of half a unit's side become black.

    Args:
        brightness: the image times a factor drawn from 1 - brightness to 1 + brightness.
        contrast: differences to the mean grey times such a factor.
        saturation: differences to each pixel's grey times such a factor.
        hue: turn of the colour circle, drawn from -hue to hue, in turns: at most 0.5.
        grid_dropout: probability of holes.
        grid_unit: smallest and largest side of a unit in pixels of the crop, 2 or more.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grid_dropout: float = 0.0
    grid_unit: tuple[int, int] = (2, 5)

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            check(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a number in [0, 1]")
        check(0 <= self.hue <= 0.5, "hue", self.hue, "turns of the colour circle in [0, 0.5]")
        check(0 <= self.grid_dropout <= 1, "grid_dropout", self.grid_dropout, "a probability in [0, 1]")
        expected = "the smallest and the largest side in pixels, 2 <= smallest <= largest"
        check(len(self.grid_unit) == 2, "grid_unit", self.grid_unit, expected)
        for side in self.grid_unit:
            check_type("grid_unit", side, int, "integers")
        check(2 <= self.grid_unit[0] <= self.grid_unit[1], "grid_unit", self.grid_unit, expected)

    @property
    def active(self) -> bool:
        """Whether anything is ever changed."""
        return any((self.brightness, self.contrast, self.saturation, self.hue, self.grid_dropout))

    def jitter(self, crop: Crop, rng: np.random.Generator) -> Crop:
        """Return a crop in other colours.

        Args:
            crop: (height, width, 3) uint8, RGB.
            rng: source of all randomness; what it draws depends on nothing else, so that crops of one view in several sizes
                get the same colours.
        """
        strengths = (self.brightness, self.contrast, self.saturation, self.hue)
        drawn, order = rng.uniform(-1, 1, 4), rng.permutation(4)
        if not any(strengths):
            return crop
        colours = crop.astype(np.float32)
        for number in order:
            change = float(drawn[number]) * strengths[number]
            if change != 0:
                colours = _CHANGES[number](colours, change).clip(0, 255)
        return colours.round().astype(np.uint8)

    def drop(self, crop: Crop, rng: np.random.Generator) -> Crop:
        """Return a crop with black squares in a grid, or the crop itself.

        Args:
            crop: (height, width, 3) uint8, RGB.
            rng: source of all randomness.
        """
        there, (left, top) = rng.random() < self.grid_dropout, rng.random(2)
        unit = int(rng.integers(self.grid_unit[0], self.grid_unit[1], endpoint=True))
        if not there:
            return crop
        hole = unit // 2
        across, down = (
            (np.arange(size) + math.floor(start * unit)) % unit < hole
            for size, start in zip((crop.shape[1], crop.shape[0]), (left, top), strict=True)
        )
        holed = crop.copy()
        holed[np.ix_(down, across)] = 0
        return holed


def _brighter(colours: npt.NDArray[np.float32], change: float) -> npt.NDArray[np.float32]:
    return colours * np.float32(1 + change)


def _contrasted(colours: npt.NDArray[np.float32], change: float) -> npt.NDArray[np.float32]:
    mean = (colours @ _GREY).mean()
    return mean + (colours - mean) * np.float32(1 + change)


def _saturated(colours: npt.NDArray[np.float32], change: float) -> npt.NDArray[np.float32]:
    grey = (colours @ _GREY)[..., None]
    return grey + (colours - grey) * np.float32(1 + change)


def _turned(colours: npt.NDArray[np.float32], change: float) -> npt.NDArray[np.float32]:
    cylinder = cv2.cvtColor(colours, cv2.COLOR_RGB2HSV)
    cylinder[..., 0] = (cylinder[..., 0] + 360 * change) % 360
    return cv2.cvtColor(cylinder, cv2.COLOR_HSV2RGB).astype(np.float32, copy=False)


_CHANGES = (_brighter, _contrasted, _saturated, _turned)
