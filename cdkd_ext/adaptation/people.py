"""Who takes part in an adaptation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cdkd_ext.adaptation.config import AdaptationConfig
from cdkd_ext.adaptation.measuring import Labels
from cdkd_ext.adaptation.networks import AdaptableNetwork, AdaptablePoseNetwork
from cdkd_ext.data import Augmentation, EvaluationSet, Person, PoseDataset
from cdkd_ext.data.loading import load_people, parted
from cdkd_ext.errors import check
from cdkd_ext.joints import JointSet
from cdkd_ext.teachers import JointMap
from cdkd_ext.teachers.pseudo_labels import unlabelled_person
from cdkd_ext.training.progress import footage_progress


@dataclass(frozen=True)
class AdaptationPeople:
    """The people of an adaptation, cropped for its network; their annotations are left out.

    Attributes:
        trained: to learn from, augmented.
        kept_aside: to measure the agreement on while the network learns.
        shown: of the report: those of the validation, or the ones kept aside.
        truth: the validation people with their annotations, if there are any.
        chosen: indices of those that are shown among them.
    """

    trained: PoseDataset
    kept_aside: PoseDataset
    shown: PoseDataset
    truth: EvaluationSet | None
    chosen: list[int]

    def parts(self) -> tuple[PoseDataset, PoseDataset, PoseDataset]:
        """The three."""
        return self.trained, self.kept_aside, self.shown

    def labels(self, joints: JointSet) -> Labels | None:
        """The annotations of the report's people, if they have any, for a network's joints."""
        truth = self.truth
        if truth is None or truth.metric == "none":
            return None
        persons = [truth.persons[index] for index in self.chosen]
        return Labels(persons, truth.joints, JointMap.by_name(truth.joints, joints), truth.metric)


def load_adaptation_people(
    config: AdaptationConfig, network: AdaptableNetwork, output: Path
) -> AdaptationPeople:
    """Read the annotations and the footage of a configuration, and part the people.

    Args:
        config: the run.
        network: whose joints and crops are meant.
        output: folder of the run; see `load_people`.

    Raises:
        InputError: see `load_people`; or there are fewer than two people, or the annotations have none of the
            network's joints.
    """
    with footage_progress() as progress:
        people = load_people(config.data, output, teacher_joints=lambda: network.joints, progress=progress)
    nothing = np.zeros((len(network.joints), 2), np.float32)
    everybody = [*people.train, *(people.footage.persons if people.footage else ())]
    check(len(everybody) > 1, "data", f"{len(everybody)} people", "at least two: one is kept aside")
    persons = [unlabelled_person(person, nothing) for person in everybody]
    parts = parted(len(persons), config.watched_people, config.seed)
    aside, trained = ([persons[index] for index in part] for part in parts)
    shown, chosen = aside, list(range(len(aside)))
    if people.val is not None:
        # raises where no joint of the annotations is one of the network's
        JointMap.by_name(people.val.joints, network.joints)
        chosen = _spread(len(people.val.persons), config.report_people)
        shown = [unlabelled_person(people.val.persons[index], nothing) for index in chosen]
    described, data = network.description, config.data
    padding = described.padding if data.padding is None else data.padding
    if isinstance(network, AdaptablePoseNetwork):
        # its file says how it is to be cropped
        for name, value, own in (
            ("padding", padding, described.padding),
            ("resample", data.resample or described.resample, described.resample),
        ):
            check(value == own, f"data.{name}", value, f"nothing, or the network's own, {own}")

    def cropped(persons: Sequence[Person], augmentation: Augmentation | None = None) -> PoseDataset:
        return PoseDataset(
            persons,
            network.joints,
            size=network.input_size,
            augmentation=augmentation,
            seed=config.seed,
            labelled_fraction=0,
            padding=padding,
            resample=data.resample or described.resample,
            camera_faults=data.camera_faults if augmentation else 0.0,
        )

    augmented = cropped(trained, config.data.augmentation)
    return AdaptationPeople(augmented, cropped(aside), cropped(shown), people.val, chosen)


def _spread(count: int, wanted: int) -> list[int]:
    """Indices of `wanted` of `count` people, evenly."""
    return sorted({int(index) for index in np.linspace(0, count - 1, min(wanted, count))})
