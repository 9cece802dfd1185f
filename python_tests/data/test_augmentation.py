from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdkd_ext.data import Augmentation, CropRegion
from cdkd_ext.errors import InputError
from cdkd_ext.joints import COCO_JOINTS

REGION = CropRegion((50, 60), (100, 75))
SIZE = (64, 48)
UPPER = np.array(COCO_JOINTS.upper_body)
# the upper body around (20, 20), the lower body around (80, 90)
KEYPOINTS = np.where(UPPER[:, None], [20.0, 20.0], [80.0, 90.0]).astype(np.float32)
KEYPOINTS += np.linspace(-8, 8, 17, dtype=np.float32)[:, None] * np.float32([1, 0.5])
ALL = np.ones(17, np.float32)


def draws(augmentation: Augmentation, count: int, annotated: np.ndarray = ALL) -> list[CropRegion]:
    rng = np.random.default_rng(5)
    return [augmentation.draw(rng, REGION, SIZE, KEYPOINTS, annotated, UPPER) for _ in range(count)]


def test_distribution_of_the_defaults() -> None:
    drawn = draws(Augmentation(), 4000)
    factors = np.array([region.size[0] / REGION.size[0] for region in drawn])
    angles = np.array([region.rotation for region in drawn])
    assert np.mean([region.flip for region in drawn]) == pytest.approx(0.5, abs=0.03)
    assert np.mean(angles != 0) == pytest.approx(0.6, abs=0.03)
    # normal draws, clipped: 15.9 % of the mass sits on each end of the scales, 2.3 % of the angles
    assert factors.min() == 0.75 and factors.max() == 1.25
    assert np.mean(factors == 0.75) == pytest.approx(0.159, abs=0.02)
    assert np.mean(np.abs(factors - 1) < 0.125) == pytest.approx(0.383, abs=0.03)
    turned = angles[angles != 0]
    assert turned.min() == -60 and turned.max() == 60
    assert np.mean(turned == 60) == pytest.approx(0.023, abs=0.01)
    assert np.mean(np.abs(turned) < 30) == pytest.approx(0.683, abs=0.03)
    assert {region.center for region in drawn} == {REGION.center}
    np.testing.assert_allclose([region.size[1] / region.size[0] for region in drawn], 0.75)


def test_uniform_draws_fill_their_range_evenly() -> None:
    drawn = draws(Augmentation(scale=0.25, rotation=45, rotation_probability=1, distribution="uniform"), 4000)
    factors = np.sort([region.size[0] / REGION.size[0] for region in drawn])
    angles = np.sort([region.rotation for region in drawn])
    even = (np.arange(4000) + 0.5) / 4000
    # Kolmogorov's distance: 0.031 is exceeded by chance in one of a thousand sets
    assert np.abs((factors - 0.75) / 0.5 - even).max() < 0.031
    assert np.abs((angles + 45) / 90 - even).max() < 0.031
    assert factors.min() > 0.75 and factors.max() < 1.25 and np.abs(angles).max() < 45


def test_stored_views_of_normal_draws_stay_what_they_are() -> None:
    assert "distribution" not in Augmentation().identity()
    assert Augmentation(distribution="uniform").identity()["distribution"] == "uniform"
    with pytest.raises(InputError, match="distribution"):
        Augmentation(distribution="gaussian")


def test_all_off_changes_nothing() -> None:
    assert set(draws(Augmentation(scale=0, rotation=0, flip=0), 50)) == {REGION}


def test_half_body_is_a_fair_coin_between_the_halves() -> None:
    drawn = draws(Augmentation(scale=0, half_body=0.3), 4000)
    centers = [region.center for region in drawn]
    upper = tuple(KEYPOINTS[UPPER].astype(float).mean(axis=0))
    lower = tuple(KEYPOINTS[~UPPER].astype(float).mean(axis=0))
    assert set(centers) == {REGION.center, upper, lower}
    assert centers.count(upper) / 4000 == pytest.approx(0.15, abs=0.02)
    assert centers.count(lower) / 4000 == pytest.approx(0.15, abs=0.02)
    height, width = next(region.size for region in drawn if region.center == upper)
    spread = np.ptp(KEYPOINTS[UPPER], axis=0)
    # padded by 1.5 at the crop's aspect ratio: here the width decides
    assert (height, width) == (pytest.approx(spread[0] * 1.5 / 0.75), pytest.approx(spread[0] * 1.5))


def test_half_body_needs_joints() -> None:
    always = Augmentation(scale=0, rotation=0, flip=0, half_body=1.0)
    few = ALL.copy()
    few[:9] = 0
    assert set(draws(always, 20, few)) == {REGION}
    nine = ALL.copy()
    nine[:8] = 0
    assert REGION not in draws(always, 20, nine)
    # two joints are no half: the other half is taken, whatever the coin says
    two_below = ALL.copy()
    two_below[13:] = 0
    assert len({region.center for region in draws(always, 20, two_below)}) == 1


def test_half_body_of_one_point_keeps_the_person() -> None:
    always = Augmentation(scale=0, rotation=0, flip=0, half_body=1.0)
    same = np.full((17, 2), 30, np.float32)
    rng = np.random.default_rng(0)
    assert always.draw(rng, REGION, SIZE, same, ALL, UPPER) == REGION


@given(st.integers(0, 2**32), st.booleans(), st.booleans(), st.booleans())
def test_switching_a_part_off_leaves_the_others(seed: int, scale: bool, rotation: bool, flip: bool) -> None:
    def draw(augmentation: Augmentation) -> CropRegion:
        return augmentation.draw(np.random.default_rng(seed), REGION, SIZE, KEYPOINTS, ALL, UPPER)

    full = draw(Augmentation())
    part = draw(Augmentation(0.25 * scale, 30.0 * rotation, flip=0.5 * flip))
    assert part.size == (full.size if scale else REGION.size)
    assert part.rotation == (full.rotation if rotation else 0)
    assert part.flip == (full.flip and flip)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"scale": 1.0}, "scale"),
        ({"scale": -0.1}, "scale"),
        ({"scale": float("nan")}, "scale"),
        ({"rotation": -1}, "rotation"),
        ({"rotation": 181}, "rotation"),
        ({"rotation_probability": 1.1}, "rotation_probability"),
        ({"flip": -0.1}, "flip"),
        ({"half_body": 2}, "half_body"),
        ({"half_body_min_joints": -1}, "half_body_min_joints"),
    ],
)
def test_bad_parameters(arguments: dict[str, float], field: str) -> None:
    with pytest.raises(InputError, match=f"^{field}: "):
        Augmentation(**arguments)  # type: ignore[arg-type]
