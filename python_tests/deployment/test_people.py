"""Who an exported file is quantised by, and who it is measured on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cdkd_ext.data import DataConfig, PoseDataset
from cdkd_ext.data.loading import labelled_people, load_validation
from cdkd_ext.deployment.people import people_to_check


@pytest.fixture(scope="module")
def spec(drawn_people, decided_network):
    joints = load_validation(DataConfig(root=str(drawn_people))).joints
    return decided_network(joints, "simcc", split_ratio=2.0).spec


def crops_of(persons, spec):
    dataset = PoseDataset(
        persons, spec.joints, size=spec.input_size, padding=spec.padding, resample=spec.resample
    )
    return np.stack([dataset[i]["image"].permute(1, 2, 0).numpy() for i in range(len(dataset))])


def test_people_to_train_on_are_quantised_by_and_all_others_measured_on(drawn_people, spec):
    data = DataConfig(root=str(drawn_people))
    with people_to_check("weights", data, spec) as people:
        found = people.calibration(256)
        few = people.calibration(5)
    trained = crops_of(labelled_people(data)[0], spec)
    np.testing.assert_array_equal(found.crops, trained)
    np.testing.assert_array_equal(few.crops, trained[[0, 11, 23, 35, 47]])
    assert found.source == f"people to train on, {drawn_people}/train/annotations.json"
    assert len(found.others.truth.persons) == 12


@pytest.mark.parametrize("train", [None, "train/none.json"])
def test_without_them_nobody_is_both_quantised_by_and_measured_on(drawn_people, spec, train):
    data = DataConfig(root=str(drawn_people), train=train)
    persons = load_validation(data).persons
    with people_to_check("weights", data, spec) as people:
        found = people.calibration(256)
    np.testing.assert_array_equal(found.crops, crops_of(persons[::2], spec))
    names = [person.image_id for person in found.others.truth.persons]
    assert names == [person.image_id for person in persons[1::2]]
    expected = f"every other person of {drawn_people}/val/annotations.json, who are not measured on"
    assert found.source == expected
    # average precision counts everybody in the file
    with people_to_check("weights", data, spec) as people:
        found = replace(people, truth=replace(people.truth, metric="AP")).calibration(256)
    assert len(found.others.truth.persons) == 12 and found.source.endswith("who are measured on, too")
