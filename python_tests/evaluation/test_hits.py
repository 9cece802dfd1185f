"""Which joints of whom were found: the same as PCKh counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cdkd_ext.data import Person
from cdkd_ext.errors import InputError
from cdkd_ext.evaluation import JointHits, joint_hits, limb_joints, pckh
from cdkd_ext.joints import COCO_JOINTS, MPII_JOINTS

PEOPLE, JOINTS = 40, 16


@pytest.fixture
def persons() -> list[Person]:
    rng = np.random.default_rng(0)
    made = []
    for index in range(PEOPLE):
        annotated = (rng.random(JOINTS) < 0.8).astype(np.float32)
        points = rng.uniform(0, 100, (JOINTS, 2)).astype(np.float32) * annotated[:, None]
        size = [20.0, float("nan"), 0.0][0 if index % 5 else 1 + index % 2]
        box = np.array([0, 0, 100, 100], np.float32)
        made.append(Person(Path("a.jpg"), index, index, box, points, annotated, 1e4, size))
    return made


@pytest.fixture
def keypoints(persons: list[Person]) -> np.ndarray:
    rng = np.random.default_rng(1)
    found = np.stack([person.keypoints for person in persons]) + rng.normal(0, 8, (PEOPLE, JOINTS, 2))
    found[3, 4] = np.nan
    return found.astype(np.float32)


def test_the_percentage_is_pckh(persons: list[Person], keypoints: np.ndarray) -> None:
    hits = joint_hits(keypoints, persons, MPII_JOINTS)
    targets, annotated = (
        np.stack([getattr(p, name) for p in persons]) for name in ("keypoints", "annotated")
    )
    expected = pckh(keypoints, targets, annotated, [person.head_size for person in persons])
    assert hits.percent() == pytest.approx(expected.mean, abs=1e-12)
    assert hits.percent(["left_knee", "right_knee"]) != hits.percent()
    assert hits.right.shape == hits.counted.shape == (PEOPLE, JOINTS)


def test_each_joint_of_each_person(persons: list[Person], keypoints: np.ndarray) -> None:
    hits = joint_hits(keypoints, persons, MPII_JOINTS, threshold=0.3)
    for n, person in enumerate(persons):
        for j in range(JOINTS):
            known = person.annotated[j] > 0 and person.head_size > 0
            distance = np.hypot(*(keypoints[n, j].astype(float) - person.keypoints[j]))
            assert hits.counted[n, j] == known
            assert hits.right[n, j] == (known and distance <= 0.3 * person.head_size)
    assert not hits.counted[::5].any()
    assert not hits.right[3, 4]


def test_people_are_counted_by_the_chosen_joints(persons: list[Person], keypoints: np.ndarray) -> None:
    hits = joint_hits(keypoints, persons, MPII_JOINTS)
    right, counted = hits.per_person(limb_joints(MPII_JOINTS))
    assert counted.max() <= 12 and (right <= counted).all()
    # pelvis and thorax are in no mean
    assert hits.per_person()[1].max() <= 14
    with pytest.raises(InputError, match="joints: expected names among"):
        hits.percent(["tail"])


def test_twelve_joints_are_the_limbs() -> None:
    for joints in (MPII_JOINTS, COCO_JOINTS):
        names = limb_joints(joints)
        assert len(names) == 12
        assert {name.split("_")[1] for name in names} == {
            "ankle",
            "knee",
            "hip",
            "wrist",
            "elbow",
            "shoulder",
        }


def test_a_file_holds_them_for_one_network_and_its_people(
    persons: list[Person], keypoints: np.ndarray, tmp_path: Path
) -> None:
    hits = joint_hits(keypoints, persons, MPII_JOINTS)
    hits.save(tmp_path / "hits.npz", "this one")
    found = JointHits.load(tmp_path / "hits.npz", "this one")
    assert found is not None and found.names == hits.names
    np.testing.assert_array_equal(found.right, hits.right)
    np.testing.assert_array_equal(found.counted, hits.counted)
    assert JointHits.load(tmp_path / "hits.npz", "another") is None
    assert JointHits.load(tmp_path / "none.npz", "this one") is None
    (tmp_path / "hits.npz").write_bytes((tmp_path / "hits.npz").read_bytes()[:100])
    assert JointHits.load(tmp_path / "hits.npz", "this one") is None


def test_nobody_has_no_hits() -> None:
    hits = joint_hits(np.zeros((0, JOINTS, 2)), [], MPII_JOINTS)
    assert hits.right.shape == hits.counted.shape == (0, JOINTS)


def test_shapes_and_thresholds_are_checked(persons: list[Person], keypoints: np.ndarray) -> None:
    with pytest.raises(InputError, match="keypoints: expected shape"):
        joint_hits(keypoints[1:], persons, MPII_JOINTS)
    with pytest.raises(InputError, match="threshold: expected a positive number"):
        joint_hits(keypoints, persons, MPII_JOINTS, 0)
