"""A tiny COCO-format data set, written anew for each test."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

Edit = Callable[[dict[str, Any]], object]


@dataclass(frozen=True)
class TinyData:
    """Two pictures of 40 x 60 pixels with three people of three joints."""

    folder: Path

    @property
    def annotations(self) -> Path:
        return self.folder / "annotations.json"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    def edit(self, edit: Edit) -> None:
        content = json.loads(self.annotations.read_text())
        edit(content)
        self.annotations.write_text(json.dumps(content))


@pytest.fixture
def tiny_data(tmp_path: Path) -> TinyData:
    data = TinyData(tmp_path)
    data.images.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.jpg"):
        cv2.imwrite(str(data.images / name), rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    box = [10.0, 5.0, 30.0, 20.0]
    content = {
        "images": [
            {"id": 7, "file_name": "a.png", "height": 40, "width": 60},
            {"id": 9, "file_name": "b.jpg"},
        ],
        "categories": [{"id": 1, "name": "person", "keypoints": ["nose", "left_hand", "right_hand"]}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "keypoints": [11, 6, 2, 20, 12.5, 1, 0, 0, 0],
             "bbox": box, "area": 345.5, "head_size": 8.25},
            {"id": 2, "image_id": 9, "category_id": 1, "keypoints": [30, 8, 2, 20, 9, 2, 14, 15, 2],
             "bbox": box},
            {"id": 3, "image_id": 9, "category_id": 1, "keypoints": [3, 4, 0] + [0] * 6, "bbox": box},
            {"id": 4, "image_id": 9, "category_id": 1, "iscrowd": 1},
            {"id": 5, "image_id": 9, "category_id": 18, "bbox": box},
        ],
    }  # fmt: skip
    data.annotations.write_text(json.dumps(content))
    return data
