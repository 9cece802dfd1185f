"""Every layout of a detector's outputs gives the same people; what is none is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cdkd_ext.detectors import DetectionOptions, Detector
from cdkd_ext.detectors.layouts import grid_cells
from cdkd_ext.errors import InputError
from cdkd_ext.images import read_image

SIZE = (64, 64)
CELLS = 84  # 64 + 16 + 4
CLASSES = 3
# two people, the second of them found twice, and one of another class: corners in the input
PEOPLE = np.array([[10, 20, 30, 60], [32, 16, 60, 48]], np.float32)
SCORES = np.array([0.9, 0.75], np.float32)
AGAIN, OTHER = np.array([33, 16, 60, 48], np.float32), np.array([2, 2, 20, 20], np.float32)
# an image of 32 x 64 lies in the middle of 64 x 64, 16 rows below the top
IMAGE = np.zeros((32, 64, 3), np.uint8)
EXPECTED = np.array([[10, 4, 20, 28], [32, 0, 28, 32]], np.float32)


def centers(corners: np.ndarray) -> np.ndarray:
    return np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1)


def candidates(person: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners (5, 4), scores (5,) and classes (5,) of what the drawn detector sees."""
    other = (person + 1) % CLASSES
    corners = np.stack([OTHER, PEOPLE[1], AGAIN, PEOPLE[0], OTHER])
    scores = np.array([0.95, 0.75, 0.7, 0.9, 0.2], np.float32)
    return corners, scores, np.array([other, person, person, person, person])


def scored_rows(count: int, person: int = 0, *, objectness: bool = False) -> np.ndarray:
    """(count, 4 + classes): the candidates at scattered places among boxes without score."""
    corners, scores, classes = candidates(person)
    rows = np.zeros((count, 4 + objectness + CLASSES), np.float32)
    rows[:, :4] = [32, 32, 8, 8]
    for place, corner, score, label in zip((5, 17, 60, 83, 0), corners, scores, classes, strict=True):
        rows[place, :4] = centers(corner[None])[0]
        if objectness:
            rows[place, 4], score = 0.96, score / 0.96
        rows[place, 4 + objectness + label] = score
    return rows


def found(path: Path, **options) -> tuple[np.ndarray, np.ndarray]:
    return Detector(path, DetectionOptions(**options), threads=1)(IMAGE)


def assert_people(path: Path, expected: str, **options) -> None:
    detector = Detector(path, DetectionOptions(**options), threads=1)
    assert detector.layout == expected and detector.size == SIZE
    boxes, scores = detector(IMAGE)
    assert boxes.dtype == scores.dtype == np.float32
    np.testing.assert_allclose(boxes, EXPECTED, atol=1e-4)
    np.testing.assert_allclose(scores, SCORES, atol=1e-6)


def test_cells_of_the_usual_inputs() -> None:
    assert grid_cells((640, 640)) == 8400 and grid_cells(SIZE) == CELLS


@pytest.mark.parametrize("open_axes", [False, True])
def test_columns_of_boxes_and_classes(write_detector, open_axes: bool) -> None:
    rows = scored_rows(CELLS)
    assert_people(write_detector({"output0": rows.T[None].copy()}), "yolo")
    many = np.zeros((CELLS, 84), np.float32)
    many[:, : rows.shape[1]] = rows
    path = write_detector({"output0": many.T[None].copy()}, name="many.onnx")
    assert_people(path, "yolo")


def test_rows_with_objectness(write_detector) -> None:
    rows = scored_rows(3 * CELLS, objectness=True)
    assert_people(write_detector({"output": rows[None]}), "yolo_objectness")


def test_rows_with_objectness_of_people_alone(write_detector) -> None:
    rows = scored_rows(3 * CELLS, objectness=True)[:, :6].copy()
    assert_people(write_detector({"output": rows[None]}), "yolo_objectness")


def test_the_grids_beside_the_rows_are_not_looked_at(write_detector) -> None:
    grids = {f"grid{i}": np.zeros((1, 3, n, n, 8), np.float32) for i, n in enumerate((8, 4, 2))}
    rows = scored_rows(3 * CELLS, objectness=True)
    assert_people(write_detector({"output": rows[None], **grids}), "yolo_objectness")


def test_rows_relative_to_the_grid(write_detector) -> None:
    rows = scored_rows(CELLS, objectness=True)
    places = [(8, i % 8, i // 8) for i in range(64)]
    places += [(16, i % 4, i // 4) for i in range(16)] + [(32, i % 2, i // 2) for i in range(4)]
    for row, (stride, x, y) in zip(rows, places, strict=True):
        row[:2] = row[:2] / stride - (x, y)
        row[2:4] = np.log(row[2:4] / stride)
    path = write_detector({"output": rows[None]})
    assert Detector(path).layout == "yolox"
    assert_people(path, "yolox", place="center")
    # decoded inside of the graph, it looks the same: the user tells
    path = write_detector({"output": scored_rows(CELLS, objectness=True)[None]}, name="decoded.onnx")
    assert_people(path, "yolo_objectness", layout="yolo_objectness")


@pytest.mark.parametrize("open_axes", [False, True])
def test_rows_after_the_suppression(write_detector, open_axes: bool) -> None:
    corners, scores, classes = candidates()
    rows = np.zeros((1, 300, 6), np.float32)
    rows[0, :5] = np.column_stack([corners, scores, classes])
    assert_people(write_detector({"output0": rows}, open_axes=open_axes), "rows")


def test_boxes_scores_and_labels(write_detector) -> None:
    corners, scores, classes = candidates()
    outputs = {"labels": classes[None].astype(np.int64), "boxes": corners[None], "scores": scores[None]}
    assert_people(write_detector(outputs), "boxes")


def test_boxes_and_a_score_for_every_class(write_detector) -> None:
    corners, scores, classes = candidates()
    each = np.zeros((5, CLASSES), np.float32)
    each[np.arange(5), classes] = scores
    assert_people(write_detector({"a": corners[None], "b": each[None]}), "boxes")
    assert_people(write_detector({"b": each.T[None].copy(), "a": corners[None]}), "boxes")


def test_boxes_with_their_scores_beside_labels_lie_in_the_corner(write_detector) -> None:
    corners, scores, classes = candidates()
    dets = np.column_stack([corners, scores]).astype(np.float32)[None]
    path = write_detector({"dets": dets, "labels": classes[None].astype(np.int64)})
    assert_people(path, "boxes", place="center")
    boxes, _ = found(path)
    np.testing.assert_allclose(boxes, [[10, 20, 20, 12], [32, 16, 28, 16]], atol=1e-4)


def test_torchvision_counts_classes_from_one(write_detector) -> None:
    corners, scores, classes = candidates(person=1)
    outputs = {"3211": corners, "3219": classes.astype(np.int64), "3222": scores}
    assert_people(write_detector(outputs, (3, *SIZE)), "boxes", place="center")


def test_the_file_names_its_classes(write_detector) -> None:
    rows = scored_rows(CELLS, person=1)
    metadata = {"names": "{0: 'cat', 1: 'Person', 2: 'car'}", "task": "detect", "imgsz": "[64, 64]"}
    path = write_detector({"output0": rows.T[None].copy()}, (1, 3, "h", "w"), metadata=metadata)
    assert_people(path, "yolo")
    metadata["names"] = "['cat', 'person', 'car']"
    assert_people(
        write_detector({"output0": rows.T[None].copy()}, (1, 3, "h", "w"), metadata=metadata), "yolo"
    )
    path = write_detector({"output0": rows.T[None].copy()}, name="silent.onnx")
    assert len(found(path)[0]) == 0
    assert_people(path, "yolo", person=1)


def test_thresholds(write_detector) -> None:
    path = write_detector({"output0": scored_rows(CELLS).T[None].copy()})
    # IoU of the second person's two boxes: 27 / 28
    assert len(found(path, overlap=0.97)[0]) == 3 and len(found(path, overlap=1.0)[0]) == 3
    assert len(found(path, overlap=0.96)[0]) == 2
    assert len(found(path, min_score=0.8)[0]) == 1 and len(found(path, min_score=0.91)[0]) == 0
    boxes, scores = found(path, min_score=0.99)
    assert boxes.shape == (0, 4) and scores.shape == (0,)


def test_boxes_without_area_or_number_are_nobody(write_detector) -> None:
    corners = np.array([[10, 20, 10, 60], [10, 20, 30, 19], [0, 0, np.nan, 4], [0, 0, 9, 15]], np.float32)
    path = write_detector({"boxes": corners[None], "scores": np.ones((1, 4), np.float32)})
    # the last one lies in the border alone
    assert len(found(path)[0]) == 0


@pytest.mark.parametrize(
    ("shape", "kind", "options", "expected"),
    [
        ((1, 3, 8, 8), "FLOAT", {}, [200 / 255, 150 / 255, 130 / 255]),
        ((1, 3, 8, 8), "FLOAT16", {}, [200 / 255, 150 / 255, 130 / 255]),
        ((1, 3, 8, 8), "FLOAT", {"colors": "bgr", "range": "0..255"}, [130, 150, 200]),
        ((1, 3, 8, 8), "FLOAT", {"range": "imagenet"}, [76.325 / 58.395, 33.72 / 57.12, 26.47 / 57.375]),
        ((1, 8, 8, 3), "FLOAT", {}, [200, 150, 130]),
        ((1, 8, 8, 3), "UINT8", {}, [200, 150, 130]),
        ((3, 8, 8), "FLOAT", {}, [200 / 255, 150 / 255, 130 / 255]),
    ],
)
def test_the_network_sees_the_image(tmp_path: Path, shape, kind, options, expected) -> None:
    """A graph of three boxes side by side whose scores are the means of the input's channels."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    channel = shape.index(3)
    axes = [axis for axis in range(len(shape)) if axis != channel]
    nodes = [
        helper.make_node("Cast", ["images"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["values"], ["means"], axes=axes, keepdims=0),
        helper.make_node("Unsqueeze", ["means", "first"], ["scores"]),
        helper.make_node("Identity", ["corners"], ["boxes"]),
    ]
    corners = np.array([[[x, 0, x + 2, 8] for x in (0, 3, 6)]], np.float32)
    constants = [numpy_helper.from_array(np.array([0]), "first"), numpy_helper.from_array(corners, "corners")]
    infos = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 3, 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3]),
    ]
    image = helper.make_tensor_value_info("images", getattr(TensorProto, kind), shape)
    graph = helper.make_graph(nodes, "means", [image], infos, constants)
    path = tmp_path / "means.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    boxes, scores = Detector(path, DetectionOptions(**options))(np.full((8, 8, 3), (200, 150, 130), np.uint8))
    np.testing.assert_allclose(scores[np.argsort(boxes[:, 0])], expected, rtol=2e-3)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"heatmap": np.zeros((1, 17, 16, 16), np.float32)}, "the outputs heatmap"),
        ({"x": np.zeros((1, 17, 128), np.float32), "y": np.zeros((1, 17, 128), np.float32)}, "the outputs x"),
        (
            {"output0": np.zeros((1, 56, CELLS), np.float32)},
            r"output0 \(1, 56, 84\) float32, 56 values as a pose",
        ),
        ({"output0": np.zeros((1, 1200, 6), np.float32)}, r"output0 \(1, 1200, 6\) float32, with 84 cells"),
        ({"output0": np.zeros((1, CELLS), np.int64)}, "the outputs output0"),
    ],
)
def test_what_is_no_detector(write_detector, outputs, message: str) -> None:
    path = write_detector(outputs)
    with pytest.raises(InputError, match=rf"detector\.onnx: expected .*, got {message}") as caught:
        Detector(path)
    assert "\n" not in str(caught.value)


def test_boxes_in_shares_of_the_image_are_none_in_pixels(write_detector) -> None:
    corners = np.full((1, 9, 4), 0.5, np.float32)
    logits = np.zeros((1, 9, 80), np.float32)
    with pytest.raises(
        InputError, match=r"detector\.onnx: expected a graph that ends in scores and boxes in pixels"
    ):
        Detector(write_detector({"logits": logits, "pred_boxes": corners}))
    image = np.zeros((*SIZE, 3), np.uint8)
    shares = Detector(
        write_detector({"boxes": corners, "scores": np.ones((1, 9), np.float32)}, name="shares.onnx")
    )
    with pytest.raises(InputError, match="boxes of the detector: expected boxes in pixels of its input"):
        shares(image)
    nobody = Detector(
        write_detector({"boxes": 0 * corners, "scores": np.ones((1, 9), np.float32)}, name="nobody.onnx")
    )
    assert len(nobody(image)[0]) == 0


def test_other_networks_of_its_makers(write_detector) -> None:
    path = write_detector({"output0": scored_rows(CELLS).T[None].copy()}, metadata={"task": "pose"})
    with pytest.raises(InputError, match=r"expected a detector, got a network for the task 'pose'"):
        Detector(path)
    names = {"names": "{0: 'cat', 1: 'car'}"}
    path = write_detector({"output0": scored_rows(CELLS).T[None].copy()}, metadata=names)
    with pytest.raises(InputError, match=r"names: expected a class called person, or its number"):
        Detector(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"imgsz": "['a', 64]"}, r"imgsz: expected a height and a width in its metadata, got \['a', 64\]"),
        ({"imgsz": "[64, -64]"}, r"imgsz: expected a height and a width in its metadata, got \[64, -64\]"),
        ({"names": "{'a': 'person'}"}, r"names: expected a class called person, or its number"),
    ],
)
def test_metadata_of_another_kind(write_detector, metadata, message: str) -> None:
    rows = scored_rows(CELLS).T[None].copy()
    path = write_detector(
        {"output0": rows}, (1, 3, "h" if "imgsz" in metadata else 64, 64), metadata=metadata
    )
    with pytest.raises(InputError, match=message):
        Detector(path)


def test_metadata_that_are_no_literals_say_nothing(write_detector) -> None:
    metadata = {"names": "{[]: 'person'}", "imgsz": "[64,"}
    path = write_detector(
        {"output0": np.zeros((1, 84, 8400), np.float32)}, (1, 3, "h", "w"), metadata=metadata
    )
    assert (Detector(path).size, Detector(path).person) == ((640, 640), 0)


@pytest.mark.parametrize("shape", [(1, 4, 64, 64), (2, 3, 64, 64), (1, 3)])
def test_inputs_that_are_no_image(write_detector, shape) -> None:
    with pytest.raises(InputError, match=r"detector\.onnx: inputs: expected "):
        Detector(write_detector({"output0": scored_rows(CELLS).T[None].copy()}, shape))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_score": 0}, r"detection\.min_score: expected a number above 0, up to 1, got 0"),
        ({"overlap": 1.5}, r"detection\.overlap"),
        ({"layout": "yolo12"}, r"detection\.layout: expected one of 'auto', 'yolo'"),
        ({"range": "1"}, r"detection\.range"),
        ({"colors": "grey"}, r"detection\.colors"),
        ({"place": "left"}, r"detection\.place"),
        ({"person": -1}, r"detection\.person"),
        ({"size": (0, 4)}, r"detection\.size"),
        ({"size": (32, 32)}, r"detection\.size: expected the size of .*detector\.onnx's input"),
        ({"border": 256}, r"detection\.border"),
        ({"person": 3}, r"detection\.person: expected the number of one of 3 classes, got 3"),
    ],
)
def test_options_out_of_range(write_detector, options, message: str) -> None:
    path = write_detector({"output0": scored_rows(CELLS).T[None].copy()})
    with pytest.raises(InputError, match=message):
        found(path, **options)


def test_no_image(write_detector) -> None:
    detector = Detector(write_detector({"output0": scored_rows(CELLS).T[None].copy()}))
    with pytest.raises(InputError, match=r"image: expected an RGB uint8 array"):
        detector(np.zeros((4, 4), np.uint8))


def test_a_real_detector_on_photographs(shared_data: Path) -> None:
    """Recall and precision at IoU 0.5 as its maker's own code has them: 52 and 89 percent."""
    root = shared_data / "coco_mini"
    content = json.loads((root / "annotations/person_keypoints_train2017.json").read_text())
    path = shared_data / "teachers/person_detector_nanodet.onnx"
    detector = Detector(path, DetectionOptions(min_score=0.4), threads=1)
    people = right = wrong = 0
    for image in content["images"]:
        rows = [row for row in content["annotations"] if row["image_id"] == image["id"]]
        wanted = [row["bbox"] for row in rows if not row["iscrowd"]]
        crowds = [row["bbox"] for row in rows if row["iscrowd"]]
        people += len(wanted)
        for box in detector(read_image(root / "train2017" / image["file_name"]))[0]:
            best = max(wanted, key=lambda other: overlap(box, other), default=None)
            if best is not None and overlap(box, best) >= 0.5:
                wanted.remove(best)
                right += 1
            elif not any(overlap(box, crowd, of_first=True) >= 0.5 for crowd in crowds):
                wrong += 1
    assert 0.50 < right / people < 0.54
    assert 0.86 < right / (right + wrong) < 0.92


def overlap(first, second, *, of_first: bool = False) -> float:
    (x, y, w, h), (u, v, p, q) = first, second
    common = max(0.0, min(x + w, u + p) - max(x, u)) * max(0.0, min(y + h, v + q) - max(y, v))
    return common / (w * h if of_first else w * h + p * q - common)


def test_without_onnxruntime(run_without: Callable) -> None:
    done = run_without(["onnxruntime"], "import cdkd_ext.detectors; print('fine')")
    assert done.stdout == "fine\n", done.stderr


@pytest.mark.parametrize("layout", ["yolox", "yolo_objectness", "rows"])
def test_a_layout_that_is_not_the_file_s_is_named(write_detector, layout: str) -> None:
    path = write_detector({"boxes": np.zeros((1, 300, 2), np.float32)})
    with pytest.raises(
        InputError, match=rf"detection.layout: expected .*, got {layout} for the outputs boxes \(1, 300, 2\)"
    ):
        found(path, layout=layout)
