"""Who an exported file is quantised by, and who it is measured on."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml

from cdkd_ext.data import DataConfig, PoseDataset
from cdkd_ext.data.loading import labelled_people, load_validation
from cdkd_ext.deployment import export_network
from cdkd_ext.deployment.people import people_to_check
from cdkd_ext.errors import InputError
from cdkd_ext.inference import TorchNetwork

pytestmark = pytest.mark.usefixtures("few_layers")


@pytest.mark.parametrize("weights", ["", "last.safetensors"])
@pytest.mark.parametrize("moved", [False, True])
def test_the_people_of_a_run_and_of_a_checkpoint_in_it(drawn_people, spec, tmp_path, weights, moved):
    people = tmp_path / "people"
    shutil.copytree(drawn_people, people)
    (people / "val/annotations.json").rename(people / "val/others.json")
    own = DataConfig(root="gone" if moved else str(people), val="val/others.json")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump({"data": {"root": own.root, "val": own.val}}))
    (tmp_path / "run/last.safetensors").touch()
    data = DataConfig(root=str(people)) if moved else None
    with people_to_check(str(tmp_path / "run" / weights), data, spec) as found:
        assert not found.drawn and found.source.endswith("val/others.json")


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


def test_those_without_a_head_length_do_not_count_as_measured(drawn_people, decided_network, spec):
    network = TorchNetwork(decided_network(spec.joints, "simcc", split_ratio=2.0), flip_test=False)
    with people_to_check("weights", DataConfig(root=str(drawn_people)), spec) as people:
        unknown = [replace(person, head_size=float("nan")) for person in people.truth.persons[:3]]
        fewer = replace(people.truth, persons=[*unknown, *people.truth.persons[3:]])
        found = [replace(people, truth=truth).accuracy(network) for truth in (people.truth, fewer)]
    assert [(one.metric, one.people) for one in found] == [("PCKh@0.5", 12), ("PCKh@0.5", 9)]


def test_a_run_of_footage_alone_is_quantised_by_its_footage(
    decided_network, spec, run_of, drawn_people, tmp_path
):
    run = run_of(decided_network(spec.joints, "simcc", split_ratio=2.0), None)
    images = drawn_people / "val/images"
    data = {"images": str(images), "image_boxes": "whole", "train": None, "val": None}
    (run / "config.yaml").write_text(yaml.safe_dump({"data": data}))
    report = export_network(str(run), str(tmp_path / "small.onnx"), precision="int8")
    assert report.calibrated == f"6 crops of every other person of {images}, who are not measured on"
    assert report.difference.source == str(images) and report.accuracy is None
    # footage that is not there any more
    (run / "config.yaml").write_text(yaml.safe_dump({"data": data | {"images": str(tmp_path / "gone")}}))
    with people_to_check(str(run), None, spec) as people:
        assert people.drawn and people.source == "drawn people"
    with pytest.raises(InputError, match=r"data: expected the run's data.* got drawn people"):
        export_network(str(run), str(tmp_path / "none.onnx"), precision="int8")
