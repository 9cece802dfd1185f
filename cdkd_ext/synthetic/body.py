"""The surface of a person: tubes around the segments of a skeleton, painted with skin, hair and clothes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from cdkd_ext.synthetic.clothes import Garment, Outfit
from cdkd_ext.synthetic.mesh import SIDES, Mesh, MeshBuilder, face_angles
from cdkd_ext.synthetic.pose import ARM_JOINTS, LEFT, LEG_JOINTS, RIGHT, Proportions, Skeleton

Array: TypeAlias = np.ndarray
Profile: TypeAlias = tuple[tuple[float, float], ...]

# (position along the segment, lower to upper, and radius in statures)
_UPPER_ARM = ((0, 0.0205), (0.35, 0.0235), (0.75, 0.0275), (1, 0.028))
_FOREARM = ((0, 0.0155), (0.3, 0.0175), (0.75, 0.0235), (1, 0.0215))
_THIGH = ((0, 0.032), (0.3, 0.037), (0.7, 0.048), (1, 0.053))
_SHIN = ((0, 0.019), (0.25, 0.0215), (0.65, 0.0335), (0.85, 0.0325), (1, 0.031))
_NECK = ((0, 0.034), (0.5, 0.028), (1, 0.028))
# (half width, half depth) of the rings, the hand from its fingertips, the foot from its heel
_BRIM = ((0.042, 0.008), (0.042, 0.007), (0.036, 0.006), (0.012, 0.003))
_HAND = ((0.001, 0.001), (0.010, 0.018), (0.0125, 0.023), (0.0125, 0.021), (0.012, 0.014))
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


def build_body(body: Proportions, skeleton: Skeleton, outfit: Outfit, seat: Array | None = None) -> Mesh:
    """The dressed surface of a posed person, on a stool of the colour `seat` (3,) if given."""
    sculptor = _Sculptor(body, skeleton, outfit)
    sculptor.add_torso()
    sculptor.add_neck()
    sculptor.add_head()
    for side in (RIGHT, LEFT):
        sculptor.add_arm(side)
        sculptor.add_leg(side)
    if seat is not None:
        sculptor.add_seat(seat)
    return sculptor.builder.mesh()


@dataclass(frozen=True)
class _Sculptor:
    """Adds the parts of one person to a mesh."""

    body: Proportions
    skeleton: Skeleton
    outfit: Outfit
    builder: MeshBuilder = field(default_factory=MeshBuilder)

    def add_torso(self) -> None:
        body, outfit, pelvis, chest = self.body, self.outfit, self.skeleton.pelvis, self.skeleton.chest
        height = np.concatenate([[-0.24, -0.2], np.linspace(-0.12, 0.88, 15), [0.94, 0.99, 1.03, 1.07]])
        width, depth = (np.interp(height, _TORSO[:, 0], _TORSO[:, column]) for column in (1, 2))
        # the spine's lower half follows the pelvis, its upper half the chest
        low, high = np.minimum(height, 0.5)[:, None], np.maximum(height - 0.5, 0)[:, None]
        centres = body.trunk * (low * pelvis[:, 1] + high * chest[:, 1])
        chest_share = np.clip((height - 0.2) / 0.6, 0, 1)[:, None]
        lateral = _unit((1 - chest_share) * pelvis[:, 0] + chest_share * chest[:, 0])
        front = _unit((1 - chest_share) * pelvis[:, 2] + chest_share * chest[:, 2])
        looseness = np.where(height > outfit.hem, outfit.shirt.looseness, outfit.trousers.looseness)
        shoulders = np.where(height > 0.6, body.breadth, 1.0)
        radii = np.stack([width * shoulders, depth], 1) * (body.stoutness * (1 + 0.35 * looseness))[:, None]
        colours = self._torso_colours(face_angles(20), 0.5 * (height[1:] + height[:-1]))
        self.builder.tube("torso", centres, lateral, front, radii, colours)

    def _torso_colours(self, angle: Array, height: Array) -> Array:
        outfit, along = self.outfit, height * self.body.trunk
        shirt = height > outfit.hem
        colours = outfit.trousers.fabric.paint(angle, along)
        colours[shirt] = outfit.shirt.fabric.paint(angle, along[shirt])
        if outfit.hem > 0:
            colours[np.abs(height - outfit.hem) < 0.035] = outfit.belt
        facing, level = np.abs(angle)[None, :], height[:, None]
        if outfit.front == "zip":
            colours[shirt[:, None] & (facing < 9)] = outfit.accent
        elif outfit.front == "open":
            colours[shirt[:, None] & (facing < 28)] = outfit.accent
        elif outfit.front == "logo":
            colours[(facing < 32) & (level > 0.58) & (level < 0.8)] = outfit.accent
        elif outfit.front == "neckline":
            colours[facing < (level - 0.78) * 260] = outfit.skin
        colours[height > 1.04] = outfit.skin
        return colours

    def add_neck(self) -> None:
        thorax, upper_neck = self.skeleton.joints[[7, 8]]
        position, radius = _rounded(_NECK, np.linspace(0, 1, 4), self.body.neck)
        centres = thorax + position[:, None] * (upper_neck + 0.02 * self.skeleton.head[:, 1] - thorax)
        skin = np.broadcast_to(self.outfit.skin, (len(position) - 1, 12, 3))
        lateral, _, front = self.skeleton.neck.T
        self.builder.tube("neck", centres, lateral, front, self.body.stoutness * _round(radius), skin)

    def add_head(self) -> None:
        outfit, upper_neck = self.outfit, self.skeleton.joints[8]
        lateral, up, front = self.skeleton.head.T
        size = self.body.head / 0.14
        height, width, depth, shift = _HEAD.T
        centres = upper_neck + self.body.head * height[:, None] * up + size * shift[:, None] * front
        volume = np.where(height > 0.55, 1.0 if outfit.hairstyle == "bald" else 1.07, 1.0)
        radii = size * np.stack([width, depth], 1) * volume[:, None]
        colours = _head_colours(outfit, face_angles(24), 0.5 * (height[1:] + height[:-1]))
        self.builder.tube("head", centres, lateral, front, radii, colours)
        if outfit.hairstyle == "cap":  # its brim
            reach = np.linspace(0.04, 0.105, 4)[:, None]
            centres = upper_neck + 0.70 * self.body.head * up + size * reach * front
            colours = np.broadcast_to(0.85 * outfit.cap, (3, 10, 3))
            self.builder.tube("head", centres, lateral, -up, size * np.array(_BRIM), colours)
        if outfit.hairstyle in ("long", "tail"):
            drop, half_width = (-0.55, 0.046) if outfit.hairstyle == "long" else (-0.75, 0.016)
            height = np.linspace(drop, 0.85, 8)[:, None]
            centres = upper_neck + self.body.head * height * up - size * 0.040 * front
            taper = np.sin(np.linspace(0.25, np.pi - 0.2, 8))[:, None] ** 0.5
            colours = np.broadcast_to(0.93 * outfit.hair, (7, 12, 3))
            self.builder.tube("head", centres, lateral, front, size * taper * (half_width, 0.022), colours)

    def add_arm(self, side: int) -> None:
        name, skeleton, shirt = SIDES[side], self.skeleton, self.outfit.shirt
        shoulder, elbow, wrist = skeleton.joints[ARM_JOINTS[side]]
        forearm = skeleton.forearms[side]
        self._add_limb(f"{name}_upper_arm", _UPPER_ARM, shoulder, elbow, skeleton.upper_arms[side], shirt, 0)
        self._add_limb(f"{name}_forearm", _FOREARM, elbow, wrist, forearm, shirt, 1)
        reach = np.array([0.076, 0.068, 0.045, 0.02, 0.0])
        centres = wrist - reach[:, None] * forearm[:, 1]
        skin = np.broadcast_to(self.outfit.skin, (4, 8, 3))
        radii = self.body.stoutness * np.array(_HAND)
        self.builder.tube(f"{name}_hand", centres, forearm[:, 0], forearm[:, 2], radii, skin)

    def add_leg(self, side: int) -> None:
        name, skeleton, trousers = SIDES[side], self.skeleton, self.outfit.trousers
        hip, knee, ankle = skeleton.joints[LEG_JOINTS[side]]
        self._add_limb(f"{name}_thigh", _THIGH, hip, knee, skeleton.thighs[side], trousers, 0)
        self._add_limb(f"{name}_shin", _SHIN, knee, ankle, skeleton.shins[side], trousers, 1)
        lateral, up, front = skeleton.feet[side].T
        reach = np.array([-0.038, -0.030, 0.0, 0.03, 0.065, 0.09, 0.098])[:, None]
        rise = np.array([-0.016, -0.012, -0.010, -0.015, -0.021, -0.024, -0.026])[:, None]
        colours = np.broadcast_to(self.outfit.shoes, (6, 10, 3))
        self.builder.tube(
            f"{name}_foot", ankle + reach * front + rise * up, lateral, -up, np.array(_FOOT), colours
        )

    def add_seat(self, colour: Array) -> None:
        lateral, up, front = self.skeleton.pelvis.T
        # a post, a cushion and the cushion's top
        height = np.append(np.linspace(-self.body.shin - 0.03, -0.125, 8), [-0.085] * 4)
        radius = np.append([0.085] * 7, [0.13, 0.13, 0.08, 0.04, 0.004])
        colours = np.broadcast_to(colour, (11, 14, 3)).copy()
        colours[:7] *= 0.6
        centres = height[:, None] * up + 0.03 * front
        self.builder.tube("seat", centres, lateral, front, _round(radius), colours)

    def _add_limb(
        self,
        part: str,
        profile: Profile,
        start: Array,
        end: Array,
        axes: Array,
        garment: Garment,
        offset: int,
    ) -> None:
        """Add the segment from `start` (upper joint) to `end`, `offset` segments down its garment."""
        length = float(np.linalg.norm(start - end))
        position, radius = _rounded(profile, np.linspace(0, 1, 3 + round(length / 0.03)), length)
        # clothes are tight at the upper joint, where the trunk's begin
        slack = 1 + garment.looseness * np.clip(1.2 - position, 0.2, 1)
        radius = self.body.stoutness * radius * np.where(offset + 1 - position < garment.reach, slack, 1.0)
        down = offset + 1 - 0.5 * (position[1:] + position[:-1])
        dressed = down < garment.reach
        angle = face_angles(12)
        colours = np.broadcast_to(self.outfit.skin, (len(down), len(angle), 3)).copy()
        colours[dressed] = garment.fabric.paint(angle, down[dressed] * length)
        centres = end + position[:, None] * (start - end)
        self.builder.tube(part, centres, axes[:, 0], axes[:, 2], _round(radius), colours)


def _head_colours(outfit: Outfit, angle: Array, height: Array) -> Array:
    """Face, hair and hat (R, S, 3) by angle from the front and height from the upper neck to the head top."""
    angle, height = np.abs(angle)[None, :], height[:, None]
    hair = _hair(outfit, angle, height)
    colours = np.broadcast_to(outfit.skin, (*hair.shape, 3)).copy()
    colours[(angle < 10) & (height > 0.26) & (height < 0.5)] = outfit.skin * 1.12  # the nose catches light
    colours[(angle < 24) & (height > 0.12) & (height < 0.2)] = outfit.lips
    if outfit.beard:
        colours[(angle < 85) & (height < 0.24) & ((angle > 24) | (height < 0.12))] = outfit.hair
    colours[(angle > 20) & (angle < 40) & (height > 0.45) & (height < 0.56)] = (38, 30, 30)  # eyes
    brows = (angle > 10) & (angle < 40) & (height > 0.56) & (height < 0.62)
    colours[brows] = 0.6 * outfit.skin + 0.4 * outfit.hair
    colours[hair] = outfit.cap if outfit.hairstyle == "cap" else outfit.hair
    return colours


def _hair(outfit: Outfit, angle: Array, height: Array) -> Array:
    """Which faces of the head (R, S) are hair or hat."""
    if outfit.hairstyle == "bald":
        return (angle > 95) & (height > 0.25) & (height < 0.6)
    crown = height > (0.66 if outfit.hairstyle == "cap" else 0.72)
    temples = (angle > 72) & (height > 0.42)
    nape = (angle > 105) & (height > (0.5 if outfit.hairstyle == "cap" else 0.12))
    if outfit.hairstyle == "cap":
        return crown | nape
    curtain = (angle > 75) & (outfit.hairstyle == "long")
    return crown | temples | nape | curtain


def _rounded(profile: Profile, position: Array, length: float) -> tuple[Array, Array]:
    """Interpolate (position, radius) and close both ends, the upper one flatter; positions of length one."""
    radius = np.interp(position, *np.transpose(profile))
    below, above = radius[0] / length, radius[-1] / length
    position = np.concatenate([[-0.9 * below, -0.6 * below], position, [1 + 0.35 * above, 1 + 0.55 * above]])
    radius = np.concatenate([radius[0] * np.array([0.3, 0.8]), radius, radius[-1] * np.array([0.8, 0.3])])
    return position, radius


def _round(radius: Array) -> Array:
    return np.stack([radius, radius], 1)


def _unit(vectors: Array) -> Array:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
