"""Images of poses."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from cdkd_ext.errors import check
from cdkd_ext.images import Image
from cdkd_ext.joint_sides import split_side
from cdkd_ext.joints import JointSet

_LEFT = (66, 165, 245)
_RIGHT = (255, 112, 67)
_MIDDLE = (240, 240, 240)
_SHIFT = 4


def draw_pose(
    image: Image,
    keypoints: npt.NDArray[np.floating],
    joints: JointSet,
    *,
    drawn: Sequence[bool] | npt.NDArray[np.bool_] | None = None,
    thickness: int = 2,
) -> Image:
    """Return a copy of an image with a skeleton: left limbs blue, right limbs orange, the middle white.

    Args:
        image: RGB uint8 (H, W, 3).
        keypoints: (J, 2), pixels.
        joints: names and edges.
        drawn: which joints to draw; None draws all that are finite.
        thickness: of the limbs in pixels; 0 draws lines of one pixel without dots, for people of a few pixels.
    """
    check(
        image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8,
        "image",
        image.shape,
        "uint8 (H, W, 3)",
    )
    check(keypoints.shape == (len(joints), 2), "keypoints", keypoints.shape, f"shape ({len(joints)}, 2)")
    canvas = np.ascontiguousarray(image).copy()
    chosen = np.ones(len(joints), bool) if drawn is None else np.asarray(drawn, dtype=bool)
    _draw_onto(canvas, keypoints, joints, chosen, thickness)
    return canvas


def draw_poses(
    image: Image,
    keypoints: npt.NDArray[np.floating],
    joints: JointSet,
    *,
    drawn: npt.NDArray[np.bool_],
    thickness: int | Sequence[int] = 2,
) -> Image:
    """Return a copy of an image with the skeletons of several people; see `draw_pose`.

    Args:
        image: RGB uint8 (H, W, 3).
        keypoints: (N, J, 2), pixels.
        joints: names and edges.
        drawn: (N, J), which joints to draw.
        thickness: of the limbs in pixels, of all or of each person.
    """
    canvas = np.ascontiguousarray(image).copy()
    widths = [thickness] * len(keypoints) if isinstance(thickness, int) else thickness
    for points, chosen, width in zip(keypoints, drawn, widths, strict=True):
        _draw_onto(canvas, points, joints, chosen, width)
    return canvas


def _draw_onto(
    canvas: Image,
    keypoints: npt.NDArray[np.floating],
    joints: JointSet,
    drawn: npt.NDArray[np.bool_],
    thickness: int,
) -> None:
    chosen = np.asarray(np.isfinite(keypoints).all(1) & drawn)
    fixed = np.round(np.nan_to_num(keypoints).clip(-1e6, 1e6) * (1 << _SHIFT)).astype(int).tolist()
    for first, second in joints.edges:
        if chosen[first] and chosen[second]:
            color = _color(joints.names[first], joints.names[second])
            cv2.line(canvas, fixed[first], fixed[second], color, max(thickness, 1), cv2.LINE_AA, _SHIFT)
    if thickness == 0:
        return
    for name, point, visible in zip(joints.names, fixed, chosen, strict=True):
        if visible:
            cv2.circle(canvas, point, (thickness + 1) << (_SHIFT - 1), (30, 30, 30), -1, cv2.LINE_AA, _SHIFT)
            cv2.circle(canvas, point, thickness << (_SHIFT - 1), _color(name), -1, cv2.LINE_AA, _SHIFT)


def _color(*names: str) -> tuple[int, int, int]:
    sides = {split_side(name)[0] for name in names}
    if "left" in sides:
        return _LEFT
    return _RIGHT if "right" in sides else _MIDDLE


def enlarge(image: Image, size: tuple[int, int]) -> Image:
    """Return an image resized to (height, width) whose pixels stay visible as squares."""
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_NEAREST), np.uint8)


def enlarge_points(
    points: npt.NDArray[np.floating], size: tuple[int, int], new_size: tuple[int, int]
) -> npt.NDArray[np.floating]:
    """Move points (…, 2) with an image resized from (height, width) `size` to `new_size`; pixel centres are integers."""
    factor = np.array([new_size[1] / size[1], new_size[0] / size[0]])
    return (points + 0.5) * factor - 0.5


def tile(rows: Sequence[Sequence[Image]], titles: Sequence[str] = (), gap: int = 6) -> Image:
    """Return one image of rows of equally large tiles on white, with a title over each column."""
    check(len(rows) > 0 and len(rows[0]) > 0, "rows", "none", "at least one row of tiles")
    height, width = rows[0][0].shape[:2]
    header = 26 if titles else 0
    across, down = len(rows[0]), len(rows)
    canvas = np.full((header + down * (height + gap) + gap, across * (width + gap) + gap, 3), 255, np.uint8)
    for column, title in enumerate(titles):
        scale = min(
            0.5, 0.5 * (width - 4) / max(1, cv2.getTextSize(title, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)[0][0])
        )
        origin = (gap + column * (width + gap) + 2, header - 8)
        cv2.putText(canvas, title, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, (20, 20, 20), 1, cv2.LINE_AA)
    for row, tiles in enumerate(rows):
        for column, image in enumerate(tiles):
            top, left = header + gap + row * (height + gap), gap + column * (width + gap)
            canvas[top : top + height, left : left + width] = image
    return canvas
