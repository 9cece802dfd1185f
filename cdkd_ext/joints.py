"""Joint sets: the names, the mirror permutation, the OKS sigmas and the skeleton of a data set's joints."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cdkd_ext.errors import check
from cdkd_ext.files import read_yaml
from cdkd_ext.joint_sides import mirrored_joints

_LOWER_BODY_WORDS = ("pelvis", "hip", "thigh", "knee", "shin", "ankle", "leg", "foot", "heel", "toe")


@dataclass(frozen=True)
class JointSet:
    """The joints of a data set, in the order of its keypoints.

    Attributes:
        names: J unique names, such as ``left_knee``.
        flip_permutation: J indices; mirrored, joint ``flip_permutation[j]`` becomes joint j.
        sigmas: J positive OKS constants (COCO's per-joint standard deviations over object scale), if known.
        edges: pairs of 0-based indices, the limbs of the skeleton.
    """

    names: tuple[str, ...]
    flip_permutation: tuple[int, ...]
    sigmas: tuple[float, ...] | None = None
    edges: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        count = len(self.names)
        check(count > 0, "names", "none", "at least one joint name")
        check(len(set(self.names)) == count, "names", list(self.names), "unique joint names")
        check(
            sorted(self.flip_permutation) == list(range(count))
            and all(self.flip_permutation[mirror] == j for j, mirror in enumerate(self.flip_permutation)),
            "flip_permutation",
            list(self.flip_permutation),
            f"a permutation of 0..{count - 1} that is its own inverse",
        )
        if self.sigmas is not None:
            check(
                len(self.sigmas) == count and all(0 < sigma < math.inf for sigma in self.sigmas),
                "sigmas",
                list(self.sigmas),
                f"{count} positive finite numbers",
            )
        for edge in self.edges:
            check(
                len(edge) == 2 and all(0 <= j < count for j in edge),
                "edges",
                edge,
                f"a pair of indices from 0 to {count - 1}",
            )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def upper_body(self) -> tuple[bool, ...]:
        """For each joint, whether it lies above the hips, by its name."""
        return tuple(not any(word in name.lower() for word in _LOWER_BODY_WORDS) for name in self.names)

    @property
    def flip_pairs(self) -> tuple[tuple[str, str], ...]:
        """The names of the joints that change places in a mirror image; all others mirror to themselves."""
        return tuple(
            (self.names[j], self.names[mirror])
            for j, mirror in enumerate(self.flip_permutation)
            if j < mirror
        )

    @classmethod
    def from_category(cls, category: Mapping[str, Any], source: str = "category") -> JointSet:
        """Read a COCO category or a mapping with the same keys.

        Args:
            category: ``keypoints`` (names) and, optionally, ``skeleton`` and ``flip_pairs`` (pairs of 1-based
                numbers as in COCO, or of names) and ``sigmas``. Without ``flip_pairs``, the sides in the
                names tell: ``left_x`` mirrors ``right_x``, as do ``x_left``, ``L_x``, ``leftX`` and the like.
            source: the file and field that messages name.

        Raises:
            InputError: a field is missing or wrong.
        """
        check(
            isinstance(category, Mapping),
            source,
            type(category).__name__,
            "a mapping with the key 'keypoints'",
        )
        check("keypoints" in category, f"{source}.keypoints", "no such key", "a list of joint names")
        names = category["keypoints"]
        check(
            isinstance(names, Sequence)
            and not isinstance(names, str)
            and len(names) > 0
            and all(isinstance(name, str) and name for name in names),
            f"{source}.keypoints",
            names,
            "a list of joint names",
        )
        check(len(set(names)) == len(names), f"{source}.keypoints", names, "unique joint names")
        names = tuple(names)
        if category.get("flip_pairs") is None:
            permutation = mirrored_joints(names, source)
        else:
            permutation = _permutation_from_pairs(
                _pairs(category["flip_pairs"], names, f"{source}.flip_pairs"),
                len(names),
                f"{source}.flip_pairs",
            )
        edges = _pairs(category.get("skeleton") or [], names, f"{source}.skeleton")
        sigmas = category.get("sigmas")
        if sigmas is not None:
            sigmas = _sigmas(sigmas, len(names), f"{source}.sigmas")
        elif names == _COCO_NAMES:
            sigmas = _COCO_SIGMAS
        return cls(names, permutation, sigmas, edges)

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> JointSet:
        """Read a YAML file with the keys of `from_category`.

        Raises:
            InputError: the file cannot be read or a field is wrong.
        """
        return cls.from_category(read_yaml(path), f"{path}: joints")

    def to_category(self) -> dict[str, Any]:
        """Return the keys that `from_category` reads, made of plain lists: fit for JSON and YAML."""
        pairs = [(j, mirror) for j, mirror in enumerate(self.flip_permutation) if j < mirror]
        category: dict[str, Any] = {
            "keypoints": list(self.names),
            "skeleton": [[a + 1, b + 1] for a, b in self.edges],
            "flip_pairs": [[a + 1, b + 1] for a, b in pairs],
        }
        if self.sigmas is not None:
            category["sigmas"] = list(self.sigmas)
        return category


def _pairs(pairs: Any, names: tuple[str, ...], source: str) -> tuple[tuple[int, int], ...]:
    """Pairs of names or 1-based numbers as 0-based indices."""
    check(isinstance(pairs, Sequence) and not isinstance(pairs, str), source, pairs, "a list of pairs")
    result = []
    for i, pair in enumerate(pairs):
        field = f"{source}[{i}]"
        expected = f"a pair of joint names or of numbers from 1 to {len(names)}"
        check(
            isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2, field, pair, expected
        )
        indices = []
        for joint in pair:
            if isinstance(joint, str):
                check(joint in names, field, pair, expected)
                indices.append(names.index(joint))
            else:
                check(type(joint) is int and 1 <= joint <= len(names), field, pair, expected)
                indices.append(joint - 1)
        result.append((indices[0], indices[1]))
    return tuple(result)


def _permutation_from_pairs(pairs: tuple[tuple[int, int], ...], count: int, source: str) -> tuple[int, ...]:
    permutation = list(range(count))
    seen: set[int] = set()
    for i, (a, b) in enumerate(pairs):
        check(
            a != b and not seen & {a, b},
            f"{source}[{i}]",
            [a + 1, b + 1],
            "two joints that no other pair has",
        )
        seen |= {a, b}
        permutation[a], permutation[b] = b, a
    return tuple(permutation)


def _sigmas(sigmas: Any, count: int, source: str) -> tuple[float, ...]:
    check(
        isinstance(sigmas, Sequence)
        and len(sigmas) == count
        # this bound also holds for integers too large for any float
        and all(type(sigma) in (int, float) and 0 < sigma < 1e30 for sigma in sigmas),
        source,
        sigmas,
        f"{count} positive finite numbers",
    )
    return tuple(float(sigma) for sigma in sigmas)


_COCO_NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee",
    "left_ankle", "right_ankle",
)  # fmt: skip
_COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087,
    0.089, 0.089,
)  # fmt: skip
_COCO_SKELETON = [
    [16, 14], [14, 12], [17, 15], [15, 13], [12, 13], [6, 12], [7, 13], [6, 7], [6, 8], [7, 9], [8, 10],
    [9, 11], [2, 3], [1, 2], [1, 3], [2, 4], [3, 5], [4, 6], [5, 7],
]  # fmt: skip

COCO_JOINTS = JointSet.from_category({"keypoints": _COCO_NAMES, "skeleton": _COCO_SKELETON}, "COCO_JOINTS")

MPII_JOINTS = JointSet.from_category(
    {
        "keypoints": [
            "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis",
            "thorax", "upper_neck", "head_top", "right_wrist", "right_elbow", "right_shoulder",
            "left_shoulder", "left_elbow", "left_wrist",
        ],
        "skeleton": [
            [1, 2], [2, 3], [3, 7], [7, 4], [4, 5], [5, 6], [7, 8], [8, 9], [9, 10], [8, 13], [13, 12],
            [12, 11], [8, 14], [14, 15], [15, 16],
        ],
    },
    "MPII_JOINTS",
)  # fmt: skip


def named_joints(name: str) -> JointSet:
    """The joints called "coco" or "mpii", or those of a YAML file.

    Raises:
        InputError: there is no such file, or it is malformed.
    """
    return {"coco": COCO_JOINTS, "mpii": MPII_JOINTS}.get(name) or JointSet.from_yaml(name)
