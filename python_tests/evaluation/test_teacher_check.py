"""A look at a teacher: on graphs that see dots, and on MoveNet."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from cdkd_ext.cli import main
from cdkd_ext.data import DataConfig, crop_from_afar
from cdkd_ext.errors import InputError
from cdkd_ext.evaluation import check_teacher, teacher_check
from cdkd_ext.images import read_image, save_image
from cdkd_ext.teachers import TeacherOptions

NAMES = ["nose", "left_eye", "right_eye"]


@pytest.fixture
def people(tmp_path):
    """Five images whose joints are soft dots in the three colour channels."""
    rng = np.random.default_rng(5)
    folder = tmp_path / "people/val"
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for i in range(1, 6):
        points = rng.uniform((30, 25), (70, 55), (3, 2))
        y, x = np.mgrid[:80, :100]
        planes = [255 * np.exp(-((x - a) ** 2 + (y - b) ** 2) / 40) for a, b in points]
        save_image(np.stack(planes, -1).astype(np.uint8), folder / f"images/{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": 100, "height": 80})
        person = {
            "id": i,
            "image_id": i,
            "category_id": 1,
            "bbox": [10, 8, 80, 64],
            "area": 900,
            "iscrowd": 0,
        }
        keypoints = np.column_stack([points, np.full(3, 2)]).ravel().tolist()
        annotations.append({**person, "keypoints": keypoints, "num_keypoints": 3, "head_size": 10.0})
    category = {
        "id": 1,
        "name": "person",
        "keypoints": NAMES,
        "skeleton": [[1, 2], [1, 3]],
        "sigmas": [0.1] * 3,
    }
    content = {"images": images, "annotations": annotations, "categories": [category]}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder.parent


@pytest.fixture
def teacher(make_graph, tmp_path):
    make_graph(size=(64, 80))

    def write(**fields):
        path = tmp_path / "teacher.yaml"
        described = {"file": "dots.onnx", "kind": "heatmap", "joints": NAMES}
        path.write_text(yaml.safe_dump({**described, **fields}))
        return str(path)

    return write


@pytest.mark.parametrize("metric", ["pckh", "AP"])
def test_a_teacher_that_is_described_rightly(people, teacher, tmp_path, metric):
    page = str(tmp_path / "page.png")
    data = DataConfig(root=str(people), metric=metric)
    found = check_teacher(teacher(), data, people=4, output=page, cpu=True)
    assert found.people == 4 and found.metric == {"pckh": "PCKh@0.5", "AP": "AR"}[metric]
    assert found.value == 100 and found.mirrored_value < 50
    assert found.confidence > 0.75
    assert np.abs(found.shift).max() < 0.5
    # two rows of two people, three tiles each
    assert read_image(page).shape[1] > 6 * 224
    assert "PCKh" in str(found) or "AR" in str(found)


def test_mistakes_show(people, teacher, tmp_path):
    page = str(tmp_path / "page.png")
    data = DataConfig(root=str(people))
    exchanged = check_teacher(teacher(joints=["nose", "right_eye", "left_eye"]), data, output=page, cpu=True)
    assert exchanged.mirrored_value > exchanged.value
    assert "are the joints' sides the other ones?" in str(exchanged)
    shifts = [
        check_teacher(teacher(cells=cells), data, output=page, cpu=True).shift
        for cells in ("center", "corner")
    ]
    # a cell's middle is a pixel and a half beside its first pixel
    assert np.subtract(*shifts) == pytest.approx((1.5, 1.5), abs=0.6)


def coloured(people, factors):
    """Multiply red and blue of each image with two numbers."""
    for i, (red, blue) in enumerate(factors, 1):
        path = people / f"val/images/{i}.png"
        save_image((read_image(path) * np.array([red, 1, blue])).astype(np.uint8), path)


@pytest.mark.parametrize(
    ("factors", "hint"),
    [
        ([(0.2, 1), (1, 0.3), (0.2, 1), (1, 0.3), (0.6, 1)], False),
        ([(0.2, 1), (0.6, 1), (0.5, 1), (0.3, 1), (0.7, 1)], True),
    ],
)
def test_colours_are_the_other_ones_only_beyond_chance(people, teacher, tmp_path, factors, hint):
    coloured(people, factors)
    # the nose is red, and blue where the colours are exchanged
    path = teacher(joints=["nose", "left_ear", "right_ear"])
    found = check_teacher(path, DataConfig(root=str(people)), output=str(tmp_path / "page.png"), cpu=True)
    assert found.swapped_confidence > found.confidence and found.swapped_is_surer == hint
    assert ("is color_order the other one?" in str(found)) == hint


@pytest.mark.parametrize(("exchanged", "hint"), [(3, False), (5, True)])
@pytest.mark.parametrize("metric", ["pckh", "AP"])
def test_sides_are_the_other_ones_only_beyond_chance(people, teacher, tmp_path, exchanged, hint, metric):
    file = people / "val/annotations.json"
    content = json.loads(file.read_text())
    for person in content["annotations"][:exchanged]:
        nose, left, right = np.reshape(person["keypoints"], (3, 3)).tolist()
        person["keypoints"] = [*nose, *right, *left]
    file.write_text(json.dumps(content))
    data = DataConfig(root=str(people), metric=metric)
    found = check_teacher(teacher(), data, output=str(tmp_path / "page.png"), cpu=True)
    assert found.mirrored_value > found.value and found.mirrored_is_better == hint
    assert ("are the joints' sides the other ones?" in str(found)) == hint


def test_a_few_people_are_no_reason_to_hint(people, teacher, tmp_path):
    coloured(people, [(0.3, 1)] * 5)
    path, page = teacher(joints=["nose", "left_ear", "right_ear"]), str(tmp_path / "page.png")
    hints = [
        check_teacher(
            path, DataConfig(root=str(people)), people=count, output=page, cpu=True
        ).swapped_is_surer
        for count in (1, 4, 5)
    ]
    assert hints == [False, False, True]


def test_the_page_shows_what_the_network_is_shown(people, teacher, tmp_path, monkeypatch):
    enlarge = teacher_check.enlarge

    def drawn(**options):
        """The crops of the page, before they are enlarged."""
        seen = []
        monkeypatch.setattr(
            teacher_check, "enlarge", lambda crop, size: (seen.append(crop), enlarge(crop, size))[1]
        )
        check_teacher(
            teacher(),
            DataConfig(root=str(people)),
            teacher_options=TeacherOptions(**options),
            output=str(tmp_path / "page.png"),
            cpu=True,
        )
        # every other one has distributions over it
        return seen[::2]

    sharp, shown = drawn(), drawn(height=16)
    assert len(sharp) == len(shown) == 5
    for crop, far in zip(sharp, shown, strict=True):
        wanted = crop_from_afar(np.ascontiguousarray(crop), np.eye(2, 3), crop.shape[:2], 16)
        assert np.array_equal(far, wanted) and not np.array_equal(far, crop)


def test_people_without_labels(people, teacher, tmp_path, capsys):
    """Footage shows how sure a teacher is and what it says; nothing is measured."""
    data = DataConfig(images=str(people / "val/images"), image_boxes="whole")
    found = check_teacher(teacher(joints=NAMES), data, output=str(tmp_path / "page.png"), people=4, cpu=True)
    assert (found.people, found.metric, found.mirrored_is_better) == (4, None, False)
    assert found.confidence > 0.5
    assert str(found).endswith("page.png (prediction, distributions)")
    labelled = check_teacher(
        teacher(joints=NAMES),
        DataConfig(root=str(people)),
        output=str(tmp_path / "other.png"),
        people=4,
        cpu=True,
    )
    sizes = [read_image(tmp_path / name).shape[1] for name in ("page.png", "other.png")]
    # two tiles a person, and three
    assert sizes[0] < sizes[1] and labelled.metric is not None
    words = ["teacher", "check", teacher(joints=NAMES), f"--data.images={people / 'val/images'}"]
    assert main([*words, "--data.image_boxes=whole", f"--output={tmp_path / 'third.png'}", "--cpu=true"]) == 0
    assert "confidence: " in capsys.readouterr().out
    assert main([*words, f"--output={tmp_path / 'third.png'}"]) == 2
    assert "data.detector and data.image_boxes: expected one of them" in capsys.readouterr().err


def test_the_command(people, teacher, tmp_path, capsys):
    page = tmp_path / "page.png"
    options = ["--data.root", str(people), "--people", "2", "--output", str(page), "--cpu", "true"]
    assert main(["teacher", "check", teacher(), *options]) == 0
    printed = capsys.readouterr().out
    assert "joints: nose, left_eye, right_eye" in printed and f"images: {page}" in printed
    assert main(["teacher", "see", teacher(), *options]) == 2
    assert capsys.readouterr().err == "cdkd: action: expected one of 'check', got 'see'\n"


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        ("runs/teacher", {}, "teacher: expected an ONNX file or a YAML file that describes one; `cdkd eval`"),
        ("x.onnx", {"people": 0}, "people: expected a positive number"),
        ("x.onnx", {"output": "page.html"}, r"output: expected the name of a PNG file, got page\.html"),
        ("none.onnx", {}, r"teacher: expected an existing file, got none\.onnx"),
    ],
)
def test_bad_input(people, file, options, message):
    with pytest.raises(InputError, match=message):
        check_teacher(file, DataConfig(root=str(people)), **options)


def test_movenet_on_real_people(shared_data, tmp_path):
    """The measured 60 percent of all people are 62 of these 24, of whom some are upside down."""
    file = str(shared_data / "teachers/movenet_lightning_heads.onnx")
    data = DataConfig(root=str(shared_data / "lspet"))
    options = TeacherOptions(flip=True)
    page = str(tmp_path / "page.png")
    found = check_teacher(file, data, teacher_options=options, people=24, output=page, cpu=True)
    assert found.value > 50 and found.mirrored_value < found.value - 15
    assert found.swapped_confidence < found.confidence
    assert np.abs(found.shift).max() < 3
