"""Images with an orientation tag: as stored, or as the tag turns them, through a whole data set."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from cdkd_ext.data import Augmentation
from cdkd_ext.data.config import DataConfig
from cdkd_ext.data.loading import load_people, training_set
from cdkd_ext.data.stored_crops import StoredCrops, build_stored_crops
from cdkd_ext.errors import InputError

# an APP1 segment with one tag: orientation 6, to be turned a quarter clockwise
_TIFF = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
_SEGMENT = b"\xff\xe1" + (8 + len(_TIFF)).to_bytes(2, "big") + b"Exif\0\0" + _TIFF


@pytest.fixture
def turned(tmp_path):
    """Images that are 60 high and 40 wide, and white above, once their tags are applied."""
    stored = np.zeros((40, 60, 3), np.uint8)
    stored[:, :30] = 255
    jpeg = cv2.imencode(".jpg", stored)[1].tobytes()
    person = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 40, 60], "head_size": 9.0}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 60, "width": 40}],
        "categories": [{"id": 1, "name": "person", "keypoints": ["nose", "left_hand", "right_hand"]}],
        "annotations": [{**person, "keypoints": [20, 10, 2] * 3}],
    }
    for split in ("train", "val"):
        (tmp_path / split / "images").mkdir(parents=True)
        (tmp_path / split / "images/a.jpg").write_bytes(jpeg[:2] + _SEGMENT + jpeg[2:])
        (tmp_path / split / "annotations.json").write_text(json.dumps(content))
    return tmp_path


def samples(root, **options):
    still = Augmentation(scale=0, rotation=0, flip=0, half_body=0)
    config = DataConfig(root=str(root), augmentation=still, **options)
    people = load_people(config, root / "run")
    return people, training_set(people, config, (48, 32), padding=1.0, seed=0, teacher_size=None)


def test_annotations_of_turned_images_are_read_with_the_option(turned):
    people, dataset = samples(turned, upright=True)
    image = dataset[0]["image"].float().mean((0, 2))
    assert image[:20].min() > 200 and image[28:].max() < 50
    assert all(person.upright for person in (*people.train, *people.val.persons))
    stored = StoredCrops(dataset, build_stored_crops(dataset, turned / "cache"))
    rows = stored.batch([(0, 0)])["stored_image"][0].float().mean((0, 2))
    # a third of the width shows what is beside the image
    assert rows[: len(rows) // 2 - 8].max() > 150 and rows[len(rows) // 2 + 8 :].max() < 50


def test_without_it_pixels_are_as_stored_and_the_message_tells(turned):
    _, dataset = samples(turned)
    with pytest.raises(InputError, match=r"height 40, width 60 as stored, before its EXIF"):
        dataset[0]
