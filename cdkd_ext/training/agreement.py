"""Choosing the best checkpoint without labels: agreement with the teacher on people who are kept aside."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from cdkd_ext.data import EvaluationSet, Person
from cdkd_ext.data.crops import region_from_box
from cdkd_ext.data.loading import People, parted
from cdkd_ext.errors import check
from cdkd_ext.evaluation.agreement import SURE, agreement
from cdkd_ext.evaluation.evaluate import predict_people
from cdkd_ext.joints import JointSet
from cdkd_ext.models import ModelSpec, PoseNetwork
from cdkd_ext.teachers import (
    ForeignTeacher,
    FrozenTeacher,
    PseudoLabels,
    TeacherFile,
    ask_teacher,
    unlabelled_person,
)
from cdkd_ext.training.config import DistillationConfig, TrainingConfig

METRIC = "agreement"
# not the run's own seed: stored views are shared by runs of different seeds
_SEED = 0
# fewer than two people say little
_FEWEST = 2


def watch_people(config: TrainingConfig, people: People) -> People:
    """Keep some people aside where agreement is to choose the best checkpoint, and nobody else is there to measure it on.

    With `data.metric` "auto" this is where there are a teacher, nobody to validate on, and twenty people or more. With
    "agreement" the people to validate on are taken, if there are any.

    Args:
        config: the run.
        people: of `load_people`.

    Raises:
        InputError: `data.metric` is "agreement", and there are fewer than two people.
    """
    metric, val = config.data.metric, people.val
    if (
        config.teacher_file() is None
        or metric not in ("auto", METRIC)
        or (val is not None and metric != METRIC)
    ):
        return people
    if val is not None:
        watched = [_unlabelled(person, people.joints) for person in val.persons]
        return replace(people, val=None, watched=watched)
    footage = people.footage.persons if people.footage else []
    everybody = [*people.train, *footage]
    if metric == METRIC:
        check(len(everybody) > 1, "data.metric", f"{METRIC} with one person", "two people: one is kept aside")
    elif len(everybody) // 10 < _FEWEST:
        return people
    assert isinstance(config, DistillationConfig)
    aside, trained = parted(len(everybody), config.watched_people, _SEED)
    rest = [index for index in trained if index >= len(people.train)]
    return replace(
        people,
        train=[everybody[index] for index in trained if index < len(people.train)],
        footage=replace(people.footage, persons=[everybody[index] for index in rest])
        if people.footage
        else None,
        watched=[_unlabelled(everybody[index], people.joints) for index in aside],
    )


def _unlabelled(person: Person, joints: JointSet) -> Person:
    return unlabelled_person(person, np.zeros((len(joints), 2), np.float32))


@dataclass(frozen=True)
class Agreement:
    """Measures how far a student agrees with the teacher, in every process of a run.

    Args:
        people: whom to predict, in crops as in training.
        said: the teacher's keypoints for them.
        spec: of the student.
        config: the run; how to predict.
        accelerator: the processes.
    """

    people: EvaluationSet
    said: PseudoLabels
    spec: ModelSpec
    config: TrainingConfig
    accelerator: Accelerator

    metric = METRIC

    def __call__(self, student: PoseNetwork) -> dict[str, Any]:
        """Return the agreement of a student on the accelerator's device, in percent, and of how many people it is."""
        found = predict_people(
            student,
            self.people,
            flip_test=self.config.flip_test,
            simcc_score=self.config.simcc_score,
            accelerator=self.accelerator,
            workers=self.config.data.workers,
        )
        size, padding = self.spec.input_size, self.spec.padding
        sides = [max(region_from_box(person.box, size, padding).size) for person in self.people.persons]
        keypoints = found.keypoints.numpy()
        value = agreement(keypoints, self.said.keypoints, self.said.confidence, sides)
        return {METRIC: value, "people": len(sides), "boxes": self.people.boxes}


def build_agreement(
    config: TrainingConfig,
    people: People,
    spec: ModelSpec,
    teacher: FrozenTeacher | ForeignTeacher,
    folder: Path,
    accelerator: Accelerator,
) -> Agreement | None:
    """Ask the teacher about the watched people; None where it is sure of nothing and another metric will do.

    Args:
        config: the run.
        people: of `watch_people`.
        spec: of the student.
        teacher: who is asked, on crops that show what the student's show.
        folder: receives what it says, for the next run.
        accelerator: the processes.

    Raises:
        InputError: `data.metric` is "agreement", and the teacher is sure of nothing.
    """
    file = config.teacher_file()
    assert isinstance(file, TeacherFile)
    with accelerator.main_process_first():
        said = ask_teacher(teacher, file.identity(teacher), people.watched, folder, padding=spec.padding)
    if not (said.confidence >= SURE).any():
        got = f"{METRIC} with one that is sure of no joint of the people kept aside"
        check(config.data.metric != METRIC, "data.metric", got, "a teacher that is sure of some")
        return None
    truth = EvaluationSet(
        people.watched,
        people.joints,
        "none",
        Path(),
        "those of the people kept aside",
        padding=spec.padding,
        resample=spec.resample,
    )
    return Agreement(truth, said, spec, config, accelerator)
