"""The surface of a figure: tubes of quadrilaterals around the segments of a skeleton.

Every tube is a stack of elliptical rings from its lower to its upper end; the points of a ring go from the
segment's front towards its left, so all faces look outwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from cdkd_ext.data._figure_clothes import Outfit
from cdkd_ext.data._figure_pose import ARM_JOINTS, LEFT, LEG_JOINTS, RIGHT, Proportions, Skeleton

Array: TypeAlias = np.ndarray

_LIMB_PARTS = ("upper_arm", "forearm", "hand", "thigh", "shin", "foot")
_SIDES = ("right", "left")
BODY_PARTS = ("torso", "neck", "head", *(f"{side}_{part}" for side in _SIDES for part in _LIMB_PARTS))
PART_LABELS = {name: label for label, name in enumerate((*BODY_PARTS, "seat"), start=1)}

# (position along the segment, lower to upper, and radius in statures)
_UPPER_ARM = ((0, 0.0205), (0.35, 0.0235), (0.75, 0.0275), (1, 0.028))
_FOREARM = ((0, 0.0155), (0.3, 0.0175), (0.75, 0.0235), (1, 0.0215))
_THIGH = ((0, 0.032), (0.3, 0.037), (0.7, 0.048), (1, 0.053))
_SHIN = ((0, 0.019), (0.25, 0.0215), (0.65, 0.0335), (0.85, 0.0325), (1, 0.031))
_NECK = ((0, 0.034), (0.5, 0.028), (1, 0.028))
# (half width, half depth) of the rings, fingertips first and heel first
_HAND = ((0.006, 0.008), (0.010, 0.018), (0.0125, 0.023), (0.0125, 0.021), (0.012, 0.014))
_FOOT = (
    (0.001, 0.001), (0.02, 0.02), (0.022, 0.024), (0.023, 0.019), (0.026, 0.013), (0.02, 0.01), (0.006, 0.005)
)  # fmt: skip
# (position from hips 0 to neck 1, half width, half depth)
_TORSO = np.array(
    [
        (-0.24, 0.012, 0.02),
        (-0.20, 0.055, 0.045),
        (-0.10, 0.088, 0.064),
        (0.0, 0.096, 0.070),
        (0.12, 0.093, 0.069),
        (0.30, 0.082, 0.060),
        (0.45, 0.079, 0.058),
        (0.60, 0.087, 0.063),
        (0.75, 0.098, 0.067),
        (0.88, 0.109, 0.058),
        (0.94, 0.108, 0.049),
        (0.99, 0.090, 0.042),
        (1.03, 0.058, 0.037),
        (1.07, 0.034, 0.033),
    ]
)
# (position from upper neck 0 to head top 1, half width, half depth, shift to the front)
_HEAD = np.array(
    [
        (-0.06, 0.012, 0.014, 0.022),
        (0.03, 0.026, 0.032, 0.018),
        (0.11, 0.033, 0.042, 0.014),
        (0.19, 0.037, 0.048, 0.012),
        (0.26, 0.040, 0.051, 0.010),
        (0.35, 0.042, 0.053, 0.008),
        (0.45, 0.043, 0.054, 0.006),
        (0.54, 0.0445, 0.056, 0.004),
        (0.62, 0.045, 0.057, 0.002),
        (0.72, 0.043, 0.056, 0.0),
        (0.81, 0.039, 0.051, 0.0),
        (0.90, 0.030, 0.040, 0.0),
        (0.965, 0.018, 0.025, 0.0),
        (1.0, 0.004, 0.006, 0.0),
    ]
)
_CHEST_MARK_ANGLE = {"zip": 8.0, "open": 27.0}


@dataclass(frozen=True)
class Mesh:
    """Vertices (V, 3) in statures, the person's first; faces (F, 4), their colours (F, 3) and labels (F,)."""

    vertices: Array
    faces: Array
    colours: Array
    labels: Array
    body_vertices: int


class _Builder:
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
        return Mesh(
            np.concatenate(self.vertices),
            np.concatenate(self.faces),
            np.concatenate(self.colours),
            np.concatenate(self.labels),
            self.body_count,
        )


def build_body(body: Proportions, skeleton: Skeleton, outfit: Outfit, seat: Array | None = None) -> Mesh:
    """The dressed surface of a posed person, on a stool of the colour `seat` (3,) if given."""
    builder = _Builder()
    _add_torso(builder, body, skeleton, outfit)
    _add_head(builder, body, skeleton, outfit)
    for side in (RIGHT, LEFT):
        _add_arm(builder, side, body, skeleton, outfit)
        _add_leg(builder, side, body, skeleton, outfit)
    if seat is not None:
        _add_seat(builder, body, skeleton, seat)
    return builder.mesh()


def _add_torso(builder: _Builder, body: Proportions, skeleton: Skeleton, outfit: Outfit) -> None:
    sides = 20
    height = np.concatenate([[-0.24, -0.2], np.linspace(-0.12, 0.88, 15), [0.94, 0.99, 1.03, 1.07]])
    width, depth = (np.interp(height, _TORSO[:, 0], _TORSO[:, column]) for column in (1, 2))
    chest_share = np.clip((height - 0.2) / 0.6, 0, 1)[:, None]
    low, high = np.minimum(height, 0.5)[:, None], np.maximum(height - 0.5, 0)[:, None]
    centres = body.trunk * (low * skeleton.pelvis[:, 1] + high * skeleton.chest[:, 1])
    lateral = _unit((1 - chest_share) * skeleton.pelvis[:, 0] + chest_share * skeleton.chest[:, 0])
    front = _unit((1 - chest_share) * skeleton.pelvis[:, 2] + chest_share * skeleton.chest[:, 2])
    cloth = np.where(height > outfit.hem, outfit.shirt_looseness, outfit.trouser_looseness) * 0.35
    shoulders = np.where(height > 0.6, body.breadth, 1.0)
    radii = np.stack([width * shoulders, depth], 1) * (body.stoutness * (1 + cloth))[:, None]

    angle, middle = _face_angles(sides), 0.5 * (height[1:] + height[:-1])
    colours = outfit.trousers.paint(angle, middle * body.trunk)
    shirt = middle > outfit.hem
    colours[shirt] = outfit.shirt.paint(angle, middle[shirt] * body.trunk)
    belt = np.abs(middle - outfit.hem) < 0.035
    if outfit.hem > 0:
        colours[belt] = outfit.belt
    facing = np.abs(angle)[None, :]
    chest = middle[:, None]
    if outfit.front in _CHEST_MARK_ANGLE:
        colours[shirt[:, None] & (facing < _CHEST_MARK_ANGLE[outfit.front] + 1)] = outfit.accent
    elif outfit.front == "logo":
        colours[(facing < 32) & (chest > 0.58) & (chest < 0.8)] = outfit.accent
    elif outfit.front == "neckline":
        colours[facing < (chest - 0.78) * 260] = outfit.skin
    colours[middle > 1.04] = outfit.skin
    builder.tube("torso", centres, lateral, front, radii, colours)


def _add_head(builder: _Builder, body: Proportions, skeleton: Skeleton, outfit: Outfit) -> None:
    thorax, upper_neck = skeleton.joints[7], skeleton.joints[8]
    position, radius = _rounded(_NECK, np.linspace(0, 1, 4), body.neck)
    centres = thorax + position[:, None] * (upper_neck + 0.02 * skeleton.head[:, 1] - thorax)
    skin = np.broadcast_to(outfit.skin, (len(position) - 1, 12, 3))
    radii = np.stack([radius, radius], 1) * body.stoutness
    builder.tube("neck", centres, skeleton.neck[:, 0], skeleton.neck[:, 2], radii, skin)

    sides = 24
    lateral, up, front = skeleton.head.T
    size = body.head / 0.14
    height, width, depth, shift = _HEAD.T
    centres = upper_neck + body.head * height[:, None] * up + size * shift[:, None] * front
    angle, middle = np.abs(_face_angles(sides))[None, :], 0.5 * (height[1:] + height[:-1])[:, None]
    hair = _hair(outfit, angle, middle)
    colours = np.broadcast_to(outfit.skin, (*hair.shape, 3)).copy()
    colours[(angle < 10) & (middle > 0.26) & (middle < 0.5)] = outfit.skin * 1.12  # the nose catches light
    colours[(angle < 24) & (middle > 0.12) & (middle < 0.2)] = outfit.lips
    if outfit.beard:
        colours[(angle < 85) & (middle < 0.24) & ((angle > 24) | (middle < 0.12))] = outfit.hair
    colours[(angle > 20) & (angle < 40) & (middle > 0.45) & (middle < 0.56)] = (38, 30, 30)  # eyes
    brows = (angle > 10) & (angle < 40) & (middle > 0.56) & (middle < 0.62)
    colours[brows] = 0.6 * outfit.skin + 0.4 * outfit.hair
    colours[hair] = outfit.cap if outfit.hairstyle == "cap" else outfit.hair
    volume = np.where(height > 0.55, 1.0 if outfit.hairstyle == "bald" else 1.07, 1.0)
    radii = size * np.stack([width, depth], 1) * volume[:, None]
    builder.tube("head", centres, lateral, front, radii, colours)
    if outfit.hairstyle == "cap":  # its brim
        brim = upper_neck + 0.70 * body.head * up + size * np.linspace(0.04, 0.105, 4)[:, None] * front
        radii = size * np.array([(0.042, 0.008), (0.042, 0.007), (0.036, 0.006), (0.012, 0.003)])
        builder.tube("head", brim, lateral, -up, radii, np.broadcast_to(outfit.cap * 0.85, (3, 10, 3)))
    if outfit.hairstyle in ("long", "tail"):
        drop, half_width = (-0.55, 0.046) if outfit.hairstyle == "long" else (-0.75, 0.016)
        height = np.linspace(drop, 0.85, 8)
        centres = upper_neck + body.head * height[:, None] * up - size * 0.040 * front
        taper = np.sin(np.linspace(0.25, np.pi - 0.2, 8)) ** 0.5
        radii = size * taper[:, None] * (half_width, 0.022)
        builder.tube("head", centres, lateral, front, radii, np.broadcast_to(outfit.hair * 0.93, (7, 12, 3)))


def _hair(outfit: Outfit, angle: Array, height: Array) -> Array:
    """Which faces of the head (R, S) are hair or hat, by angle from the front and height from the neck."""
    if outfit.hairstyle == "bald":
        return (angle > 95) & (height > 0.25) & (height < 0.6)
    crown = height > (0.66 if outfit.hairstyle == "cap" else 0.72)
    temples = (angle > 72) & (height > 0.42)
    nape = (angle > 105) & (height > (0.5 if outfit.hairstyle == "cap" else 0.12))
    if outfit.hairstyle == "cap":
        return crown | nape
    curtain = (angle > 75) & (outfit.hairstyle == "long")
    return crown | temples | nape | curtain


def _add_arm(builder: _Builder, side: int, body: Proportions, skeleton: Skeleton, outfit: Outfit) -> None:
    name = _SIDES[side]
    shoulder, elbow, wrist = skeleton.joints[ARM_JOINTS[side]]
    for part, profile, start, end, axes, offset in (
        ("upper_arm", _UPPER_ARM, shoulder, elbow, skeleton.upper_arms[side], 0.0),
        ("forearm", _FOREARM, elbow, wrist, skeleton.forearms[side], 1.0),
    ):
        _add_limb(builder, f"{name}_{part}", profile, start, end, axes, body, outfit, offset, "sleeve")
    forearm = skeleton.forearms[side]
    reach = np.array([0.075, 0.068, 0.045, 0.02, 0.0])
    radii = body.stoutness * np.array(_HAND)
    skin = np.broadcast_to(outfit.skin, (4, 8, 3))
    centres = wrist - reach[:, None] * forearm[:, 1]
    builder.tube(f"{name}_hand", centres, forearm[:, 0], forearm[:, 2], radii, skin)


def _add_leg(builder: _Builder, side: int, body: Proportions, skeleton: Skeleton, outfit: Outfit) -> None:
    name = _SIDES[side]
    hip, knee, ankle = skeleton.joints[LEG_JOINTS[side]]
    for part, profile, start, end, axes, offset in (
        ("thigh", _THIGH, hip, knee, skeleton.thighs[side], 0.0),
        ("shin", _SHIN, knee, ankle, skeleton.shins[side], 1.0),
    ):
        _add_limb(builder, f"{name}_{part}", profile, start, end, axes, body, outfit, offset, "leg")
    lateral, up, front = skeleton.feet[side].T
    reach = np.array([-0.038, -0.030, 0.0, 0.03, 0.065, 0.09, 0.098])
    rise = np.array([-0.016, -0.012, -0.010, -0.015, -0.021, -0.024, -0.026])
    centres = ankle + reach[:, None] * front + rise[:, None] * up
    colours = np.broadcast_to(outfit.shoes, (6, 10, 3))
    builder.tube(f"{name}_foot", centres, lateral, -up, np.array(_FOOT), colours)


def _add_seat(builder: _Builder, body: Proportions, skeleton: Skeleton, colour: Array) -> None:
    lateral, up, front = skeleton.pelvis.T
    height = np.concatenate([np.linspace(-body.shin - 0.03, -0.125, 8), [-0.085, -0.085, -0.085, -0.085]])
    spread = np.concatenate(
        [np.full(7, 0.085), [0.13, 0.13, 0.08, 0.04, 0.004]]
    )  # a post, a cushion, its top
    colours = np.broadcast_to(colour, (11, 14, 3)).copy()
    colours[:7] *= 0.6
    centres = height[:, None] * up + 0.03 * front
    builder.tube("seat", centres, lateral, front, np.stack([spread, spread], 1), colours)


def _add_limb(
    builder: _Builder,
    part: str,
    profile: tuple[tuple[float, float], ...],
    start: Array,
    end: Array,
    axes: Array,
    body: Proportions,
    outfit: Outfit,
    offset: float,
    garment: str,
) -> None:
    """Add the segment from `start` (upper joint) to `end`, `offset` segments down its garment."""
    fabric, covered, looseness = (
        (outfit.shirt, outfit.sleeve, outfit.shirt_looseness)
        if garment == "sleeve"
        else (outfit.trousers, outfit.leg, outfit.trouser_looseness)
    )
    length = float(np.linalg.norm(start - end))
    position, radius = _rounded(profile, np.linspace(0, 1, 3 + round(length / 0.03)), length)
    dressed = offset + 1 - position < covered
    # clothes are tight at the upper joint, where the trunk's begin
    radius = radius * body.stoutness * np.where(dressed, 1 + looseness * np.clip(1.2 - position, 0.2, 1), 1.0)
    middle = 0.5 * (position[1:] + position[:-1])
    dressed = offset + 1 - middle < covered
    angle = _face_angles(12)
    colours = np.broadcast_to(outfit.skin, (len(middle), 12, 3)).copy()
    colours[dressed] = fabric.paint(angle, (offset + 1 - middle[dressed]) * length)
    centres = end + position[:, None] * (start - end)
    builder.tube(part, centres, axes[:, 0], axes[:, 2], np.stack([radius, radius], 1), colours)


def _rounded(profile: tuple[tuple[float, float], ...], position: Array, length: float) -> tuple[Array, Array]:
    """Interpolate (position, radius) and close both ends, the upper one flatter; positions of length one."""
    radius = np.interp(position, *np.transpose(profile))
    below, above = radius[0] / length, radius[-1] / length
    position = np.concatenate([[-0.9 * below, -0.6 * below], position, [1 + 0.35 * above, 1 + 0.55 * above]])
    radius = np.concatenate([radius[0] * np.array([0.3, 0.8]), radius, radius[-1] * np.array([0.8, 0.3])])
    return position, radius


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
def _face_angles(sides: int) -> Array:
    """Angles of a ring's faces in degrees in (-180, 180], 0 at the front."""
    angle = np.arange(sides) * (360.0 / sides)
    return np.where(angle > 180, angle - 360, angle)


def _unit(vectors: Array) -> Array:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
