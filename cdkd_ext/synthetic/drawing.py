"""One image: pose, dress, light and photograph a person, and say where the joints are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np

from cdkd_ext.synthetic.body import build_body
from cdkd_ext.synthetic.clothes import random_colour, random_outfit
from cdkd_ext.synthetic.mesh import BODY_PARTS, PART_LABELS, Mesh
from cdkd_ext.synthetic.pose import build_skeleton, random_pose, random_proportions, rotation
from cdkd_ext.synthetic.scene import add_occluders, add_shadow, photograph, random_background

Array: TypeAlias = np.ndarray

SUPERSAMPLING = 2
FILL = (0.70, 0.95)  # the person's longer side in image sides
CLOSE_UP_SHARE = 0.06  # images whose person reaches beyond the frame
FACING = (0.55, 0.22, 0.23)  # people seen roughly from the front, from behind, from anywhere
SEAT_SHARE = 0.75  # sitting people with something to sit on
OCCLUDER_LABEL = 255
# MPII: the reference length is 0.6 of the head rectangle's diagonal. The rectangle is taken as the head
# segment (upper neck to head top, not foreshortened) by three quarters of it.
HEAD_SIZE_IN_SEGMENTS = 0.6 * float(np.hypot(1.0, 0.75))
_SHIFT = 4  # OpenCV draws with coordinates in 1/16 pixel

# the parts on whose surface a joint of MPII's order may be seen
_JOINT_PARTS = (
    ("right_shin", "right_foot"),
    ("right_thigh", "right_shin"),
    ("torso", "right_thigh"),
    ("torso", "left_thigh"),
    ("left_thigh", "left_shin"),
    ("left_shin", "left_foot"),
    ("torso", "right_thigh", "left_thigh"),
    ("torso", "neck"),
    ("neck", "head"),
    ("head",),
    ("right_forearm", "right_hand"),
    ("right_upper_arm", "right_forearm"),
    ("torso", "right_upper_arm"),
    ("torso", "left_upper_arm"),
    ("left_upper_arm", "left_forearm"),
    ("left_forearm", "left_hand"),
)
_TRUNK_CORNERS = [2, 3, 12, 13]
_SHOWS_JOINT = np.zeros((16, 256), bool)
for _joint, _parts in enumerate(_JOINT_PARTS):
    _SHOWS_JOINT[_joint, [PART_LABELS[part] for part in _parts]] = True


@dataclass(frozen=True)
class DrawnPerson:
    """An image of one person.

    Attributes:
        image: (size, size, 3) RGB uint8.
        keypoints: (16, 3) x, y in pixels (pixel centres at integers) and 0 out of frame, 1 hidden, 2 visible.
        box: (x, y, width, height) in pixels, inside the frame.
        area: pixels that the unoccluded person covers.
        head_size: PCKh's reference length in pixels.
        family: the pose family's name.
    """

    image: Array
    keypoints: Array
    box: Array
    area: float
    head_size: float
    family: str


@dataclass(frozen=True)
class _View:
    """Joints (16, 2) and vertices (V, 2) in the image's pixels, depth growing towards the camera."""

    joints: Array
    joint_depth: Array
    vertices: Array
    vertices_3d: Array
    head_size: float


def draw_person(rng: np.random.Generator, size: int) -> DrawnPerson:
    """Draw everything about one image from `rng`."""
    body = random_proportions(rng)
    family, pose = random_pose(rng)
    skeleton = build_skeleton(body, pose)
    outfit = random_outfit(rng)
    seat = random_colour(rng) if family == "sit" and rng.random() < SEAT_SHARE else None
    mesh = build_body(body, skeleton, outfit, seat)
    view = _random_view(rng, family, skeleton.joints, mesh, size)

    layer = np.zeros((size * SUPERSAMPLING, size * SUPERSAMPLING, 4), np.uint8)
    _draw_mesh(rng, layer, mesh, view)
    area = cv2.countNonZero(cv2.inRange(layer[..., 3], 1, len(BODY_PARTS))) / SUPERSAMPLING**2
    outline = view.vertices[: mesh.body_vertices]
    low, high = outline.min(0), outline.max(0)
    box = np.concatenate([low, high - low])
    add_occluders(rng, layer, box * SUPERSAMPLING, OCCLUDER_LABEL)

    image = random_background(rng, size)
    if family in ("stand", "walk", "reach", "sit", "crouch") and rng.random() < 0.7:
        feet = view.joints[[0, 5]]
        floor = (float(feet[:, 0].mean()), float(feet[:, 1].max()))
        image = add_shadow(rng, image, floor, 0.3 * float(box[2:].max()))
    image = photograph(rng, _composite(image, layer))

    visible = _visibility(view, layer, size)
    low, high = np.clip(low, -0.5, size - 0.5), np.clip(high, -0.5, size - 0.5)
    keypoints = np.concatenate([view.joints, visible[:, None]], 1)
    keypoints[visible == 0] = 0
    return DrawnPerson(image, keypoints, np.concatenate([low, high - low]), area, view.head_size, family)


def _random_view(rng: np.random.Generator, family: str, joints: Array, mesh: Mesh, size: int) -> _View:
    """Place a camera around the person and frame them."""
    facing = rng.choice(3, p=FACING)
    yaw = (rng.normal(0, 35), rng.normal(180, 32), rng.uniform(0, 360))[facing]
    pitch = np.clip(rng.normal(9, 11), -25, 45) if family != "lie" else rng.uniform(15, 70)
    roll = rng.normal(0, 5) if rng.random() < 0.9 else rng.uniform(-35, 35)
    camera = rotation(2, roll) @ rotation(0, pitch) @ rotation(1, yaw)
    distance = rng.uniform(2.2, 6.0)  # statures

    joints, vertices = joints @ camera.T, mesh.vertices @ camera.T
    flat_joints, near = _project(joints, distance)
    flat_vertices, _ = _project(vertices, distance)
    outline = flat_vertices[: mesh.body_vertices]
    low, high = outline.min(0), outline.max(0)
    fill = rng.uniform(*FILL)
    close_up = rng.random() < CLOSE_UP_SHARE
    if close_up:
        fill *= rng.uniform(1.2, 1.5)
    scale = fill * size / (high - low).max()
    slack = size - scale * (high - low)
    share = rng.uniform(0.0, 1.0, 2) if close_up else rng.uniform(0.1, 0.9, 2)
    origin = share * slack - scale * low - 0.5
    head = float(np.linalg.norm(joints[9] - joints[8]) * near[[8, 9]].mean() * scale)
    return _View(
        flat_joints * scale + origin,
        joints[:, 2],
        flat_vertices * scale + origin,
        vertices,
        head * HEAD_SIZE_IN_SEGMENTS,
    )


def _project(points: Array, distance: float) -> tuple[Array, Array]:
    """Perspective of (N, 3) points: image coordinates (N, 2), y down, and the magnification (N,)."""
    near = distance / (distance - points[:, 2])
    return points[:, :2] * (1.0, -1.0) * near[:, None], near


def _draw_mesh(rng: np.random.Generator, layer: Array, mesh: Mesh, view: _View) -> None:
    """Paint the faces that look at the camera from far to near: shaded colour and part label."""
    corners = view.vertices[mesh.faces]  # (F, 4, 2)
    first, second = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
    shown = np.flatnonzero(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0] < 0)
    depth = view.vertices_3d[mesh.faces[shown], 2].mean(1)
    shown = shown[np.argsort(depth, kind="stable")]

    solid = view.vertices_3d[mesh.faces[shown]]  # (F, 4, 3)
    normals = np.cross(solid[:, 2] - solid[:, 0], solid[:, 3] - solid[:, 1])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
    light = rng.normal((0.0, 0.7, 0.8), (0.7, 0.35, 0.25))
    light /= np.linalg.norm(light)
    ambient = rng.uniform(0.38, 0.62)
    diffuse = np.clip(0.25 + 0.75 * (normals @ light), 0, None)
    shade = ambient + (1.12 - ambient) * diffuse
    colours = np.clip(mesh.colours[shown] * shade[:, None], 0, 255)
    painted = np.concatenate([colours, mesh.labels[shown, None]], 1).tolist()

    # layer pixels are SUPERSAMPLING times finer and pixel centres stay at integers
    fine = (corners[shown] + 0.5) * SUPERSAMPLING - 0.5
    polygons = np.round(fine * (1 << _SHIFT)).astype(np.int32)
    for polygon, colour in zip(polygons, painted, strict=True):
        cv2.fillConvexPoly(layer, polygon, colour, cv2.LINE_8, _SHIFT)


def _composite(background: Array, layer: Array) -> Array:
    """Lay the person and the occluders over the background, anti-aliased by area averaging."""
    size = background.shape[:2]
    colour = cv2.resize(layer[..., :3], size[::-1], interpolation=cv2.INTER_AREA)
    mask = cv2.resize(cv2.inRange(layer[..., 3], 0, 0), size[::-1], interpolation=cv2.INTER_AREA)
    return cv2.add(colour, cv2.multiply(background, cv2.merge([mask] * 3), scale=1 / 255))


def _visibility(view: _View, layer: Array, size: int) -> Array:
    """0, 1 or 2 for each joint (16,): out of frame, hidden by something nearer, visible."""
    inside = ((view.joints > -0.5) & (view.joints < size - 0.5)).all(1)
    pixels = np.round((view.joints + 0.5) * SUPERSAMPLING - 0.5).astype(int)
    pixels = np.clip(pixels, 0, size * SUPERSAMPLING - 1)
    labels = layer[pixels[:, 1], pixels[:, 0], 3]
    # a joint at the body's rim may fall beside it
    shown = _SHOWS_JOINT[np.arange(16), labels] | (labels == 0)
    # the trunk shows the hips and shoulders of its near side only
    far = view.joint_depth < view.joint_depth[[6, 7]].mean() - 0.07
    shown[_TRUNK_CORNERS] &= ~(far & (labels == PART_LABELS["torso"]))[_TRUNK_CORNERS]
    return np.where(inside, np.where(shown, 2, 1), 0)
