"""Pieces of an image: they cover it, overlap, and show everybody once."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdkd_ext.detectors import DetectionOptions, Detector
from cdkd_ext.detectors.letterbox import Letterbox
from cdkd_ext.detectors.pieces import Piece, pieces
from cdkd_ext.errors import InputError

FEWEST = 12  # pixels in the input that the detector of these tests needs of a person


@given(st.integers(1, 400), st.integers(1, 400), st.integers(2, 9))
def test_they_cover_an_image_and_overlap_by_a_quarter(height: int, width: int, count: int) -> None:
    seen = np.zeros((height, width), int)
    found = pieces((height, width), count)
    for piece in found:
        assert piece.top >= 0 and piece.left >= 0
        part = seen[piece.top : piece.top + piece.height, piece.left : piece.left + piece.width]
        assert part.shape == (piece.height, piece.width)
        part += 1
    assert seen.min() > 0
    for starts, side in (
        (sorted({piece.left for piece in found}), found[0].width),
        (sorted({piece.top for piece in found}), found[0].height),
    ):
        assert len(starts) <= count
        assert all(start + side - other >= side // 4 for start, other in pairwise(starts))


def test_the_number_is_that_of_the_longer_side() -> None:
    assert pieces((1080, 1920), 1) == [Piece(0, 0, 1080, 1920)]
    found = pieces((1080, 1920), 5)
    assert len({piece.left for piece in found}) == 5 and len({piece.top for piece in found}) == 3
    assert {(piece.height, piece.width) for piece in found} == {(480, 480)}


def seeing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a detector find bright areas that are high enough in its input, whole ones and parts of them."""

    def found(self: Detector, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        box = Letterbox.fit(image.shape[:2], self.size)
        count, _, areas, _ = cv2.connectedComponentsWithStats((image[..., 0] > 100).astype(np.uint8))
        x, y, w, h = (areas[1:count, i].astype(np.float32) for i in range(4))
        corners = np.stack([x, y, x + w, y + h], 1)
        return corners[(h * box.inner[0] / image.shape[0]) >= FEWEST], np.full(
            int((h * box.inner[0] / image.shape[0] >= FEWEST).sum()), 0.9, np.float32
        )

    monkeypatch.setattr(Detector, "_found", found)


def test_everybody_is_found_once_near_and_far(write_detector, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_detector({"output0": np.zeros((1, 84, 8400), np.float32)}, (1, 3, 640, 640))
    seeing(monkeypatch)
    image = np.zeros((1080, 1920, 3), np.uint8)
    near = [(900, 300, 250, 700)]
    # about the borders of pieces, which lie at 360, 480, 720, 840, ... of the width
    far = [(350 + 60 * i, 20 + 7 * i, 12, 32) for i in range(9)] + [(5, 1040, 12, 32), (1900, 470, 14, 32)]
    for x, y, w, h in near + far:
        image[y : y + h, x : x + w] = 255
    boxes, _ = Detector(path)(image)
    assert sorted(map(tuple, boxes)) == near
    boxes, scores = Detector(path, DetectionOptions(tiles=5))(image)
    assert sorted(map(tuple, boxes)) == sorted(near + far)
    assert len(scores) == len(boxes)


def test_options_that_do_not_fit() -> None:
    for options, message in (
        ({"tiles": 0}, "detection.tiles: expected 1 to 64, got 0"),
        ({"tiles": 2, "overlap": 1.0}, "detection.overlap: expected less than 1 with tiles"),
    ):
        with pytest.raises(InputError, match=message):
            DetectionOptions(**options).validate()
