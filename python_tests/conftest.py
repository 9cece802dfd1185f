"""Fixtures shared by the whole suite."""

from __future__ import annotations

import colorsys
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file in one process, and those that share the compiled emulation too."""
    for item in items:
        folder = "emulation"
        group = folder if folder in item.path.parts else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real photographs; tests that need it skip where it is absent."""
    chosen = os.environ.get("CDKD_TEST_DATA")
    folder = Path(chosen) if chosen else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs real photographs at {folder} (set CDKD_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def drawn_people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set of drawn people: 48 people to train on, 12 to validate."""
    from cdkd_ext.synthetic.dataset import draw_people

    root = tmp_path_factory.mktemp("drawn_people")
    draw_people(root / "train", 48, seed=0)
    draw_people(root / "val", 12, seed=1)
    return root


@pytest.fixture(scope="session")
def no_host_reads() -> Callable[[], AbstractContextManager[Any]]:
    """A context that fails where code would make the host wait for a GPU.

    Give it tensors on the device "meta", whose values cannot be read, so that code takes the paths it takes on a GPU.
    """
    from torch import Tensor
    from torch.overrides import TorchFunctionMode, resolve_name

    reads = {"item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__", "nonzero"}
    # a tensor made of Python numbers is copied to a GPU from memory that is not pinned
    makes = {"tensor", "as_tensor", "new_tensor", "from_numpy"}

    class NoHostReads(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = getattr(function, "__name__", "")
            assert name not in reads, f"{resolve_name(function)} waits for the device"
            result = function(*args, **(kwargs or {}))
            made = name in makes and isinstance(result, Tensor) and result.device.type != "cpu"
            assert not made, f"{resolve_name(function)} waits for the device"
            return result

    return NoHostReads


# one colour per joint, so that a picture tells where each joint is
_JOINT_COLORS = np.array([colorsys.hsv_to_rgb(j / 17, 1, 1) for j in range(17)]) * 255


@pytest.fixture(scope="session")
def joint_colors() -> np.ndarray:
    """RGB (17, 3), the colours of the joints in the pictures of `official_data`."""
    return _JOINT_COLORS


def _write_picture(path: Path, joints: np.ndarray, rng: np.random.Generator) -> None:
    """A dark picture of 160 x 140 pixels with a coloured dot on each joint (J, 2)."""
    import cv2

    image = rng.integers(0, 20, (140, 160, 3), dtype=np.uint8)
    for (x, y), color in zip(joints, _JOINT_COLORS, strict=False):
        cv2.circle(image, (round(x), round(y)), 2, color[::-1].round().tolist(), -1)
    cv2.imwrite(str(path), image)


@pytest.fixture(scope="session")
def official_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MPII and COCO in their official layouts, under mpii/ and coco/: six pictures for training, four for validation.

    coco/boxes.json holds two detected boxes per validation person. A joint is a dot in its colour of `joint_colors`.
    """
    root = tmp_path_factory.mktemp("official")
    rng = np.random.default_rng(11)
    _write_mpii(root / "mpii", rng)
    _write_coco(root / "coco", rng)
    return root


def _write_mpii(folder: Path, rng: np.random.Generator) -> None:
    from scipy.io import savemat

    (folder / "annot").mkdir(parents=True)
    (folder / "images").mkdir()
    for split, count in (("train", 6), ("valid", 4)):
        entries: list[dict[str, Any]] = []
        joints = rng.uniform(30, 110, (count, 16, 2)).round(1)
        missing = rng.random((count, 16)) < 0.1
        for i in range(count):
            _write_picture(folder / f"images/{split}{i}.png", joints[i], rng)
            # coordinates in the files start at one
            written = np.where(missing[i, :, None], -1.0, joints[i] + 1)
            entries.append(
                {
                    "image": f"{split}{i}.png",
                    "center": [71.0, 71.0 - 15 * 0.5],
                    "scale": 0.5,
                    "joints": written.tolist(),
                    "joints_vis": (~missing[i]).astype(int).tolist(),
                }
            )
        (folder / f"annot/{split}.json").write_text(json.dumps(entries))
        if split == "valid":
            corners = np.zeros((2, count))
            content = {
                "headboxes_src": np.stack([corners, corners + np.array([[12.0], [16.0]])]),
                "pos_gt_src": (joints + 1).transpose(1, 2, 0),
                "jnt_missing": missing.T.astype(float),
            }
            savemat(folder / "annot/gt_valid.mat", content)


def _write_coco(folder: Path, rng: np.random.Generator) -> None:
    from cdkd_ext.joints import COCO_JOINTS

    (folder / "annotations").mkdir(parents=True)
    detections: list[dict[str, Any]] = []
    for split, count in (("train2017", 6), ("val2017", 4)):
        (folder / split).mkdir()
        images, annotations = [], []
        for i in range(count):
            images.append({"id": i + 1, "file_name": f"{i + 1:012d}.png", "height": 140, "width": 160})
            points = rng.uniform((40, 30), (120, 110), (17, 2)).round()
            _write_picture(folder / split / f"{i + 1:012d}.png", points, rng)
            low, high = points.min(0) - 5, points.max(0) + 5
            box = [*low.tolist(), *(high - low).tolist()]
            person = {
                "id": i + 1,
                "image_id": i + 1,
                "category_id": 1,
                "keypoints": np.column_stack([points, np.full(17, 2)]).ravel().tolist(),
                "num_keypoints": 17,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            annotations.append(person)
            if split == "val2017":
                moved = [box[0] - 2, box[1] + 1, box[2] + 4, box[3]]
                for found, score in ((moved, 0.9), (box, 0.6)):
                    detections.append({"image_id": i + 1, "category_id": 1, "bbox": found, "score": score})
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 1, "name": "person", **COCO_JOINTS.to_category()}],
        }
        (folder / f"annotations/person_keypoints_{split}.json").write_text(json.dumps(content))
    (folder / "boxes.json").write_text(json.dumps(detections))


# a finder in front of all others, which does not find
_BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture(scope="session")
def run_without() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python code in a process of its own where some packages are not installed."""

    def run(packages: Sequence[str], code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", _BLOCKER.format(packages=set(packages)) + code, *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        # where no source folder hides the installed package
        folder = Path(__file__).parent
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)

    return run
