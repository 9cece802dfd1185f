"""The students' commands: who sees whose labels, for how many steps, and in which order they run."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdkd_ext.demo.arms import ALONE, ARMS, DISTILLED, TENTH_ALONE, TENTH_DISTILLED, Training
from cdkd_ext.recipes import load_recipe

BATCH = load_recipe("demo_student")["batch_size"]


def training(count=3000, epochs=6):
    return Training(Path("/people"), count, Path("/views"), Path("/teacher.safetensors"), epochs, 4, 3)


def option(run, name):
    return run.command[run.command.index(f"--{name}") + 1]


@pytest.mark.parametrize("count", [20, 40, 320, 3000, 10_000])
def test_nobody_takes_fewer_steps_than_a_student_with_all_labels(count):
    def steps(arm):
        people = count if arm.taught else round(count * arm.labelled)
        return int(option(training(count).run(arm, 0), "epochs")) * max(people // BATCH, 1)

    assert steps(DISTILLED) == steps(TENTH_DISTILLED) == steps(ALONE)
    # and at most one pass over its people more
    more = steps(TENTH_ALONE) - steps(ALONE)
    assert 0 <= more < 6 * max(round(count * 0.1) // BATCH, 1)


def test_only_who_is_taught_is_given_the_teacher():
    for arm in ARMS:
        run = training().run(arm, 2)
        assert (run.name, run.row, run.seed, option(run, "seed")) == (f"{arm.name}_2", arm.name, 2, "2")
        assert run.kind == ("distill" if arm.taught else "train")
        assert ("--teacher" in run.command) == arm.taught
        assert float(option(run, "data.labelled_fraction")) == arm.labelled


def test_who_asks_the_teacher_comes_first_seed_by_seed():
    names = [run.name for run in training().runs()]
    assert len(set(names)) == 12
    assert names[:4] == ["tenth_distilled_0", "distilled_0", "tenth_alone_0", "alone_0"]
    assert [name[-1] for name in names] == list("000011112222")
