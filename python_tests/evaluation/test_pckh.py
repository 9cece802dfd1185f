from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cdkd_ext.errors import InputError
from cdkd_ext.evaluation import limb_joints, pckh
from cdkd_ext.joints import MPII_JOINTS, JointSet

LSP_NAMES = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist",
    "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck", "head_top",
)  # fmt: skip


def plain_pckh(
    predictions: Any, targets: Any, annotated: Any, heads: Any, threshold: float
) -> dict[str, float]:
    """The published evaluation of MPII, by positions and with loops."""
    count, right = [0] * 16, [0] * 16
    for n in range(len(heads)):
        if not heads[n] > 0 or math.isinf(heads[n]):
            continue
        for j in range(16):
            if annotated[n][j]:
                count[j] += 1
                if math.dist(predictions[n][j], targets[n][j]) / heads[n] <= threshold:
                    right[j] += 1
    score = [100 * r / c if c else math.nan for r, c in zip(right, count, strict=True)]
    total = sum(c for j, c in enumerate(count) if j not in (6, 7))
    result = {
        "mean": sum(s * c for j, (s, c) in enumerate(zip(score, count, strict=True)) if c and j not in (6, 7))
    }
    result["mean"] = result["mean"] / total if total else math.nan
    sides = {
        "shoulder": (12, 13),
        "elbow": (11, 14),
        "wrist": (10, 15),
        "hip": (2, 3),
        "knee": (1, 4),
        "ankle": (0, 5),
    }
    result["head"] = score[9]
    for name, (a, b) in sides.items():
        known = [score[j] for j in (a, b) if count[j]]
        result[name] = sum(known) / len(known) if known else math.nan
    return result


@settings(max_examples=60)
@given(st.integers(1, 6), st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.5, 1.0]))
def test_against_plain_loops(people: int, seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    targets = rng.uniform(0, 200, (people, 16, 2))
    predictions = targets + rng.normal(0, 8, (people, 16, 2))
    annotated = rng.random((people, 16)) < 0.7
    heads = rng.choice([np.nan, 0.0, -3.0, np.inf, 10.0, 25.0], people)
    expected = plain_pckh(predictions, targets, annotated, heads, threshold)
    if math.isnan(expected["mean"]):
        with pytest.raises(InputError):
            pckh(predictions, targets, annotated, heads, threshold)
        return
    result = pckh(predictions, targets, annotated, heads, threshold)
    assert result.mean == pytest.approx(expected.pop("mean"))
    assert list(result.per_joint) == ["head", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"]
    assert result.per_joint == pytest.approx(expected, nan_ok=True)
    assert result.people + result.people_without_head_size == people
    assert result.people == int(((heads > 0) & (heads < np.inf)).sum())
    assert result.threshold == threshold


def one_person(names: Sequence[str], wrong: set[str]) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and targets (1, J, 2) with the given joints 6 pixels off."""
    targets = np.arange(len(names) * 2, dtype=float).reshape(1, -1, 2)
    offsets = np.array([[[6.0 * (name in wrong), 0.0] for name in names]])
    return targets + offsets, targets


@pytest.mark.parametrize(
    ("wrong", "mean", "groups"),
    [
        (set(), 100, {}),
        # pelvis and thorax count nowhere
        ({"pelvis", "thorax"}, 100, {}),
        # the upper neck counts in the mean alone
        ({"upper_neck"}, 100 * 13 / 14, {}),
        ({"head_top"}, 100 * 13 / 14, {"head": 0.0}),
        ({"left_knee", "upper_neck"}, 100 * 12 / 14, {"knee": 50.0}),
    ],
)
def test_which_joints_count_where(wrong: set[str], mean: float, groups: dict[str, float]) -> None:
    predictions, targets = one_person(MPII_JOINTS.names, wrong)
    result = pckh(predictions, targets, np.ones((1, 16)), [10.0])
    assert result.mean == pytest.approx(mean)
    assert {name: value for name, value in result.per_joint.items() if value != 100} == groups
    assert result.counts == {name: 1 if name == "head" else 2 for name in result.per_joint}


def test_mean_is_weighted_by_counts_and_sides_are_not() -> None:
    names = ("left_knee", "right_knee")
    targets = np.zeros((4, 2, 2))
    predictions = targets.copy()
    predictions[0, 0] = 100
    annotated = np.array([[1, 1], [0, 1], [0, 1], [0, 1]])
    result = pckh(predictions, targets, annotated, np.full(4, 10.0), joint_names=names)
    assert result.mean == pytest.approx(80)
    assert result.per_joint == {"knee": 50}
    assert result.counts == {"knee": 5}


def test_other_joint_sets_group_by_name() -> None:
    predictions, targets = one_person(LSP_NAMES, {"neck", "left_wrist"})
    result = pckh(predictions, targets, np.ones((1, 14)), [10.0], joint_names=LSP_NAMES)
    assert result.mean == pytest.approx(100 * 12 / 14)
    assert result.per_joint == {
        "head": 100, "shoulder": 100, "elbow": 100, "wrist": 50, "hip": 100, "knee": 100, "ankle": 100,
        "neck": 0,
    }  # fmt: skip


def test_joints_are_known_however_they_are_spelt() -> None:
    names = ("Pelvis", "Left Hip", "Right Hip", "Thorax", "Head Top", "Left Paw", "right-paw")
    predictions, targets = one_person(names, {"Pelvis", "Thorax", "Right Hip"})
    result = pckh(predictions, targets, np.ones((1, 7)), [10.0], joint_names=names)
    assert result.mean == pytest.approx(100 * 4 / 5)
    assert list(result.per_joint)[:2] == ["head", "hip"] and result.per_joint["hip"] == 50
    joints = JointSet(names, (0, 2, 1, 3, 4, 6, 5))
    assert limb_joints(joints) == ("Left Hip", "Right Hip")


def test_the_threshold_itself_is_right() -> None:
    names = ("nose",)
    targets = np.zeros((2, 1, 2))
    predictions = np.array([[[5.0, 0.0]], [[5.0 + 1e-9, 0.0]]])
    result = pckh(predictions, targets, np.ones((2, 1)), [10.0, 10.0], joint_names=names)
    assert result.mean == 50
    assert pckh(predictions, targets, np.ones((2, 1)), [10.0, 10.0], 0.1, joint_names=names).mean == 0


def test_head_length_scales_each_person() -> None:
    targets = np.zeros((2, 1, 2))
    predictions = np.full((2, 1, 2), 4.0)
    assert pckh(predictions, targets, np.ones((2, 1)), [5.0, 50.0], joint_names=("nose",)).mean == 50


def test_predictions_that_are_not_finite_are_wrong() -> None:
    targets = np.zeros((3, 1, 2))
    predictions = np.array([[[np.nan, 0]], [[np.inf, 0]], [[0, 0]]])
    result = pckh(predictions, targets, np.ones((3, 1)), np.ones(3), joint_names=("nose",))
    assert result.mean == pytest.approx(100 / 3)


def test_targets_need_to_be_finite_only_where_annotated() -> None:
    targets = np.array([[[0.0, 0.0], [np.nan, 0.0]]])
    names = ("left_eye", "right_eye")
    result = pckh(np.zeros((1, 2, 2)), targets, [[1, 0]], [5.0], joint_names=names)
    assert result.mean == 100 and result.per_joint == {"eye": 100}
    with pytest.raises(InputError, match="targets"):
        pckh(np.zeros((1, 2, 2)), targets, [[1, 1]], [5.0], joint_names=names)


def test_kinds_without_annotation_are_nan() -> None:
    result = pckh(np.zeros((1, 2, 2)), np.zeros((1, 2, 2)), [[1, 0]], [5.0], joint_names=("nose", "tail"))
    assert result.per_joint["nose"] == 100 and math.isnan(result.per_joint["tail"])
    assert result.counts == {"nose": 1, "tail": 0} and result.mean == 100


def test_tensors_are_taken() -> None:
    zeros = torch.zeros(2, 16, 2)
    assert pckh(zeros, zeros, torch.ones(2, 16), torch.ones(2)).mean == 100


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"predictions": np.zeros((2, 15, 2))}, "predictions"),
        ({"predictions": np.zeros((2, 16))}, "predictions"),
        ({"targets": np.zeros((1, 16, 2))}, "targets"),
        ({"annotated": np.zeros((2, 1))}, "annotated"),
        ({"annotated": np.zeros((2, 16))}, "annotated"),
        ({"head_sizes": np.ones(3)}, "head_sizes"),
        ({"head_sizes": [np.nan, 0]}, "head_sizes"),
        ({"threshold": 0}, "threshold"),
        ({"threshold": math.inf}, "threshold"),
        ({"joint_names": LSP_NAMES}, "predictions"),
    ],
)
def test_bad_input(change: dict[str, Any], field: str) -> None:
    zeros = np.zeros((2, 16, 2))
    arguments = {
        "predictions": zeros,
        "targets": zeros,
        "annotated": np.ones((2, 16)),
        "head_sizes": np.ones(2),
    }
    with pytest.raises(InputError, match=f"^{field}: expected"):
        pckh(**{**arguments, **change})


def test_no_people() -> None:
    with pytest.raises(InputError, match="head_sizes"):
        pckh(np.zeros((0, 16, 2)), np.zeros((0, 16, 2)), np.zeros((0, 16)), [])
