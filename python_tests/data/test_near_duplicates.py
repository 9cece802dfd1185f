"""Images are near-duplicates when they show the same, not when they are merely alike."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from cdkd_ext.data.near_duplicates import BITS, NearDuplicates, difference_hash
from cdkd_ext.errors import InputError
from cdkd_ext.images import read_image


def scene(seed: int) -> np.ndarray:
    """A smooth coloured image (120, 160, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_CUBIC)


def differing(first: np.ndarray, second: np.ndarray) -> int:
    return int(np.unpackbits(difference_hash(first) ^ difference_hash(second)).sum())


def test_the_bits_of_a_ramp() -> None:
    ramp = np.tile(np.arange(0, 170, 10, dtype=np.uint8)[None, :, None], (16, 1, 3))
    bits = difference_hash(ramp)
    assert bits.dtype == np.uint8 and bits.shape == (BITS // 8,) and (bits == 255).all()
    assert (difference_hash(ramp[:, ::-1].copy()) == 0).all()


def test_other_images_of_the_same_scene_are_close() -> None:
    for seed in range(5):
        image = scene(seed)
        brighter = np.clip(image.astype(int) + 10, 0, 255).astype(np.uint8)
        smaller = cv2.resize(image, (80, 60), interpolation=cv2.INTER_AREA)
        compressed = cv2.imdecode(cv2.imencode(".jpg", image)[1], cv2.IMREAD_COLOR)
        for other in (brighter, smaller, compressed):
            assert differing(image, other) < 12
        assert min(differing(image, scene(other)) for other in range(5) if other != seed) > 60


def test_only_what_is_not_close_to_a_kept_one_is_kept() -> None:
    rng = np.random.default_rng(0)
    known = NearDuplicates(distance=3)
    hashes = rng.integers(0, 256, (200, BITS // 8), dtype=np.uint8)
    # two hundred random ones are far from each other, and more than are held at first
    assert all(known.add(bits) for bits in hashes)
    for bits in hashes[::17]:
        close, far = bits.copy(), bits.copy()
        close[0] ^= 0b111
        far[0] ^= 0b1111
        assert not known.add(close) and known.add(far)


def test_below_zero_everything_is_kept() -> None:
    bits = difference_hash(scene(0))
    known = NearDuplicates(distance=-1)
    assert known.add(bits) and known.add(bits)
    known = NearDuplicates(distance=0)
    assert known.add(bits) and not known.add(bits)


def test_no_distance() -> None:
    with pytest.raises(InputError, match="distance: expected at most 256 bits, got 257"):
        NearDuplicates(257)


def test_photographs_differ(shared_data: Path) -> None:
    files = sorted((shared_data / "coco_mini/train2017").glob("*.jpg"))
    known = NearDuplicates(distance=60)
    assert all(known.add(difference_hash(read_image(file))) for file in files)
