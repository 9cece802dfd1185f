"""Surfaces made of tubes of quadrilaterals.

A tube is a stack of elliptical rings from its lower to its upper end; the points of a ring go from the front
towards the left, so all faces look outwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray

_LIMB_PARTS = ("upper_arm", "forearm", "hand", "thigh", "shin", "foot")
SIDES = ("right", "left")
BODY_PARTS = ("torso", "neck", "head", *(f"{side}_{part}" for side in SIDES for part in _LIMB_PARTS))
PART_LABELS = {name: label for label, name in enumerate((*BODY_PARTS, "seat"), start=1)}


@dataclass(frozen=True)
class Mesh:
    """Vertices (V, 3) in statures, the person's first; faces (F, 4), their colours (F, 3) and labels (F,)."""

    vertices: Array
    faces: Array
    colours: Array
    labels: Array
    body_vertices: int


class MeshBuilder:
    """Collects tubes into one mesh."""

    def __init__(self) -> None:
        self.vertices: list[Array] = []
        self.faces: list[Array] = []
        self.colours: list[Array] = []
        self.labels: list[Array] = []
        self.count = 0
        self.body_count = 0

    def tube(
        self, part: str, centres: Array, lateral: Array, front: Array, radii: Array, colours: Array
    ) -> None:
        """Add R rings with axes (3,) or (R, 3) and `radii` (R, 2), and R-1 rows of colours (R-1, S, 3)."""
        rings, sides = colours.shape[0] + 1, colours.shape[1]
        around = np.deg2rad(_corner_angles(sides))
        ring = np.sin(around)[:, None] * (radii[:, :1] * lateral)[:, None, :]
        ring += np.cos(around)[:, None] * (radii[:, 1:] * front)[:, None, :]
        self.vertices.append((centres[:, None, :] + ring).reshape(-1, 3))
        self.faces.append(_grid_faces(rings, sides) + self.count)
        self.colours.append(colours.reshape(-1, 3))
        self.labels.append(np.full((rings - 1) * sides, PART_LABELS[part]))
        self.count += rings * sides
        if part in BODY_PARTS:
            self.body_count = self.count

    def mesh(self) -> Mesh:
        """Return the finished mesh."""
        return Mesh(
            np.concatenate(self.vertices),
            np.concatenate(self.faces),
            np.concatenate(self.colours),
            np.concatenate(self.labels),
            self.body_count,
        )


@lru_cache(maxsize=64)
def _grid_faces(rings: int, sides: int) -> Array:
    """Quadrilaterals (F, 4) of a closed tube, corners anticlockwise seen from outside."""
    ring, side = np.mgrid[: rings - 1, :sides]
    following = (side + 1) % sides
    lower, upper = ring * sides, (ring + 1) * sides
    return np.stack((lower + side, lower + following, upper + following, upper + side), -1).reshape(-1, 4)


@lru_cache(maxsize=16)
def _corner_angles(sides: int) -> Array:
    """Angles of a ring's points in degrees, half a face before the front first."""
    return -180.0 / sides + np.arange(sides) * (360.0 / sides)


@lru_cache(maxsize=16)
def face_angles(sides: int) -> Array:
    """Angles of a ring's faces in degrees in (-180, 180], 0 at the front."""
    angle = np.arange(sides) * (360.0 / sides)
    return np.where(angle > 180, angle - 360, angle)
