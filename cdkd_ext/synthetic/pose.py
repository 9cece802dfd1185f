"""Random articulated poses: body proportions, joint angles by family, forward kinematics.

Body coordinates: x to the person's left, y up, z to the person's front; lengths in statures.
Sides come in MPII's order, right before left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray
RIGHT, LEFT = 0, 1
ARM_JOINTS = ([12, 11, 10], [13, 14, 15])  # shoulder, elbow, wrist, by side
LEG_JOINTS = ([2, 1, 0], [3, 4, 5])  # hip, knee, ankle, by side
OUTWARD = (-1.0, 1.0)  # the direction of "away from the body" on x, by side

# degrees, (lowest, highest): flexion, abduction or side bend, inward rotation or twist, elbow or knee
SPINE_LIMITS = np.array([(-25, 70), (-30, 30), (-40, 40)], float)
NECK_LIMITS = np.array([(-35, 40), (-25, 25), (-60, 60)], float)
ARM_LIMITS = np.array([(-50, 178), (-15, 150), (-70, 85), (0, 145)], float)
LEG_LIMITS = np.array([(-30, 120), (-12, 60), (-40, 40), (0, 140)], float)
FOOT_LIMITS = np.array([-20, 50], float)


@dataclass(frozen=True)
class Proportions:
    """Segment lengths in statures, and how stout and how broad-shouldered the person is (about 1)."""

    trunk: float
    neck: float
    head: float
    upper_arm: float
    forearm: float
    thigh: float
    shin: float
    shoulder: float
    hip: float
    stoutness: float
    breadth: float


@dataclass
class Pose:
    """Joint angles in degrees; `root` is the whole body's (forward pitch, roll to its left)."""

    root: Array = field(default_factory=lambda: np.zeros(2))
    spine: Array = field(default_factory=lambda: np.zeros(3))
    neck: Array = field(default_factory=lambda: np.zeros(3))
    arms: Array = field(default_factory=lambda: np.zeros((2, 4)))
    legs: Array = field(default_factory=lambda: np.zeros((2, 4)))
    feet: Array = field(default_factory=lambda: np.zeros(2))


@dataclass(frozen=True)
class Skeleton:
    """The 16 joints (16, 3) in MPII's order and each segment's axes (3, 3), columns left, up, front."""

    joints: Array
    pelvis: Array
    chest: Array
    neck: Array
    head: Array
    upper_arms: tuple[Array, Array]
    forearms: tuple[Array, Array]
    thighs: tuple[Array, Array]
    shins: tuple[Array, Array]
    feet: tuple[Array, Array]


def rotation(axis: int, degrees: float) -> Array:
    """Right-handed rotation (3, 3) about x, y or z (axis 0, 1 or 2)."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    second, third = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[second, second] = matrix[third, third] = cosine
    matrix[second, third], matrix[third, second] = -sine, sine
    return matrix


def random_proportions(rng: np.random.Generator) -> Proportions:
    """Adult proportions (fractions of the stature after Winter) with individual variation."""

    def vary(length: float, spread: float = 0.06) -> float:
        return float(length * np.clip(rng.normal(1.0, spread), 1 - 2 * spread, 1 + 2 * spread))

    breadth = vary(1.0, 0.07)
    return Proportions(
        trunk=vary(0.290, 0.04),
        neck=vary(0.050, 0.10),
        head=vary(0.140, 0.08),
        upper_arm=vary(0.172),
        forearm=vary(0.148),
        thigh=vary(0.240),
        shin=vary(0.238),
        shoulder=0.108 * breadth,
        hip=vary(0.056, 0.08),
        stoutness=vary(1.0, 0.12),
        breadth=breadth,
    )


def random_pose(rng: np.random.Generator) -> tuple[str, Pose]:
    """The name of a pose family and one pose of it, within the joints' limits."""
    names = list(FAMILIES)
    name = names[rng.choice(len(names), p=[FAMILIES[key][0] for key in names])]
    pose = FAMILIES[name][1](rng)
    pose.spine = np.clip(pose.spine, *SPINE_LIMITS.T)
    pose.neck = np.clip(pose.neck, *NECK_LIMITS.T)
    pose.arms = np.clip(pose.arms, *ARM_LIMITS.T)
    pose.legs = np.clip(pose.legs, *LEG_LIMITS.T)
    pose.feet = np.clip(pose.feet, *FOOT_LIMITS)
    return name, pose


def build_skeleton(body: Proportions, pose: Pose) -> Skeleton:
    """Forward kinematics from the pelvis at the origin."""
    joints = np.zeros((16, 3))
    pelvis = rotation(2, -pose.root[1]) @ rotation(0, pose.root[0])
    bend = rotation(0, pose.spine[0]) @ rotation(2, -pose.spine[1]) @ rotation(1, pose.spine[2])
    chest = pelvis @ bend
    # the lower half of the trunk follows the pelvis, the upper half the chest
    thorax = 0.5 * body.trunk * (pelvis[:, 1] + chest[:, 1])
    nod = rotation(0, pose.neck[0]) @ rotation(2, -pose.neck[1])
    neck = chest @ rotation(0, 0.5 * pose.neck[0])
    head = chest @ rotation(1, pose.neck[2]) @ nod
    joints[7] = thorax
    joints[8] = thorax + body.neck * neck[:, 1]
    joints[9] = joints[8] + body.head * head[:, 1]

    upper_arms, forearms, thighs, shins, feet = [], [], [], [], []
    for side in (RIGHT, LEFT):
        lift = 0.25 * np.deg2rad(max(pose.arms[side, 0], pose.arms[side, 1], 0.0) / 2)  # raised arms shrug
        shoulder = thorax + body.shoulder * (OUTWARD[side] * chest[:, 0] + (lift - 0.16) * chest[:, 1])
        upper_arm = chest @ _limb_axes(pose.arms[side], OUTWARD[side])
        forearm = upper_arm @ rotation(0, -pose.arms[side, 3])
        elbow = shoulder - body.upper_arm * upper_arm[:, 1]
        joints[ARM_JOINTS[side]] = shoulder, elbow, elbow - body.forearm * forearm[:, 1]

        hip = OUTWARD[side] * body.hip * pelvis[:, 0]
        thigh = pelvis @ _limb_axes(pose.legs[side], OUTWARD[side])
        shin = thigh @ rotation(0, pose.legs[side, 3])
        knee = hip - body.thigh * thigh[:, 1]
        joints[LEG_JOINTS[side]] = hip, knee, knee - body.shin * shin[:, 1]
        upper_arms.append(upper_arm)
        forearms.append(forearm)
        thighs.append(thigh)
        shins.append(shin)
        feet.append(shin @ rotation(0, pose.feet[side]))
    return Skeleton(
        joints,
        pelvis,
        chest,
        neck,
        head,
        (upper_arms[0], upper_arms[1]),
        (forearms[0], forearms[1]),
        (thighs[0], thighs[1]),
        (shins[0], shins[1]),
        (feet[0], feet[1]),
    )


def _limb_axes(angles: Array, outward: float) -> Array:
    """Axes of a limb that hangs down its parent at zero flexion, abduction and inward rotation."""
    return rotation(0, -angles[0]) @ rotation(2, outward * angles[1]) @ rotation(1, -outward * angles[2])


# ways to hold an arm: mean and spread of (flexion, abduction, inward rotation, elbow)
_ARM_MANNERS = {
    "hang": ((5, 11, 15, 16), (12, 6, 20, 12)),
    "hip": ((-12, 42, 75, 98), (8, 8, 8, 12)),
    "front": ((28, 6, 48, 88), (12, 6, 15, 18)),
    "phone": ((40, 18, 10, 128), (20, 12, 20, 12)),
    "forward": ((80, 10, 5, 20), (22, 14, 25, 20)),
    "side": ((5, 88, -10, 18), (18, 22, 25, 20)),
    "up": ((155, 12, 0, 22), (18, 14, 30, 22)),
    "wave": ((20, 80, -60, 85), (15, 18, 10, 25)),
    "lap": ((32, 8, 30, 50), (10, 6, 15, 18)),
    "push": ((60, 25, 20, 70), (18, 12, 20, 25)),
}


def _arm(rng: np.random.Generator, manners: str) -> Array:
    """One arm held in one of the space-separated manners, chosen at random."""
    mean, spread = _ARM_MANNERS[str(rng.choice(manners.split()))]
    return np.abs(rng.normal(mean, spread)) * np.where(np.less(mean, 0), -1, 1)


def _relaxed(rng: np.random.Generator) -> Pose:
    """An upright pose with small variations and hanging arms, the start of most families."""
    pose = Pose(
        root=rng.normal(0, (4, 3)),
        spine=rng.normal((4, 0, 0), (6, 5, 9)),
        neck=rng.normal((4, 0, 0), (11, 7, 22)),
        feet=rng.normal(0, 5, 2),
    )
    pose.arms = np.stack([_arm(rng, "hang"), _arm(rng, "hang")])
    pose.legs = rng.normal((3, 5, -8, 5), (6, 4, 8, 4), (2, 4))
    return pose


def _stand(rng: np.random.Generator) -> Pose:
    pose = _relaxed(rng)
    pose.arms = np.stack([_arm(rng, "hang hang hang hip front phone push") for _ in range(2)])
    if rng.random() < 0.4:  # the weight on one leg
        side = rng.integers(2)
        pose.legs[side] += rng.normal((14, 6, 0, 22), (8, 5, 8, 8))
        pose.spine[1] += rng.normal(0, 7)
    return pose


def _stride(rng: np.random.Generator, hip: float, knee: float, arm: float, elbow: float) -> Pose:
    """A moment of a gait cycle: legs in antiphase, each arm with the opposite leg."""
    pose = _relaxed(rng)
    phase = rng.uniform(0, 2 * np.pi)
    for side, sign in ((RIGHT, 1.0), (LEFT, -1.0)):
        swing, recovery = sign * np.sin(phase), max(0.0, sign * np.cos(phase))
        pose.legs[side, 0] += hip * swing + 0.25 * hip
        pose.legs[side, 3] += knee * (0.15 + recovery)
        pose.arms[side, 0] = -arm * swing + rng.normal(0, 8)
        pose.arms[side, 3] = elbow + rng.normal(0, 12)
        pose.feet[side] = 15 - 20 * swing + rng.normal(0, 5)
    pose.spine[2] += 8 * np.sin(phase)
    return pose


def _walk(rng: np.random.Generator) -> Pose:
    return _stride(rng, hip=rng.uniform(16, 32), knee=rng.uniform(25, 55), arm=rng.uniform(8, 32), elbow=18)


def _run(rng: np.random.Generator) -> Pose:
    pose = _stride(rng, hip=rng.uniform(32, 55), knee=rng.uniform(65, 110), arm=rng.uniform(30, 55), elbow=82)
    pose.root[0] += rng.uniform(2, 14)
    return pose


def _reach(rng: np.random.Generator) -> Pose:
    pose = _stand(rng) if rng.random() < 0.6 else _walk(rng)
    first = rng.integers(2)
    pose.arms[first] = _arm(rng, "forward side up up wave")
    if rng.random() < 0.55:
        pose.arms[1 - first] = _arm(rng, "forward side up wave")
    pose.spine += rng.normal((4, 0, 0), (9, 9, 10))
    if rng.random() < 0.25:  # a lunge
        pose.legs[first] += rng.normal((45, 8, 0, 50), (12, 6, 5, 14))
        pose.legs[1 - first] += rng.normal((-18, 6, 0, 15), (6, 5, 5, 10))
    return pose


def _sit(rng: np.random.Generator) -> Pose:
    pose = _relaxed(rng)
    pose.spine += rng.normal((6, 0, 0), (9, 5, 8))
    pose.arms = np.stack([_arm(rng, "lap lap hang front phone forward push up") for _ in range(2)])
    pose.legs = rng.normal((86, 9, 0, 82), (9, 7, 8, 16), (2, 4))
    return pose


def _crouch(rng: np.random.Generator) -> Pose:
    pose = _relaxed(rng)
    depth = rng.uniform(0.45, 1.0)
    pose.root[0] += 28 * depth + rng.normal(0, 6)
    pose.spine[0] += rng.uniform(5, 35)
    pose.neck[0] -= rng.uniform(0, 30)
    pose.legs = rng.normal((118 * depth, 14, -8, 122 * depth), (8, 8, 8, 10), (2, 4))
    if rng.random() < 0.4:  # on one knee
        side = rng.integers(2)
        pose.legs[side] = rng.normal((25, 6, 0, 105), (12, 4, 4, 12))
        pose.feet[side] = 40
    pose.arms = np.stack([_arm(rng, "lap hang forward push front") for _ in range(2)])
    return pose


def _lie(rng: np.random.Generator) -> Pose:
    pose = _relaxed(rng)
    pose.root = np.array([(-90, 0), (-90, 0), (90, 0), (0, 90), (0, -90)][rng.integers(5)], float)
    pose.root += rng.normal(0, 10, 2)
    pose.arms = np.stack([_arm(rng, "hang front side up phone") for _ in range(2)])
    pose.legs = np.abs(rng.normal((12, 7, 0, 18), (14, 6, 8, 20), (2, 4)))
    if rng.random() < 0.35:  # knees drawn up
        pose.legs[rng.integers(2)] += rng.normal((38, 0, 0, 65), (12, 2, 2, 15))
    pose.feet[:] = 30
    return pose


def _acrobat(rng: np.random.Generator) -> Pose:
    pose = _relaxed(rng)
    form = rng.choice(["handstand", "star", "jump", "kick", "tumble"])
    if form == "handstand":
        pose.root = np.array([180, 0]) + rng.normal(0, 10, 2)
        pose.arms = rng.normal((168, 8, 0, 8), (8, 6, 10, 6), (2, 4))
        pose.legs += rng.normal((10, 14, 0, 15), (22, 12, 5, 18), (2, 4))
        pose.neck[0] = -25
    elif form == "star":
        pose.root = np.array([rng.normal(0, 12), rng.uniform(-180, 180)])
        pose.arms = rng.normal((10, 120, 0, 8), (15, 18, 20, 8), (2, 4))
        pose.legs = rng.normal((6, 38, -10, 6), (12, 10, 8, 6), (2, 4))
    elif form == "jump":
        pose.arms = np.stack([_arm(rng, "up side forward up") for _ in range(2)])
        pose.legs = np.abs(rng.normal((38, 18, 0, 62), (30, 14, 8, 32), (2, 4)))
        pose.root += rng.normal(0, 14, 2)
    elif form == "kick":
        side = rng.integers(2)
        pose.legs[side] = rng.normal((88, 12, 0, 14), (16, 12, 6, 12))
        pose.arms = np.stack([_arm(rng, "side forward push") for _ in range(2)])
        pose.root += rng.normal((-14, 0), (9, 12))
    else:
        pose.root = rng.normal((0, 0), (60, 60))
        pose.arms = rng.normal(ARM_LIMITS.mean(1), 0.2 * np.ptp(ARM_LIMITS, axis=1), (2, 4))
        pose.legs = rng.normal(LEG_LIMITS.mean(1), 0.22 * np.ptp(LEG_LIMITS, axis=1), (2, 4))
    pose.feet[:] = rng.normal(28, 10, 2)
    return pose


# name: (share of the images, generator)
FAMILIES: dict[str, tuple[float, Callable[[np.random.Generator], Pose]]] = {
    "stand": (0.25, _stand),
    "walk": (0.18, _walk),
    "run": (0.14, _run),
    "reach": (0.20, _reach),
    "sit": (0.09, _sit),
    "crouch": (0.05, _crouch),
    "lie": (0.03, _lie),
    "acrobat": (0.06, _acrobat),
}
