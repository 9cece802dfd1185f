"""An image of what teacher and students see and say, a row for each person."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from cdkd_ext.checkpoints import load_model
from cdkd_ext.data import Person, PoseDataset
from cdkd_ext.demo.arms import ARMS, TENTH_ALONE, TENTH_DISTILLED
from cdkd_ext.demo.measure import Measured
from cdkd_ext.images import Image
from cdkd_ext.inference import draw_pose, enlarge, enlarge_points, predict_crops, save_image, tile
from cdkd_ext.joints import JointSet
from cdkd_ext.models import PoseNetwork

_TILE = (224, 224)
_PEOPLE = 6
_WRONG = (230, 30, 40)
_INK = (20, 20, 20)
_PAPER = (255, 255, 255)
_THRESHOLD = 0.5  # head lengths


def draw_predictions(output: Path, measured: Measured, teacher: Path) -> None:
    """Write predictions.png: a person with labels, what teacher and students see, and what each says of it.

    Args:
        output: folder of the runs, whose first seeds are shown.
        measured: says whom the teacher helped.
        teacher: the teacher's file.
    """
    people = [measured.truth.persons[index] for index in _chosen(measured)]
    students = {arm.title: load_model(output / f"{arm.name}_0/last.safetensors").eval() for arm in ARMS}
    seen = _Seen(measured.truth.joints, load_model(teacher).eval(), students)
    height, width = seen.teacher.input_size
    titles = ("person and labels", f"teacher, {height}x{width}", "what the students see", *students)
    save_image(tile([seen.row(person) for person in people], titles), output / "predictions.png")


def _chosen(measured: Measured) -> list[int]:
    """People at equal steps from whom the teacher helped most to whom it helped least, with a tenth of the labels."""
    hits = [[result.hits for result in measured.results[arm]] for arm in (TENTH_DISTILLED, TENTH_ALONE)]
    taught, alone = (np.sum([one.per_person()[0] for one in row if one is not None], axis=0) for row in hits)
    order = np.argsort(alone - taught, kind="stable")
    places = np.linspace(0.03, 0.97, _PEOPLE) * (len(order) - 1)
    return [int(order[round(place)]) for place in places]


@dataclass(frozen=True)
class _Seen:
    """What networks see and say of a person.

    Args:
        joints: of all networks.
        teacher: the network that taught.
        students: by title.
    """

    joints: JointSet
    teacher: PoseNetwork
    students: dict[str, PoseNetwork]

    def row(self, person: Person) -> list[Image]:
        """The tiles of a person."""
        full = PoseDataset([person], self.joints, size=_TILE)[0]
        crop, labels = _to_image(full["image"]), full["keypoints"].numpy()
        annotated = full["annotated"].numpy() > 0
        # a head in pixels of the tile
        reach = _THRESHOLD * person.head_size / float(full["to_image"][0, 0])
        said = {}
        for title, network in {"teacher": self.teacher, **self.students}.items():
            view, points = self._asked(network, person)
            found = np.linalg.norm(points - labels, axis=1) <= reach
            said[title] = view, _marked(draw_pose(view, points, self.joints), points, found, annotated)
        plain = next(said[title][0] for title in self.students)
        return [
            draw_pose(crop, labels, self.joints, drawn=annotated),
            said["teacher"][1],
            plain,
            *(said[title][1] for title in self.students),
        ]

    def _asked(self, network: PoseNetwork, person: Person) -> tuple[Image, npt.NDArray[np.floating]]:
        """What a network sees, enlarged, and the keypoints (J, 2) that it tells, in its pixels."""
        size = network.input_size
        view = PoseDataset([person], self.joints, size=size, resample=network.spec.resample)[0]["image"]
        permutation = torch.tensor(self.joints.flip_permutation)
        points = predict_crops(network, view[None], flip_permutation=permutation)[0][0].numpy()
        return enlarge(_to_image(view), _TILE), enlarge_points(points, size, _TILE)


def _marked(
    image: Image,
    points: npt.NDArray[np.floating],
    found: npt.NDArray[np.bool_],
    annotated: npt.NDArray[np.bool_],
) -> Image:
    """Draw a ring around each annotated joint that is wrong, and write how many of them are right."""
    for x, y in points[annotated & ~found]:
        cv2.circle(image, (round(float(x)), round(float(y))), 5, _WRONG, 1, cv2.LINE_AA)
    count = f"{np.count_nonzero(annotated & found)}/{np.count_nonzero(annotated)}"
    corner = (6, image.shape[0] - 8)
    # light on dark, to be read on any picture
    for color, thickness in ((_INK, 5), (_PAPER, 2)):
        cv2.putText(image, count, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.7, color, thickness, cv2.LINE_AA)
    return image


def _to_image(tensor: torch.Tensor) -> Image:
    """(3, h, w) uint8 tensor to an (h, w, 3) array."""
    return np.ascontiguousarray(tensor.permute(1, 2, 0).numpy())
