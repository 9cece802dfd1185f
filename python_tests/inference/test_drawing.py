"""Pictures of poses."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from cdkd_ext.errors import InputError
from cdkd_ext.inference import draw_pose, draw_poses, enlarge, enlarge_points, save_image, tile
from cdkd_ext.joints import MPII_JOINTS, JointSet


def spread_out() -> np.ndarray:
    return np.stack([np.linspace(10, 90, 16), np.linspace(80, 20, 16)], 1).astype(np.float32)


def test_limbs_are_drawn_on_a_copy():
    image = np.full((100, 100, 3), 128, np.uint8)
    drawn = draw_pose(image, spread_out(), MPII_JOINTS)
    assert (image == 128).all()
    changed = (drawn != 128).any(-1)
    assert all(changed[round(float(y)), round(float(x))] for x, y in spread_out())


def test_several_people_are_drawn_as_one_after_the_other():
    image = np.full((100, 100, 3), 128, np.uint8)
    people = np.stack([spread_out(), spread_out()[:, ::-1], np.full((16, 2), np.nan)])
    drawn = np.ones((3, 16), bool)
    drawn[1, 3:] = False
    found = draw_poses(image, people, MPII_JOINTS, drawn=drawn)
    expected = draw_pose(image, people[0], MPII_JOINTS)
    expected = draw_pose(expected, people[1], MPII_JOINTS, drawn=drawn[1])
    assert (found == expected).all() and (image == 128).all()


def test_left_and_right_have_their_colours():
    points = spread_out()
    drawn = draw_pose(np.zeros((100, 100, 3), np.uint8), points, MPII_JOINTS)
    red, _, blue = (int(value) for value in drawn[round(float(points[5, 1])), round(float(points[5, 0]))])
    assert MPII_JOINTS.names[5] == "left_ankle" and blue > red
    red, _, blue = (int(value) for value in drawn[round(float(points[0, 1])), round(float(points[0, 0]))])
    assert MPII_JOINTS.names[0] == "right_ankle" and red > blue


def test_sides_have_their_colours_in_every_spelling():
    points = np.array([[20, 20], [80, 80]], np.float32)
    for names in (("knee_L", "knee_R"), ("Left knee", "Right knee")):
        drawn = draw_pose(np.zeros((100, 100, 3), np.uint8), points, JointSet(names, (1, 0)))
        assert drawn[20, 20, 2] > drawn[20, 20, 0] and drawn[80, 80, 0] > drawn[80, 80, 2]


def test_joints_that_are_not_wanted_or_not_finite_are_left_out():
    image = np.zeros((100, 100, 3), np.uint8)
    points = spread_out()
    assert (draw_pose(image, points, MPII_JOINTS, drawn=np.zeros(16, bool)) == 0).all()
    assert (draw_pose(image, np.full_like(points, np.nan), MPII_JOINTS) == 0).all()


def test_enlarged_points_stay_on_their_pixels():
    image = np.zeros((8, 16, 3), np.uint8)
    image[5, 11] = 255
    large = enlarge(image, (80, 160))
    x, y = enlarge_points(np.array([11.0, 5.0]), (8, 16), (80, 160))
    ys, xs = np.nonzero(large[..., 0])
    assert (x, y) == (xs.mean(), ys.mean())


def test_tiles_stand_side_by_side_under_their_titles():
    tiles = [[np.full((40, 60, 3), value, np.uint8) for value in (10, 20)] for _ in range(3)]
    picture = tile(tiles, ["one", "two"], gap=4)
    assert picture.shape == (26 + 3 * 44 + 4, 2 * 64 + 4, 3)
    assert (picture[26 + 4 + 20, 4 + 30] == 10).all() and (picture[26 + 4 + 20, 4 + 64 + 30] == 20).all()
    assert (picture[:26] < 100).any()


def test_saved_images_keep_their_colours_and_bad_suffixes_are_refused(tmp_path):
    image = np.zeros((4, 4, 3), np.uint8)
    image[..., 0] = 200
    save_image(image, tmp_path / "red.png")
    assert cv2.imread(str(tmp_path / "red.png"))[0, 0].tolist() == [0, 0, 200]
    with pytest.raises(InputError, match="suffix of an image format"):
        save_image(image, tmp_path / "red.nonsense")
    assert [path.name for path in tmp_path.iterdir()] == ["red.png"]


def test_an_image_may_be_wide():
    image = np.zeros((60, 33_000, 3), np.uint8)
    keypoints = np.zeros((16, 2))
    keypoints[:] = np.linspace([31_000, 10], [32_000, 50], 16)
    columns = np.flatnonzero(draw_pose(image, keypoints, MPII_JOINTS, drawn=np.ones(16, bool)).any((0, 2)))
    assert abs(columns.min() - 31_000) < 5 and abs(columns.max() - 32_000) < 5
    # nor does a joint far outside disturb the others
    keypoints[0] = 1e30
    assert draw_pose(image, keypoints, MPII_JOINTS, drawn=np.ones(16, bool)).any()
