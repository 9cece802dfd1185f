"""Crops by area against linear ones: `python -m bench.training.resample`.

Milliseconds of processor time, one thread, for a crop of a person who is so many pixels high, and how far both are from the
mean of many samples over each pixel, in grey levels. The images are drawn people's, or those of a folder.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from bench.harness.table import print_rows
from cdkd_ext.data import CropRegion, crop_matrix, warp_crop
from cdkd_ext.images import read_image
from cdkd_ext.resampling import Resample
from cdkd_ext.synthetic import draw_people

_SAMPLES = 24  # on a side of a pixel, of what both are compared with
_ROTATIONS = (0.0, 20.0)  # degrees; what is not turned has a way of its own


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.training.resample", description=__doc__)
    parser.add_argument("--images", type=Path, help="a folder of images; else people are drawn")
    parser.add_argument("--count", type=int, default=12, help="images to take")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        source = options.images
        if source is None:
            draw_people(Path(folder), options.count, seed=0)
            source = Path(folder) / "images"
        images = [read_image(path) for path in sorted(source.iterdir())[: options.count]]
    heads = [
        ["crop", "region in pixels", "turned", "linear, ms", "area, ms", "linear, off by", "area, off by"]
    ]
    rows = [
        _row(images, size, height, rotation, options.rounds)
        for rotation in _ROTATIONS
        for size in (32, 64, 256)
        for height in (100, 200, 400, 1000, 3000)
    ]
    print_rows([*heads, *rows])


def _row(
    images: list[npt.NDArray[np.uint8]], size: int, height: int, rotation: float, rounds: int
) -> list[str]:
    """One crop size and height of a region; the images are enlarged to show as much of it."""
    seconds: dict[Resample, list[float]] = {"linear": [], "area": []}
    errors: dict[Resample, list[float]] = {"linear": [], "area": []}
    for image in images:
        scale = height / min(image.shape[:2])
        scene = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC).astype(np.uint8)
        center = (scene.shape[1] / 2, scene.shape[0] / 2)
        matrix = crop_matrix(CropRegion(center, (height, height), rotation), (size, size))
        expected = _mean_of_many(scene, matrix, size)
        for way in seconds:
            started = time.process_time()
            for _ in range(rounds):
                crop = warp_crop(scene, matrix, (size, size), way)
            seconds[way].append((time.process_time() - started) / rounds)
            errors[way].append(float(np.abs(crop - expected).mean()))
    times = [f"{1e3 * statistics.median(values):.3f}" for values in seconds.values()]
    off = [f"{statistics.mean(values):.2f}" for values in errors.values()]
    return [f"{size}x{size}", f"{height}x{height}", f"{rotation:.0f}°", *times, *off]


def _mean_of_many(
    image: npt.NDArray[np.uint8], matrix: npt.NDArray[np.float64], size: int
) -> npt.NDArray[np.float32]:
    """The crop by the mean of many samples of the image in float32."""
    finer = _SAMPLES * matrix
    finer[:, 2] += (_SAMPLES - 1) / 2
    side = size * _SAMPLES
    fine = cv2.warpAffine(image.astype(np.float32), finer, (side, side), flags=cv2.INTER_LINEAR)
    return cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32, copy=False)


if __name__ == "__main__":
    main()
