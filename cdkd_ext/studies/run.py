"""From a plan to its results: what is missing is run, what is there is measured and compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from cdkd_ext.data import EvaluationSet
from cdkd_ext.data.loading import People, load_people
from cdkd_ext.errors import check
from cdkd_ext.evaluation import limb_joints
from cdkd_ext.studies.engine import run_study, say
from cdkd_ext.studies.lsp import LspStudy, name_of
from cdkd_ext.studies.report import StudyReport, make_report, write_report
from cdkd_ext.studies.results import collect
from cdkd_ext.studies.runs import StudyRun, check_request, check_runs, run_history, run_state
from cdkd_ext.studies.shelf import check_shelf, measure_shelf

# of one core, where nothing was measured yet
_MACS_PER_SECOND = 20e9


def lsp_study(
    plan: LspStudy,
    output: str = "runs/lsp_study",
    *,
    shelf: Sequence[str] = (),
    jobs: int = 1,
    train: bool = True,
    report: Callable[[str], None] = say,
) -> StudyReport:
    """Run what is missing of the study, and write results.md, results.json and results.png about all that there is.

    Args:
        plan: what to run and to compare.
        output: folder of the study.
        shelf: files of networks to compare with, beside the teachers.
        jobs: trainings at a time.
        train: false runs nothing: the report is of what there is.
        report: is given a line for each step.

    Raises:
        InputError: a file is missing or malformed, people have no head lengths, or a folder holds runs of another plan.

    Example:
        ```python
        plan = LspStudy(root="lsp", teachers=("movenet_thunder.onnx",), sizes=(32,))
        lsp_study(plan, shelf=["movenet_lightning.onnx"], jobs=2)
        ```
    """
    check(jobs > 0, "jobs", jobs, "a positive number")
    folder = Path(output).absolute()
    files = _shelf_files(plan, shelf)
    people, truth = _people(plan, folder)
    runs = _runs(plan, people, folder)
    # not after hours of training
    check_shelf(files, truth)
    reports = run_study(runs, folder, jobs=jobs, report=report) if train else []
    off_shelf = measure_shelf(
        files, truth, [*plan.sizes, None], folder / "shelf", threads=jobs, report=report
    )
    results = collect(runs, folder, truth)
    about = [_about(plan, people, truth), *_conditions(plan)]
    found = make_report(
        runs,
        plan.titles(),
        plan.comparisons(),
        results,
        off_shelf,
        truth,
        about=about,
        reports=reports,
    )
    report(f"written to {write_report(found, folder)}")
    return found


def plan_text(plan: LspStudy, output: str = "runs/lsp_study", *, jobs: int = 1) -> str:
    """The commands of a study with what is left of each, and an estimate of the time."""
    check(jobs > 0, "jobs", jobs, "a positive number")
    folder = Path(output).absolute()
    people, _ = _people(plan, folder)
    runs = _runs(plan, people, folder)
    states = {run.name: run_state(run, folder) for run in runs}
    rate, source = _rate(runs, folder, states)
    lines = []
    for run in runs:
        lines.append(f"{run.name}: {states[run.name]}, about {_hours(run.work / rate)} of one core")
        lines.append(f"  {run.line(output)}")
    left = sum(run.work for run in runs if states[run.name] != "finished") / rate
    lines.append(
        f"{len(runs)} runs, {sum(state == 'finished' for state in states.values())} finished; about {_hours(left / jobs)} "
        f"with {jobs} at a time ({source}; views and teacher outputs, made once, are not counted)"
    )
    return "\n".join(lines)


def _runs(plan: LspStudy, people: People, folder: Path) -> list[StudyRun]:
    """The plan's runs, of which none has been begun with other options."""
    runs = plan.runs(len(people.train), people.joints)
    for run in check_runs(runs).values():
        check_request(run, folder)
    return runs


def _rate(runs: Sequence[StudyRun], folder: Path, states: Mapping[str, str]) -> tuple[float, str]:
    """Multiply-accumulates per second, from the runs that have finished or else assumed; and which."""
    done = [run for run in runs if states[run.name] == "finished" and run.later is None]
    seconds = sum(record["seconds"] for run in done for record in run_history(run, folder))
    if seconds > 0:
        return sum(run.work for run in done) / seconds, "as fast as the finished ones"
    return _MACS_PER_SECOND, f"at {_MACS_PER_SECOND / 1e9:.0f} G multiply-accumulates a second and core"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"


def _people(plan: LspStudy, folder: Path) -> tuple[People, EvaluationSet]:
    people = load_people(plan.data(), folder)
    assert people.val is not None
    check(people.val.metric == "pckh", "data.val", "people without head lengths", "people to measure PCKh on")
    limbs = np.isin(people.val.joints.names, limb_joints(people.val.joints))
    known = any(person.head_size > 0 and person.annotated[limbs].any() for person in people.val.persons)
    check(
        known, "data.val", "nobody with a joint of the limbs", "people to measure the joints of the limbs on"
    )
    return people, people.val


def _shelf_files(plan: LspStudy, shelf: Sequence[str]) -> dict[str, str]:
    """Teachers and others by name."""
    for file in shelf:
        check(Path(file).exists(), "shelf", file, "an existing file")
    files: dict[str, str] = {}
    for file in (*plan.teachers, *shelf):
        known = files.setdefault(name_of(file), file)
        same = Path(known).resolve() == Path(file).resolve()
        check(same, "shelf", f"{known} and {file}", "files of different names")
    return files


def _about(plan: LspStudy, people: People, truth: EvaluationSet) -> str:
    measured = sum(person.head_size > 0 for person in truth.persons)
    return (
        f"{len(people.train)} people to train on; PCKh@0.5 in percent on {measured} people of `{plan.val}`, annotated boxes, "
        f"flip test, last checkpoints. Head length: {truth.reference}. p12 counts the joints of the limbs alone (ankles, "
        "knees, hips, wrists, elbows, shoulders), p14 all. Intervals and p: paired bootstrap over people and seeds."
    )


def _conditions(plan: LspStudy) -> list[str]:
    models = ", ".join(f"`{model}`" for model in plan.models)
    return [
        "",
        f"Students: {models}, {plan.epochs} epochs of every person, {plan.views} stored "
        f"views and their mirror images, precision {plan.precision}; those with a part of the labels and no teacher pass over "
        "their people more often, so that all take as many steps. Seconds are of the steps; views and teacher outputs, made "
        "once for all, are not counted. Networks off the shelf see the same crops, reduced by area and enlarged again.",
    ]
