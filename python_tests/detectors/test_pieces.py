"""Pieces of an image: they cover it, overlap, and show everybody once."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdkd_ext.detectors import DetectionOptions, Detector
from cdkd_ext.detectors.letterbox import Letterbox
from cdkd_ext.detectors.pieces import Piece, merged, pieces
from cdkd_ext.errors import InputError
from cdkd_ext.images import read_image

SHRUNK = 0.3
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


def test_of_two_boxes_of_two_pieces_the_better_one_stays() -> None:
    first = (
        np.array([[0, 0, 10, 20], [2, 0, 10, 20], [50, 0, 10, 20]], np.float32),
        np.array([0.9, 0.8, 0.3], np.float32),
    )
    # a part of the third, and another one
    second = np.array([[51, 2, 8, 10], [80, 0, 10, 20]], np.float32), np.array([0.5, 0.6], np.float32)
    boxes, scores = merged([first, second], 0.6)
    # what one piece tells apart stays apart
    assert boxes.tolist() == [[0, 0, 10, 20], [2, 0, 10, 20], [80, 0, 10, 20], [51, 2, 8, 10]]
    assert scores.tolist() == pytest.approx([0.9, 0.8, 0.6, 0.5])
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
    assert [value.shape for value in merged([nothing, nothing], 0.6)] == [(0, 4), (0,)]


def test_a_real_detector_finds_people_far_away_in_pieces(shared_data: Path) -> None:
    """Photographs side by side in a wide shot, in which half of the people are 22 pixels high or smaller."""
    pytest.importorskip("onnxruntime")
    folder = shared_data / "coco_mini"
    content = json.loads((folder / "annotations/person_keypoints_train2017.json").read_text())
    canvas, people = np.zeros((1080, 1920, 3), np.uint8), []
    x = y = row = 0
    for entry in content["images"]:
        image = read_image(next(folder.rglob(entry["file_name"])))
        small = cv2.resize(image, None, fx=SHRUNK, fy=SHRUNK, interpolation=cv2.INTER_AREA)
        height, width = small.shape[:2]
        if x + width > 1920:
            x, y, row = 0, y + row, 0
        if y + height > 1080:
            break
        canvas[y : y + height, x : x + width] = small
        boxes = [
            a["bbox"] for a in content["annotations"] if a["image_id"] == entry["id"] and not a["iscrowd"]
        ]
        people += [[x + SHRUNK * a, y + SHRUNK * b, SHRUNK * w, SHRUNK * h] for a, b, w, h in boxes]
        x, row = x + width, max(row, height)
    truth = np.array(people)
    assert np.median(truth[:, 3]) < 22
    found = []
    for tiles in (1, 4):
        detector = Detector(
            shared_data / "teachers/person_detector_nanodet.onnx", DetectionOptions(tiles=tiles)
        )
        boxes, _ = detector(canvas)
        overlap = overlaps(truth, boxes) >= 0.5
        # of the boxes most are somebody's; people who stand close together may share one
        assert overlap.any(0).mean() > 0.7 and (overlap.sum(1) > 1).sum() <= 1
        found.append(int(overlap.any(1).sum()))
    assert found[1] >= 5 * found[0] > 0


def overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of each box x, y, w, h with each other."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, :2] + first[:, None, 2:], second[None, :, :2] + second[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    return shared / (first[:, 2:].prod(-1)[:, None] + second[:, 2:].prod(-1)[None] - shared)


def test_options_that_do_not_fit() -> None:
    for options, message in (
        ({"tiles": 0}, "detection.tiles: expected 1 to 64, got 0"),
        ({"tiles": 2, "overlap": 1.0}, "detection.overlap: expected less than 1 with tiles"),
    ):
        with pytest.raises(InputError, match=message):
            DetectionOptions(**options).validate()
