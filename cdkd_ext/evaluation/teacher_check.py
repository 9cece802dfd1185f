"""Whether a teacher that is not of this package is described rightly: metrics on a few people, and a page of images."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cdkd_ext.data import DataConfig, EvaluationSet, PoseDataset
from cdkd_ext.data.footage import footage_folder, load_footage
from cdkd_ext.data.loading import load_validation
from cdkd_ext.errors import check, fail
from cdkd_ext.evaluation.accuracy import ACCURACY_NAMES, people_accuracy
from cdkd_ext.files import check_writable
from cdkd_ext.images import Image, save_image
from cdkd_ext.inference.drawing import draw_pose, enlarge, enlarge_points, tile
from cdkd_ext.teachers import ForeignTeacher, TeacherFile, TeacherOptions

Floats = npt.NDArray[np.floating[Any]]
_OPTIONS = TeacherOptions()
_SIDE = 224  # pixels of a tile's longer side
_BATCH = 16
_MOST_DRAWN = 32
_SURE = 0.2  # joints below it are not drawn
_STANDARD_ERRORS = 2  # above which a difference is beyond chance
_FEWEST = 5  # people of whom a standard error says something


@dataclass(frozen=True)
class TeacherCheck:
    """What `check_teacher` found.

    Attributes:
        teacher: the file.
        joints: which joints come from which, in one line.
        people: how many people were asked about.
        confidence: mean over the joints that the teacher knows.
        swapped_confidence: the same with red and blue exchanged in the crops.
        swapped_is_surer: whether it is higher beyond chance: by two standard errors over five people or more.
        metric: "PCKh@0.5" or "AR" (over OKS from 0.5 to 0.95), in percent; None where no label can be compared.
        value: of the metric, over the joints that the teacher knows.
        mirrored_value: the same with left and right exchanged in the predictions.
        mirrored_is_better: whether it is higher beyond chance.
        shift: median (x, y) of prediction minus label in pixels of the teacher's crop, among the joints that are about
            right and the middle of no two.
        page: the file with the images.
    """

    teacher: str
    joints: str
    people: int
    confidence: float
    swapped_confidence: float
    swapped_is_surer: bool
    metric: str | None
    value: float
    mirrored_value: float
    mirrored_is_better: bool
    shift: tuple[float, float]
    page: str

    def __str__(self) -> str:
        """Some lines for people."""
        lines = [f"teacher: {self.teacher}, {self.people} people", f"joints: {self.joints}"]
        hint = "; is color_order the other one?" if self.swapped_is_surer else ""
        lines.append(
            f"confidence: {self.confidence:.3f}, with red and blue exchanged {self.swapped_confidence:.3f}{hint}"
        )
        if self.metric is not None:
            hint = "; are the joints' sides the other ones?" if self.mirrored_is_better else ""
            lines += [
                f"{self.metric}: {self.value:.1f}, with left and right exchanged {self.mirrored_value:.1f}{hint}",
                "shift against the labels: x {:+.1f}, y {:+.1f} pixels of its crop".format(*self.shift),
            ]
        shown = "prediction, distributions" + ("" if self.metric is None else ", labels")
        return "\n".join([*lines, f"images: {self.page} ({shown})"])


def check_teacher(
    teacher: str,
    data: DataConfig,
    *,
    teacher_options: TeacherOptions = _OPTIONS,
    people: int = 16,
    output: str = "teacher_check.png",
    cpu: bool = False,
) -> TeacherCheck:
    """Ask a teacher about a few people and show what it says: the way to see that its description is right.

    The page has three images per person: the crop with the teacher's keypoints, its distributions, and the labels;
    with `teacher_options.height` the crop as the teacher sees it.

    Args:
        teacher: an ONNX file, or a YAML file that describes one.
        data: images and annotations, or footage, of which nothing is measured; the people are spread evenly over the
            validation people, or those of the footage.
        teacher_options: how the teacher is asked.
        people: how many people to look at.
        output: the page, a PNG file.
        cpu: stay on the CPU where there is a GPU.

    Raises:
        InputError: a file is missing or malformed, the network is not as described, or no joint matches.
    """
    check(people > 0, "people", people, "a positive number")
    check(output.lower().endswith(".png"), "output", output, "the name of a PNG file")
    check_writable("output", output)
    file = TeacherFile(teacher, options=teacher_options)
    expected = (
        "an ONNX file or a YAML file that describes one; `cdkd eval` measures checkpoints of this package"
    )
    check(file.is_foreign, "teacher", teacher, expected)
    with _people(data, file) as truth:
        return _checked(teacher, file, data, truth, people=people, output=output, cpu=cpu)


@contextmanager
def _people(data: DataConfig, file: TeacherFile) -> Iterator[EvaluationSet]:
    """The people with labels, else those of the footage, whose frames are there within the block."""
    if data.root is not None or not data.images:
        yield load_validation(data)
        return
    joints = file.joints()
    if joints is None:
        fail(
            "teacher",
            f"{file.path}, which does not name its joints",
            "one that does, or people with labels (--data.root)",
        )
    with tempfile.TemporaryDirectory() as folder:
        footage = load_footage(data, footage_folder(data, Path(folder)), joints)
        yield EvaluationSet(footage.persons, joints, "none", Path(), "found in the footage")


def _checked(
    teacher: str,
    file: TeacherFile,
    data: DataConfig,
    truth: EvaluationSet,
    *,
    people: int,
    output: str,
    cpu: bool,
) -> TeacherCheck:
    device = "cpu" if cpu or not torch.accelerator.is_available() else "cuda"
    loaded = file.load(device, truth.joints)
    assert isinstance(loaded, ForeignTeacher)
    chosen = _spread(len(truth.persons), people)
    padding = loaded.teacher_spec.padding if data.padding is None else data.padding
    dataset = PoseDataset(
        [truth.persons[index] for index in chosen],
        truth.joints,
        size=loaded.teacher_spec.input_size,
        padding=padding,
        resample=data.resample or loaded.teacher_spec.resample,
    )
    asked = _ask(loaded, dataset)
    save_image(_page(asked, loaded, truth), output)
    known = np.array([bool(sources) for sources in loaded.joint_map.sources])
    confidence, swapped = asked.confidence[:, known], asked.swapped_confidence[:, known]
    metric, values, mirrored_is_better, shift = _measure(asked, dataset, truth, loaded)
    return TeacherCheck(
        teacher,
        str(loaded.joint_map),
        len(dataset),
        float(confidence.mean()),
        float(swapped.mean()),
        _beyond_chance((swapped - confidence).mean(1)),
        metric,
        *values,
        mirrored_is_better,
        shift,
        output,
    )


@dataclass(frozen=True)
class _Asked:
    """Distributions for some crops, crops (N, H, W, 3) as the network sees them, and predictions and labels in their pixels."""

    densities: list[Floats]
    crops: npt.NDArray[np.uint8]
    keypoints: Floats
    confidence: Floats
    swapped_confidence: Floats
    labels: Floats
    annotated: Floats
    to_image: Floats


def _spread(count: int, wanted: int) -> list[int]:
    """Indices of `wanted` of `count` people, evenly."""
    return sorted({int(index) for index in np.linspace(0, count - 1, min(wanted, count))})


def _ask(teacher: ForeignTeacher, dataset: PoseDataset) -> _Asked:
    parts: list[list[torch.Tensor]] = []
    densities: list[Floats] = []
    for start in range(0, len(dataset), _BATCH):
        samples = [dataset[index] for index in range(start, min(start + _BATCH, len(dataset)))]
        images = torch.stack([sample["image"] for sample in samples])
        said = teacher.predict(images)
        swapped = teacher.predict(images.flip(1)).confidence
        labels = [
            torch.stack([sample[name] for sample in samples])
            for name in ("keypoints", "annotated", "to_image")
        ]
        parts.append(
            [
                teacher.seen(images).permute(0, 2, 3, 1),
                said.keypoints.cpu(),
                said.confidence.cpu(),
                swapped.cpu(),
                *labels,
            ]
        )
        densities += _densities(teacher, images[: max(0, _MOST_DRAWN - start)])
    arrays = [torch.cat(part).numpy() for part in zip(*parts, strict=True)]
    return _Asked(densities, *arrays)


def _densities(teacher: ForeignTeacher, images: torch.Tensor) -> list[Floats]:
    """What the teacher's distributions say of every pixel of the crops, the highest of the joints, relative to the top."""
    if len(images) == 0:
        return []
    output, spec = teacher(images), teacher.teacher_spec
    assert output.logits_x is not None and output.logits_y is not None
    assert output.confidence is not None and spec.num_bins is not None
    found = []
    for x, y, confidence in zip(output.logits_x, output.logits_y, output.confidence, strict=True):
        axes = []
        for axis, logits in enumerate((x, y)):
            pixels, bins = spec.input_size[1 - axis], spec.num_bins[axis]
            places = spec.bin_origin[axis] + np.arange(bins) * pixels / bins
            shares = logits.exp().cpu().numpy()
            axes.append(np.stack([np.interp(np.arange(pixels), places, row) for row in shares]))
        # one joint after the other: all at once would be large
        planes = [
            np.outer(down, across) / max(down.max() * across.max(), 1e-12) * float(sure)
            for across, down, sure in zip(*axes, confidence, strict=True)
        ]
        found.append(np.max(planes, axis=0))
    return found


def _measure(
    asked: _Asked, dataset: PoseDataset, truth: EvaluationSet, teacher: ForeignTeacher
) -> tuple[str | None, tuple[float, float], bool, tuple[float, float]]:
    """The metric's name, its value as predicted and with exchanged sides, whether these are better, and the median shift."""
    nothing = float("nan")
    sources = np.array([len(known) for known in teacher.joint_map.sources])
    compared = asked.annotated * (sources > 0)
    if truth.metric == "none" or not compared.any():
        return None, (nothing, nothing), False, (nothing, nothing)
    flip = list(truth.joints.flip_permutation)
    predicted = [_in_image(points, asked.to_image) for points in (asked.keypoints, asked.keypoints[:, flip])]
    measured = truth.joints, sources > 0, truth.metric
    value, mirrored = (people_accuracy(points, dataset.persons, *measured) for points in predicted)
    each = [
        [
            people_accuracy(points[index : index + 1], [person], *measured)
            for index, person in enumerate(dataset.persons)
        ]
        for points in predicted
    ]
    mirrored_is_better = mirrored > value and _beyond_chance(np.subtract(each[1], each[0]))
    error = asked.keypoints - asked.labels
    # a twentieth of the crop: what is further away is another mistake than a shift
    near = (asked.annotated * (sources == 1) > 0) & (
        np.linalg.norm(error, axis=-1) < 0.05 * max(asked.crops.shape[1:3])
    )
    shift = np.median(error[near], axis=0) if near.any() else (nothing, nothing)
    return (
        ACCURACY_NAMES[truth.metric],
        (value, mirrored),
        mirrored_is_better,
        (float(shift[0]), float(shift[1])),
    )


def _beyond_chance(differences: Floats) -> bool:
    """Whether the mean of people's differences is above zero by more than what chance explains; nan counts as nobody."""
    counted = differences[np.isfinite(differences)]
    if len(counted) < _FEWEST:
        return False
    error = counted.std(ddof=1) / math.sqrt(len(counted))
    # rounding is no difference, where all differ alike
    return bool(counted.mean() > max(_STANDARD_ERRORS * error, 1e-6))


def _in_image(points: Floats, to_image: Floats) -> Floats:
    return points @ to_image[:, :, :2].transpose(0, 2, 1) + to_image[:, None, :, 2]


def _page(asked: _Asked, teacher: ForeignTeacher, truth: EvaluationSet) -> Image:
    """Two people a row, three tiles each, or two without labels."""
    labelled = bool(asked.annotated.any())
    rows: list[list[Image]] = []
    height, width = asked.crops.shape[1:3]
    size = (round(_SIDE * height / max(height, width)), round(_SIDE * width / max(height, width)))
    for index, density in enumerate(asked.densities):
        crop = asked.crops[index]
        large = enlarge(crop, size)
        points, labels = (
            enlarge_points(values[index], (height, width), size) for values in (asked.keypoints, asked.labels)
        )
        tiles = [
            draw_pose(large, points, truth.joints, drawn=asked.confidence[index] >= _SURE),
            enlarge(_glow(crop, density), size),
        ]
        if labelled:
            tiles.append(draw_pose(large, labels, truth.joints, drawn=asked.annotated[index] > 0))
        if index % 2 == 0:
            rows.append(tiles)
        else:
            rows[-1] += tiles
    blank = np.full((*size, 3), 255, np.uint8)
    titles = ["prediction", "distributions", *(["labels"] if labelled else [])] * 2
    full = [row + [blank] * (len(titles) - len(row)) for row in rows]
    return tile(full, titles)


def _glow(crop: Image, density: Floats) -> Image:
    """The crop in the dark, with the distributions in yellow."""
    light = np.array([255.0, 230.0, 60.0])
    share = density.clip(0, 1)[..., None]
    return np.asarray((1 - share) * crop * 0.45 + share * light, dtype=np.uint8)
