"""A data set of your own in COCO format, with joints of your own: desk lamps with a foot, an elbow and a head."""

import json
from pathlib import Path

import cv2
import numpy as np

import cdkd_ext
from cdkd_ext.data import DataConfig
from cdkd_ext.training import TrainingConfig


def write(folder: Path, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images, people = [], []
    for i in range(count):
        joints = np.array([[64, 110], [64, 60], [64, 20]]) + random.integers(-15, 15, (3, 2))
        image = np.full((128, 128, 3), 255, np.uint8)
        cv2.polylines(image, [joints.reshape(-1, 1, 2).astype(np.int32)], False, (40, 90, 200), 6)
        cv2.imwrite(str(folder / "images" / f"{i}.png"), image)
        images.append({"id": i, "file_name": f"{i}.png", "width": 128, "height": 128})
        keypoints = [int(value) for x, y in joints for value in (x, y, 2)]  # 2: visible
        box = [20, 5, 90, 120]  # x, y, width, height
        place = {"id": i, "image_id": i, "category_id": 1, "bbox": box, "area": 10800}
        people.append({**place, "keypoints": keypoints})
    lamp = {"id": 1, "name": "lamp", "keypoints": ["foot", "elbow", "head"], "skeleton": [[1, 2], [2, 3]]}
    content = {
        "images": images,
        "annotations": people,
        "categories": [{**lamp, "flip_pairs": [], "sigmas": [0.05] * 3}],
    }
    (folder / "annotations.json").write_text(json.dumps(content))


write(Path("lamps/train"), 320, seed=0)
write(Path("lamps/val"), 32, seed=1)
data = DataConfig(root="lamps", workers=0)
cdkd_ext.train(TrainingConfig(output="runs/lamps", data=data, epochs=5, batch_size=16))
