"""The people of footage: from whole images, files and detectors, each seen once."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest

import cdkd_ext.data.footage as footage_module
from cdkd_ext.data import DataConfig, Person, PoseDataset
from cdkd_ext.data.footage import Footage, _file_of_seen, load_footage
from cdkd_ext.detectors import DetectionOptions, Detector
from cdkd_ext.errors import InputError
from cdkd_ext.images import read_image, save_image
from cdkd_ext.joints import COCO_JOINTS
from cdkd_ext.onnx_file import onnx_digest


def scene(seed: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three images, of which the second shows nearly what the first does, and a broken one."""
    folder = tmp_path / "images"
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        image = scene(seed)
        image[0, 0] ^= name == "b"
        save_image(image, folder / f"{name}.png")
    (folder / "d.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    """A detector that finds two people in every image, at the same places of its input of 64 x 64."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    boxes = np.array([[[4, 12, 20, 40], [30, 20, 60, 56]]], np.float32)
    constants = [
        numpy_helper.from_array(boxes, "where"),
        numpy_helper.from_array(np.array([[0.5, 0.9]], np.float32), "sure"),
    ]
    nodes = [helper.make_node("Identity", [a], [b]) for a, b in (("where", "boxes"), ("sure", "scores"))]
    infos = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 2, 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 2]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 64, 64])
    graph = helper.make_graph(nodes, "detector", [image], infos, constants)
    path = tmp_path / "detector.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images that are read from now on, and of those that the detector sees."""
    seen: list[str] = []
    read, detect = footage_module.read_image, Detector.__call__

    def reading(path, *arguments, **options):
        seen.append(Path(path).name)
        return read(path, *arguments, **options)

    def detecting(self, image):
        seen.append("detect")
        return detect(self, image)

    monkeypatch.setattr(footage_module, "read_image", reading)
    monkeypatch.setattr(Detector, "__call__", detecting)
    return seen


def load(images: Path | str, **options):
    folder = options.pop("folder", Path(images).parent / "cache")
    return load_footage(DataConfig(images=str(images), **options), folder, COCO_JOINTS)


def test_whole_images(images: Path) -> None:
    footage = load(images, image_boxes="whole")
    assert str(footage).startswith(
        "2 people in 2 images, boxes of 48 to 48 pixels' height (48 in the middle); left out 1 near-duplicates; could not "
    )
    assert footage.duplicates == 1 and len(footage.broken) == 1 and "d.jpg" in footage.broken[0]
    assert [person.image_path.name for person in footage.persons] == ["a.png", "c.png"]
    for person in footage.persons:
        np.testing.assert_array_equal(person.box, np.array([0, 0, 64, 48], np.float32))
        assert person.keypoints.shape == (17, 2) and person.annotated.shape == (17,)
        assert not person.annotated.any() and person.score == 1 and person.upright
    assert len(load(images, image_boxes="whole", near_duplicates=-1).persons) == 3


def test_boxes_of_a_file(images: Path, tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("a.png,1,2,30,40,0.9\na.png,5,6,7,8,0.2\nb.png,1,2,3,4\nd.jpg,1,2,3,4\n")
    footage = load(images, image_boxes=str(boxes))
    # the near-duplicate and the broken image are left out with their boxes; c.png shows nobody
    assert [(person.image_path.name, person.annotation_id) for person in footage.persons] == [
        ("a.png", 0),
        ("a.png", 1),
    ]
    assert footage.images == 2
    np.testing.assert_array_equal(footage.persons[0].box, np.array([1, 2, 30, 40], np.float32))
    assert len(load(images, image_boxes=str(boxes), min_box_score=0.5).persons) == 1
    boxes.write_text("a.png,1,2,30,40\nz.png,1,2,3,4\n")
    with pytest.raises(InputError, match=r"boxes\.csv: expected boxes of the images.* not there: 'z\.png'"):
        load(images, image_boxes=str(boxes))


def street(folder: Path, places: list[int]) -> None:
    """Frames of a camera that stands still: somebody on a bench, somebody who walks, and traffic behind."""
    bench, walker = scene(10, (40, 24)), scene(11, (40, 24))
    for number, x in enumerate(places):
        image = scene(20 + number, (80, 160))
        noise = np.random.default_rng(number).normal(0, 3, bench.shape)
        image[20:60, 4:28] = np.clip(bench + noise, 0, 255)
        image[20:60, x : x + 24] = np.roll(walker, 7 * number, axis=1)
        save_image(image, folder / f"{number}.png")
    rows = [f"{n}.png,{place},20,24,40" for n, x in enumerate(places) for place in (4, x)]
    (folder.parent / "boxes.csv").write_text("\n".join(rows))


def test_people_who_do_not_move_are_left_out_though_the_frame_changes(tmp_path: Path, looks) -> None:
    street(tmp_path / "images", [40, 60, 90, 120])
    options = {"image_boxes": str(tmp_path / "boxes.csv")}
    everybody = load(tmp_path / "images", **options)
    assert len(everybody.persons) == 8 and everybody.duplicate_people == 0 and everybody.images == 4
    looks.clear()
    footage = load(tmp_path / "images", **options, near_duplicate_people=16)
    assert [(person.image_path.stem, person.annotation_id) for person in footage.persons] == [
        ("0", 0), ("0", 1), ("1", 1), ("2", 1), ("3", 1),
    ]  # fmt: skip
    assert footage.duplicate_people == 3
    assert str(footage).startswith("5 people in 4 images, boxes of ")
    assert str(footage).endswith("in the middle); left out 3 people who look like an earlier one")
    assert looks == ["0.png", "1.png", "2.png", "3.png"]
    # what boxes show is kept, as what images show
    looks.clear()
    assert str(load(tmp_path / "images", **options, near_duplicate_people=16)) == str(footage) and not looks


def test_a_person_who_moves_is_kept_though_the_frame_is_a_near_duplicate(tmp_path: Path) -> None:
    """One is small in a large image, whose hash stays the same."""
    folder = tmp_path / "images"
    for number in range(3):
        image = scene(3, (480, 640))
        image[100:112, 100:108] = scene(30 + number, (12, 8))
        save_image(image, folder / f"{number}.png")
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("\n".join(f"{number}.png,100,100,8,12" for number in range(3)))
    options = {"image_boxes": str(boxes)}
    assert len(load(folder, **options).persons) == 1
    assert len(load(folder, **options, near_duplicates=-1, near_duplicate_people=16).persons) == 3


def test_a_box_beside_the_image_is_a_pixel_of_its_edge(images: Path, tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("a.png,-50,-50,20,20\nc.png,500,500,20,20\n")
    footage = load(images, image_boxes=str(boxes), near_duplicate_people=0)
    assert len(footage.persons) + footage.duplicate_people == 2


def test_what_a_detector_finds(images: Path, detector: Path) -> None:
    footage = load(images, detector=str(detector))
    assert [person.image_path.name for person in footage.persons] == ["a.png", "a.png", "c.png", "c.png"]
    # the input has 8 rows above the image
    np.testing.assert_allclose(footage.persons[0].box, [30, 12, 30, 36])
    np.testing.assert_allclose(footage.persons[1].box, [4, 4, 16, 28])
    np.testing.assert_allclose([person.score for person in footage.persons[:2]], [0.9, 0.5])
    assert len(load(images, detector=str(detector), detection=DetectionOptions(min_score=0.6)).persons) == 2


def test_every_image_is_looked_at_once(images: Path, detector: Path, looks: list[str]) -> None:
    first = load(images, detector=str(detector))
    # read once for hash and detector; the near-duplicate meets no detector
    assert looks == ["a.png", "detect", "b.png", "c.png", "detect", "d.jpg"]
    looks.clear()
    again = load(images, detector=str(detector))
    assert looks == [] and str(again) == str(first)
    for one, other in zip(first.persons, again.persons, strict=True):
        np.testing.assert_array_equal(one.box, other.box)
    # a new image alone; then one that changed
    save_image(scene(2), images / "e.png")
    load(images, detector=str(detector))
    assert looks == ["e.png", "detect"]
    looks.clear()
    save_image(scene(3, (50, 64)), images / "c.png")
    load(images, detector=str(detector))
    assert looks == ["c.png", "detect"]
    looks.clear()
    # other options may find others
    load(images, detector=str(detector), detection=DetectionOptions(overlap=0.5))
    assert looks.count("detect") == 3
    looks.clear()
    # and what was copied was seen
    copied = shutil.copytree(images, images.parent / "copied")
    again = load(copied, detector=str(detector))
    assert looks == [] and {person.image_path.parent for person in again.persons} == {copied}
    assert again.broken == [first.broken[0].replace(str(images), str(copied))]


def test_an_interruption_keeps_what_was_seen(images: Path, detector: Path, looks: list[str]) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    config = DataConfig(images=str(images), detector=str(detector))
    with pytest.raises(KeyboardInterrupt):
        load_footage(config, images.parent / "cache", COCO_JOINTS, progress=interrupt)
    assert looks == ["a.png", "detect", "b.png"]
    looks.clear()
    load(images, detector=str(detector))
    assert looks == ["c.png", "detect", "d.jpg"]


def test_damaged_notes_are_written_anew(images: Path, looks: list[str]) -> None:
    load(images, image_boxes="whole")
    (notes,) = (images.parent / "cache").glob("*.json")
    for content in ("{", "[]", '{"a": {"no": 1}}', '{"a": 1}'):
        notes.write_text(content)
        looks.clear()
        assert len(load(images, image_boxes="whole").persons) == 2 and len(looks) == 4
    assert len(json.loads(notes.read_text())) == 4


def test_a_video_is_footage(tmp_path: Path, detector: Path) -> None:
    video = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    for i in range(30):
        writer.write(scene(i // 10))
    writer.release()
    footage = load(video, detector=str(detector), frames=15)
    # three scenes
    assert footage.images == 3 and footage.duplicates == 12
    assert footage.persons[0].image_id == str(video / "000001.jpg")
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("clip.mp4/000001.jpg,1,2,3,4\nclip.mp4/000002.jpg,1,2,3,4\n")
    assert len(load(video, image_boxes=str(boxes), frames=15).persons) == 1


def test_crops_show_images_upright(tmp_path: Path) -> None:
    """Whoever took the photograph held the camera sideways, and boxes are in the image as it is looked at."""
    path = tmp_path / "images/a.jpg"
    stored = np.zeros((40, 60, 3), np.uint8)
    stored[:, :20] = 255
    save_image(stored, path)
    content = path.read_bytes()
    # an EXIF segment with nothing but the orientation 6: turned a quarter clockwise
    tag = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    segment = b"Exif\0\0" + tag
    path.write_bytes(
        content[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + content[2:]
    )
    assert read_image(path, upright=True).shape == (60, 40, 3)
    persons = load(tmp_path / "images", image_boxes="whole").persons
    np.testing.assert_array_equal(persons[0].box, np.array([0, 0, 40, 60], np.float32))
    dataset = PoseDataset([], COCO_JOINTS, size=(60, 40), padding=1.0, footage=persons)
    image = dataset[0]["image"].float()
    assert image[:, :18].mean() > 240 and image[:, 22:].mean() < 15
    assert dataset[0]["labelled"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"data\.detector and data\.image_boxes: expected one of them: .*, got neither"),
        ({"detector": "a.onnx", "image_boxes": "whole"}, r"data\.detector and data\.image_boxes: .*, got both"),
        ({"detector": "none.onnx"}, r"none\.onnx: expected an ONNX file, got no such file"),
        ({"image_boxes": "none.csv"}, r"none\.csv: expected a readable file of boxes"),
        ({"image_boxes": "whole", "min_box_score": 0.5}, r"data\.min_box_score: expected 0 without a file of boxes"),
        ({"detector": "a.onnx", "min_box_score": 0.5}, r"data\.min_box_score: expected 0 .* data\.detection"),
        ({"image_boxes": "whole", "every": -1}, r"data\.every: expected zero or more"),
        ({"image_boxes": "whole", "near_duplicates": 300}, r"data\.near_duplicates: expected at most 256 bits, got 300"),
        ({"image_boxes": "whole", "near_duplicate_people": 257}, r"data\.near_duplicate_people: expected at most 256 bits"),
        (
            {"image_boxes": "whole", "detection": DetectionOptions(min_score=2)},
            r"data\.detection\.min_score: expected",
        ),
    ],
)  # fmt: skip
def test_options_that_are_wrong(images: Path, options, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(images, **options)
    assert "\n" not in str(caught.value)


def test_nobody(images: Path, detector: Path) -> None:
    strict = DetectionOptions(min_score=0.95)
    message = r"data\.images: expected at least one person in the images, got nobody: 0 people in 2 images; left out 1"
    with pytest.raises(InputError, match=message):
        load(images, detector=str(detector), detection=strict)


def test_broken_images_alone(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").write_bytes(b"no image")
    with pytest.raises(
        InputError, match=r"data\.images: .* got nobody: 0 people in 0 images; could not read 1 \(.*a\.jpg"
    ):
        load(tmp_path / "images", image_boxes="whole")


def test_two_runs_add_to_one_anothers_notes(images: Path, detector: Path) -> None:
    """As with a cache that they share: what each saw while the other ran stays."""
    path = images.parent / "seen.json"
    first, second = (footage_module._Seen(path, Detector(detector)) for _ in range(2))
    look = first.at(images / "a.png")
    found = first.boxes(images / "a.png", look)
    second.at(images / "a.png")
    second.at(images / "c.png")
    first.save()
    second.save()
    third = footage_module._Seen(path, Detector(detector))
    assert len(third._looks) == 2
    assert third.at(images / "a.png").boxes == [list(box) for box in found]


def test_an_image_that_is_gone_is_counted(images: Path) -> None:
    seen = footage_module._Seen(images.parent / "seen.json", None)
    assert "No such file" in seen.at(images / "gone.png").broken
    save_image(scene(7), images / "gone.png")
    assert seen.at(images / "gone.png").size == (48, 64)


def test_a_still_camera_is_told_of() -> None:
    """Where most frames look alike, small people may be all that moves."""
    person = Person(
        Path("a.png"), "a", 0, np.zeros(4, np.float32), np.zeros((1, 2)), np.zeros(1), 1.0, math.nan
    )
    hint = "(data.near_duplicates -1 keeps all, where only small people move)"
    assert hint in str(Footage([person], 3, 17)) and hint not in str(Footage([person], 17, 3))


def test_what_a_detector_found_stays_known_without_tiles(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"graph")
    names = [
        _file_of_seen(
            DataConfig(detector=str(tmp_path / "a.onnx"), detection=DetectionOptions(tiles=tiles)), tmp_path
        )
        for tiles in (1, 1, 3)
    ]
    assert names[0] == names[1] != names[2]
    # of the options before there were tiles
    before = {name: value for name, value in asdict(DetectionOptions()).items() if name != "tiles"}
    asked = f"{onnx_digest(tmp_path / 'a.onnx')} {json.dumps(before, sort_keys=True)}"
    assert names[0].name == f"boxes-{hashlib.sha256(asked.encode()).hexdigest()[:12]}.json"
