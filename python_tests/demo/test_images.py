import numpy as np
import pytest

from cdkd_ext.demo.images import _marked

POINTS = np.array([[20.0, 20.0], [60.0, 20.0], [100.0, 20.0]])


def marked(found, annotated):
    return _marked(np.full((120, 120, 3), 128, np.uint8), POINTS, np.array(found), np.array(annotated))


@pytest.mark.parametrize(
    "found, annotated", [([1, 0, 0], [1, 1, 0]), ([0, 1, 1], [1, 1, 1]), ([1, 1, 1], [0, 0, 0])]
)
def test_a_ring_is_around_each_annotated_joint_that_is_wrong_and_around_no_other(found, annotated):
    found, annotated = np.array(found, bool), np.array(annotated, bool)
    image = marked(found, annotated)
    for (x, y), wrong in zip(POINTS.astype(int), annotated & ~found, strict=True):
        near = image[y - 10 : y + 11, x - 10 : x + 11]
        assert (near != 128).any() == wrong


def test_the_count_is_of_the_annotated_joints():
    def count(found, annotated):
        return marked(np.array(found, bool), np.array(annotated, bool))[80:]

    two_of_three = count([1, 0, 1], [1, 1, 1])
    assert (two_of_three != 128).any()
    assert (two_of_three == count([0, 1, 1], [1, 1, 1])).all()
    for other in (count([1, 0, 0], [1, 1, 1]), count([1, 0, 1], [1, 0, 1]), count([1, 1, 1], [1, 1, 1])):
        assert (two_of_three != other).any()
    assert (count([1, 0, 0], [1, 1, 0]) == count([1, 1, 0], [1, 0, 1])).all()
