"""Images lie in the input where their boxes are looked for."""

from __future__ import annotations

import numpy as np
import pytest

from cdkd_ext.detectors import Letterbox


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("image_size", [(480, 640), (640, 480), (31, 77), (1, 1000), (64, 64), (1080, 1920)])
def test_a_drawn_box_comes_back(image_size: tuple[int, int], centered: bool) -> None:
    height, width = image_size
    box = Letterbox.fit(image_size, (416, 320), centered=centered)
    inner = np.array([0, 0, box.inner[1], box.inner[0]]) + [*box.offset[::-1]] * 2
    np.testing.assert_allclose(
        box.to_image(inner[None].astype(np.float32))[0], [0, 0, width, height], atol=1e-3
    )
    # a bright half is found where the corners say
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :] = 255
    drawn = box.draw(image, 0)
    assert drawn.shape == (416, 320, 3)
    columns = np.flatnonzero(drawn.max((0, 2)) > 127)
    corners = box.to_image(np.array([[columns[0], 0, columns[-1] + 1, 416]], np.float32))[0]
    pixel = width / box.inner[1]
    assert abs(corners[0] - width // 2) <= pixel and corners[2] == width


def test_the_border() -> None:
    drawn = Letterbox.fit((10, 40), (20, 20)).draw(np.full((10, 40, 3), 7, np.uint8), 114)
    assert (drawn[:7] == 114).all() and (drawn[7:12] == 7).all() and (drawn[12:] == 114).all()
    drawn = Letterbox.fit((10, 40), (20, 20), centered=False).draw(np.full((10, 40, 3), 7, np.uint8), 0)
    assert (drawn[:5] == 7).all() and (drawn[5:] == 0).all()


def test_corners_are_cut_to_the_image() -> None:
    box = Letterbox.fit((20, 20), (40, 40))
    np.testing.assert_array_equal(
        box.to_image(np.array([[-4, -8, 60, 30]], np.float32)), np.array([[0, 0, 20, 15]], np.float32)
    )
