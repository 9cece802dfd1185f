"""Which joints of which person a network finds: what PCKh is the mean of, and what intervals are computed from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cdkd_ext.data import Person
from cdkd_ext.errors import check
from cdkd_ext.evaluation.pckh import counts_in_mean, within
from cdkd_ext.files import replacing
from cdkd_ext.joint_sides import kind_of
from cdkd_ext.joints import JointSet

LIMBS = ("ankle", "knee", "hip", "wrist", "elbow", "shoulder")


@dataclass(frozen=True)
class JointHits:
    """Which joints of which person are found.

    Attributes:
        right: bool (N, J), within the threshold.
        counted: bool (N, J), annotated joints of people with a head length; a joint that is right is counted.
        names: J names.
    """

    right: npt.NDArray[np.bool_]
    counted: npt.NDArray[np.bool_]
    names: tuple[str, ...]

    def per_person(
        self, joints: Sequence[str] | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """How many joints of each person are right (N,), and how many were counted (N,).

        Args:
            joints: names of those that count; None are all that PCKh's mean counts.

        Raises:
            InputError: there is no joint of such a name.
        """
        chosen = self._chosen(joints)
        return self.right[:, chosen].sum(1), self.counted[:, chosen].sum(1)

    def percent(self, joints: Sequence[str] | None = None) -> float:
        """Percentage of the counted joints that are right; nan where none is counted. See `per_person`."""
        right, counted = self.per_person(joints)
        return float(100 * right.sum() / counted.sum()) if counted.any() else float("nan")

    def save(self, path: str | os.PathLike[str], identity: str = "") -> None:
        """Write them to an .npz file, with what tells network and people from others."""
        with replacing(path) as temporary:
            np.savez_compressed(
                temporary, right=self.right, counted=self.counted, names=self.names, identity=identity
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str], identity: str = "") -> JointHits | None:
        """Read what `save` wrote; None where there is no such file, or it is of another network or other people."""
        if not Path(path).is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as content:
                if str(content["identity"]) != identity:
                    return None
                names = tuple(str(name) for name in content["names"])
                return cls(content["right"], content["counted"], names)
        # whatever a damaged file makes of numpy and zipfile: it is measured anew
        except Exception:
            return None

    def _chosen(self, joints: Sequence[str] | None) -> list[int]:
        if joints is None:
            return np.flatnonzero(counts_in_mean(self.names)).tolist()
        for name in joints:
            check(name in self.names, "joints", name, f"names among {', '.join(self.names)}")
        return [self.names.index(name) for name in joints]


def joint_hits(
    keypoints: npt.NDArray[np.floating], persons: Sequence[Person], joints: JointSet, threshold: float = 0.5
) -> JointHits:
    """Which predicted keypoints are within a fraction of the head's length, as `pckh` counts them.

    Args:
        keypoints: (N, J, 2) in pixels of the images; one that is not finite is wrong.
        persons: N people with annotations; nothing is counted of those without a head length.
        joints: J names.
        threshold: in head lengths.

    Raises:
        InputError: the shape does not fit.

    Example:
        ```python
        predictions = predict_people(model, truth, flip_test=True)
        hits = joint_hits(predictions.keypoints.numpy(), truth.persons, truth.joints)
        print(hits.percent(limb_joints(truth.joints)))
        ```
    """
    shape = (len(persons), len(joints), 2)
    check(keypoints.shape == shape, "keypoints", keypoints.shape, f"shape {shape}")
    check(0 < threshold < np.inf, "threshold", threshold, "a positive number of head lengths")
    lengths = np.array([person.head_size for person in persons], np.float64)
    measured = np.isfinite(lengths) & (lengths > 0)
    # no people are people too
    counted = np.array([person.annotated for person in persons]).reshape(shape[:2]) > 0
    counted &= measured[:, None]
    targets = np.array([person.keypoints for person in persons], np.float64).reshape(shape)
    right = within(keypoints.astype(np.float64), targets, np.where(measured, lengths, 1.0), threshold)
    return JointHits(right & counted, counted, joints.names)


def limb_joints(joints: JointSet) -> tuple[str, ...]:
    """The names of the joints of arms and legs: ankles, knees, hips, wrists, elbows and shoulders, where there are such."""
    return tuple(name for name in joints.names if kind_of(name) in LIMBS)
