"""Colour jitter and grid dropout: exact values of single changes, and what crops of one view share."""

from __future__ import annotations

import colorsys
from dataclasses import replace

import numpy as np
import pytest

from cdkd_ext.data import Person, Photometric, PoseDataset
from cdkd_ext.data.cached_views import later_options
from cdkd_ext.errors import InputError
from cdkd_ext.images import save_image
from cdkd_ext.joints import COCO_JOINTS

CROP = np.random.default_rng(3).integers(40, 200, (24, 16, 3), dtype=np.uint8)
GREY = np.array([0.299, 0.587, 0.114])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def drawn(number: int, seed: int = 0) -> float:
    return float(rng(seed).uniform(-1, 1, 4)[number])


def test_brightness_is_a_factor() -> None:
    expected = (CROP.astype(np.float64) * (1 + 0.2 * drawn(0))).clip(0, 255)
    np.testing.assert_allclose(Photometric(brightness=0.2).jitter(CROP, rng()), expected, atol=0.51)


def test_contrast_is_a_factor_of_differences_to_the_mean_grey() -> None:
    mean = (CROP @ GREY).mean()
    expected = (mean + (CROP - mean) * (1 + 0.3 * drawn(1))).clip(0, 255)
    np.testing.assert_allclose(Photometric(contrast=0.3).jitter(CROP, rng()), expected, atol=0.52)


def test_saturation_is_a_factor_of_differences_to_grey() -> None:
    grey = (CROP @ GREY)[..., None]
    expected = (grey + (CROP - grey) * (1 + 0.4 * drawn(2))).clip(0, 255)
    np.testing.assert_allclose(Photometric(saturation=0.4).jitter(CROP, rng()), expected, atol=0.52)


def test_hue_turns_the_colour_circle() -> None:
    turn = 0.2 * drawn(3)
    expected = np.empty(CROP.shape)
    for at in np.ndindex(CROP.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*(CROP[at] / 255.0))
        expected[at] = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
    np.testing.assert_allclose(Photometric(hue=0.2).jitter(CROP, rng()), 255 * expected, atol=0.6)


def test_all_four_change_together_and_nothing_changes_by_default() -> None:
    assert Photometric().jitter(CROP, rng()) is CROP
    assert not Photometric().active
    everything = Photometric(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2)
    changed = {everything.jitter(CROP, rng(seed)).tobytes() for seed in range(20)}
    assert len(changed) == 20


def test_holes_are_squares_of_half_a_unit_in_a_grid() -> None:
    white = np.full((40, 60, 3), 255, np.uint8)
    holed = Photometric(grid_dropout=1, grid_unit=(8, 8)).drop(white, rng())
    black = (holed == 0).all(-1)
    assert set(np.unique(holed)) == {0, 255}
    columns, rows = black.any(0), black.any(1)
    np.testing.assert_array_equal(black, rows[:, None] & columns[None])
    for line in (rows, columns):
        np.testing.assert_array_equal(line[8:], line[:-8])
        assert line[:8].sum() == 4
    assert Photometric(grid_dropout=0.5).drop(white, rng(1)) is white or (holed != white).any()


@pytest.mark.parametrize("unit", [(2, 2), (2, 5), (10, 40), (200, 300)])
def test_a_quarter_is_lost_on_average(unit: tuple[int, int]) -> None:
    white = np.ones((64, 64, 3), np.uint8)
    kept = Photometric(grid_dropout=0.5, grid_unit=unit)
    lost = [1 - kept.drop(white, rng(seed)).mean() for seed in range(3000)]
    assert np.mean([share > 0 for share in lost]) <= 0.54
    # half of the crops lose a quarter; of odd units less than half is a hole
    halves = [(side // 2 / side) ** 2 for side in range(unit[0], unit[1] + 1)]
    assert np.mean(lost) == pytest.approx(0.5 * np.mean(halves), abs=0.02)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"brightness": 1.5}, "brightness"),
        ({"contrast": -0.1}, "contrast"),
        ({"saturation": float("nan")}, "saturation"),
        ({"hue": 0.6}, "hue"),
        ({"grid_dropout": 2}, "grid_dropout"),
        ({"grid_unit": (1, 5)}, "grid_unit"),
        ({"grid_unit": (5, 4)}, "grid_unit"),
        ({"grid_unit": (5,)}, "grid_unit"),
    ],
)
def test_out_of_range(options: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        Photometric(**options)


@pytest.fixture
def person(tmp_path_factory: pytest.TempPathFactory) -> Person:
    path = tmp_path_factory.mktemp("image") / "image.png"
    colours = np.kron(
        np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8), np.ones((16, 16, 1), np.uint8)
    )
    save_image(colours, path)
    keypoints = np.full((17, 2), 64, np.float32)
    box = np.array([24, 24, 80, 80], np.float32)
    return Person(path, 1, 1, box, keypoints, np.ones(17, np.float32), 6400.0, 20.0, (128, 128))


def test_both_crops_have_the_same_colours_and_the_students_alone_holes(person: Person) -> None:
    plain = PoseDataset([person], COCO_JOINTS, size=(32, 32), teacher_size=(64, 64))
    turned = Photometric(brightness=0.4, hue=0.2)
    jittered = PoseDataset([person], COCO_JOINTS, size=(32, 32), teacher_size=(64, 64), photometric=turned)
    holes = replace(turned, grid_dropout=1.0, grid_unit=(8, 8))
    holed = PoseDataset([person], COCO_JOINTS, size=(32, 32), teacher_size=(64, 64), photometric=holes)
    for view in range(3):
        before, after, last = (data[0, view] for data in (plain, jittered, holed))
        means = {}
        for name in ("image", "teacher_image"):
            assert (before[name] != after[name]).any()
            means[name] = after[name].float().mean((1, 2)) - before[name].float().mean((1, 2))
        # the same change of the mean colour in both resolutions
        np.testing.assert_allclose(means["image"], means["teacher_image"], atol=3)
        assert (last["teacher_image"] == after["teacher_image"]).all()
        black = (last["image"] == 0).all(0)
        assert 0.1 < black.float().mean() < 0.4
        assert (last["image"] == after["image"])[:, ~black].all()
        assert (before["keypoints"] == last["keypoints"]).all()


def test_stored_views_of_other_pixels_are_others(person: Person) -> None:
    def told(photometric: Photometric) -> dict[str, object]:
        return later_options(PoseDataset([person], COCO_JOINTS, size=(32, 32), photometric=photometric))

    assert told(Photometric()) == {}
    assert told(Photometric(hue=0.1)) != told(Photometric(hue=0.2)) != {}
