"""The kinds of student that the demonstration compares, and the runs that train them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from cdkd_ext.recipes import load_recipe
from cdkd_ext.studies import StudyRun
from cdkd_ext.teachers.frozen import fast_precision

RECIPE = "demo_student"
# the terms are the defaults: CCA alone
_TAUGHT = {"teacher_precision": "auto"}


@dataclass(frozen=True)
class Arm:
    """One kind of student.

    Attributes:
        name: of its runs' folders, before the seed's number.
        title: in tables and images.
        labelled: share of the training people whose labels are used.
        taught: whether a teacher is there, which tells about all people.
    """

    name: str
    title: str
    labelled: float
    taught: bool


ALONE = Arm("alone", "all labels", 1.0, False)
DISTILLED = Arm("distilled", "all labels + CDKD", 1.0, True)
TENTH_ALONE = Arm("tenth_alone", "a tenth of the labels", 0.1, False)
TENTH_DISTILLED = Arm("tenth_distilled", "a tenth of the labels + CDKD", 0.1, True)
ARMS = (TENTH_ALONE, TENTH_DISTILLED, ALONE, DISTILLED)


@dataclass(frozen=True)
class Training:
    """What all students share.

    Attributes:
        people: folder of the data set.
        count: how many people it has to train on.
        cache: folder of the stored views and of what the teacher says of them.
        teacher: its file.
        epochs: passes over all people; who learns from fewer people passes over them more often.
        views: stored views per person.
        seeds: students of each kind.
    """

    people: Path
    count: int
    cache: Path
    teacher: Path
    epochs: int
    views: int
    seeds: int

    def runs(self) -> list[StudyRun]:
        """Every student's command, seed by seed, those first that ask the teacher: the others find the views."""
        order = sorted(ARMS, key=lambda arm: not arm.taught)
        return [self.run(arm, seed) for seed in range(self.seeds) for arm in order]

    def run(self, arm: Arm, seed: int) -> StudyRun:
        """The command of a student."""
        epochs = self.epochs * self._repeats(arm)
        options = {
            "data.root": self.people,
            "data.cache": self.cache,
            "data.views": self.views,
            "data.labelled_fraction": arm.labelled,
            "epochs": epochs,
            "evaluate_every": max(epochs // 2, 1),
            "precision": fast_training(),
            "seed": seed,
            **({"teacher": self.teacher, **_TAUGHT} if arm.taught else {}),
        }
        words = (word for name, value in options.items() for word in (f"--{name}", str(value)))
        command = ("distill" if arm.taught else "train", "--recipe", RECIPE, *words)
        return StudyRun(name=f"{arm.name}_{seed}", command=command, row=arm.name, seed=seed)

    def _repeats(self, arm: Arm) -> int:
        """How often an arm passes over its people while the others pass once over theirs: for as many steps."""
        batch = load_recipe(RECIPE)["batch_size"]
        own = self.count if arm.taught else max(round(self.count * arm.labelled), 1)
        steps, own_steps = (max(people // batch, 1) for people in (self.count, own))
        return -(-steps // own_steps)


def fast_training() -> str:
    """What this machine trains fastest in: "bf16" on a CPU with instructions for it and on newer GPUs, else "no"."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return "bf16" if fast_precision(found or torch.device("cpu")) == "bfloat16" else "no"
