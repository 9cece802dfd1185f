"""The runs of a study: commands of `cdkd`, and how far each has come, which its folder says."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cdkd_ext.checkpoints.run_files import STATE
from cdkd_ext.data.json_object import JsonObject
from cdkd_ext.errors import check, check_option, fail
from cdkd_ext.files import write_json
from cdkd_ext.training.files import read_config

State = Literal["missing", "begun", "finished"]
STUDY = "{study}"  # in words of a command: the study's folder
REQUEST = "request.json"
_KINDS = ("train", "distill", "adapt", "eval")
_BEGUN = (STATE, "config.yaml", "metrics.json", "report.json")


@dataclass(frozen=True)
class LaterWords:
    """Words of a command that depend on what other runs measured, such as epochs that take as long as theirs.

    Args:
        shown: what a list of commands shows in their place.
        find: returns them for the study's folder; called when the run starts for the first time, after all runs that
            it waits for have finished.
    """

    shown: str
    find: Callable[[Path], Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class StudyRun:
    """One command of a study, with a folder of its own.

    Args:
        name: of its folder within the study's, unique.
        command: the words behind `cdkd`: "train", "distill", "adapt" or "eval" first, then options. The engine adds
            where the output goes. Paths are absolute, or begin with ``{study}``, which stands for the study's folder.
        row: what the run is one of; runs of a row differ in the seed alone.
        seed: of the run; None where nothing is drawn.
        size: pixels of the crops' longer side.
        after: names of the runs that have to be finished first, such as the teacher.
        tried: names of runs that have to have ended first, whether they finished or failed.
        later: words that these runs decide.
        cache: name of stored views and teacher outputs that it shares with others: of the runs that have to make them,
            one at a time starts. None where nothing is shared, or where several may fill it at once, as with
            `data.teacher_cache compact`.
        work: multiply-accumulates of the whole run, for estimates; 0 is not known.

    Raises:
        InputError: the name is no folder's, or the command is another.

    Example:
        ```python
        teacher = StudyRun(name="teacher", row="teacher", command=("train", "--recipe", "lsp_teacher", "--data.root", "/lsp"))
        student = StudyRun(
            name="student_0",
            row="student",
            seed=0,
            after=("teacher",),
            command=("distill", "--teacher", "{study}/teacher/last.safetensors", "--data.root", "/lsp", "--seed", "0"),
        )
        ```
    """

    name: str
    command: tuple[str, ...]
    row: str
    seed: int | None = None
    size: int = 0
    after: tuple[str, ...] = ()
    tried: tuple[str, ...] = ()
    later: LaterWords | None = None
    cache: str | None = None
    work: float = 0.0

    def __post_init__(self) -> None:
        folder = re.fullmatch(r"[\w.+-]*\w[\w.+-]*", self.name)
        check(folder, "name", repr(self.name), "letters, digits and . _ + -, for a folder")
        check_option(f"{self.name}: command", self.kind, _KINDS)

    @property
    def kind(self) -> str:
        """The command's first word."""
        return self.command[0] if self.command else ""

    @property
    def waits_for(self) -> tuple[str, ...]:
        """Names of all runs that have to have ended first."""
        return (*self.after, *self.tried)

    def line(self, folder: str = "STUDY") -> str:
        """The command as it would be typed, for a list."""
        output = f"{folder}/{self.name}" + ("/metrics.json" if self.kind == "eval" else "")
        words = [word.replace(STUDY, folder) for word in self.command]
        later = [] if self.later is None else [self.later.shown]
        return " ".join([shlex.join(["cdkd", *words]), *later, shlex.join(["--output", output])])

    def words(self, folder: Path) -> list[str]:
        """The words to start it with, or to go on with it; those of the first start are kept in its folder.

        Args:
            folder: of the study.

        Raises:
            InputError: its folder holds a run of other words.
        """
        own = (folder / self.name).absolute()
        if (own / STATE).exists() or (own / "config.yaml").exists():
            check_request(self, folder)
            return [self.kind, f"--resume={own}"]
        later = [] if self.later is None else list(self.later.find(folder))
        write_json({"command": list(self.command), "later": later}, own / REQUEST)
        words = [word.replace(STUDY, str(folder.absolute())) for word in (*self.command, *later)]
        return [*words, "--output", str(own / "metrics.json" if self.kind == "eval" else own)]


def check_runs(runs: Iterable[StudyRun]) -> dict[str, StudyRun]:
    """Check that names are unique and that each run waits for runs that can finish before it; return them by name.

    Raises:
        InputError: names the run.
    """
    named: dict[str, StudyRun] = {}
    for run in runs:
        check(run.name not in named, "runs", f"{run.name} twice", "a name of its own for each run")
        named[run.name] = run
    left = dict(named)
    while left:
        ready = [name for name, run in left.items() if not any(other in left for other in run.waits_for)]
        if not ready:
            fail("runs", f"{', '.join(left)}, which wait for each other", "an order in which they can run")
        for name in ready:
            del left[name]
    for run in named.values():
        for argument, others in (("after", run.after), ("tried", run.tried)):
            for other in others:
                check(other in named, f"{run.name}: {argument}", other, "the name of a run of the study")
    return named


def check_request(run: StudyRun, folder: Path) -> None:
    """Check that a run was begun with the words that it has now, and with words found then if it has such.

    One that failed before it began may get others.

    Raises:
        InputError: it was not; names the first word that differs.
    """
    path = folder / run.name / REQUEST
    if not path.is_file() or not any((path.parent / name).exists() for name in _BEGUN):
        return
    request = JsonObject.read(path)
    held = request.values("command")
    found = bool(request.values("later")) if request.has("later") else run.later is not None
    if held == list(run.command):
        got = "nothing" if run.later is None else run.later.shown
        as_begun = "what was found for it" if found else "nothing"
        expected = f"{as_begun} beside its command, as in {path}, or another folder for the study"
        check(found == (run.later is not None), run.name, got, expected)
        return
    same = next(
        (i for i, (old, new) in enumerate(zip(held, run.command, strict=False)) if old != new),
        min(len(held), len(run.command)),
    )
    expected, got = (_around(words, same) for words in (held, run.command))
    fail(run.name, got, f"{expected} as in {path}, or another folder for the study")


def _around(words: Sequence[str], place: int) -> str:
    """The word at a place behind the one before it."""
    return (
        " ".join(words[max(place - 1, 0) : place + 1])
        if place < len(words)
        else f"nothing behind {words[-1]}"
    )


def run_state(run: StudyRun, folder: Path) -> State:
    """How far a run has come: "missing", "begun" or "finished".

    Args:
        run: one of the study.
        folder: of the study.
    """
    own = folder / run.name
    if _is_finished(run.kind, own):
        return "finished"
    return "begun" if (own / STATE).exists() else "missing"


def _is_finished(kind: str, own: Path) -> bool:
    if kind == "eval":
        return (own / "metrics.json").is_file()
    if kind == "adapt":
        return (own / "report.json").is_file()
    return _epochs(own) >= _wanted(own)


def run_metrics(run: StudyRun, folder: Path) -> dict[str, Any] | None:
    """What a finished run measured: the last epoch's record, or an evaluation's or adaptation's report; else None."""
    if run_state(run, folder) != "finished":
        return None
    name = "report.json" if run.kind == "adapt" else "metrics.json"
    content: dict[str, Any] = JsonObject.read(folder / run.name / name).value
    return content["epochs"][-1] if "epochs" in content else content


def run_history(run: StudyRun, folder: Path) -> list[dict[str, Any]]:
    """The records of a training's epochs so far."""
    path = folder / run.name / "metrics.json"
    content = JsonObject.read(path).value if path.is_file() else {}
    return list(content.get("epochs", []))


def _epochs(own: Path) -> int:
    path = own / "metrics.json"
    return len(JsonObject.read(path).values("epochs")) if path.is_file() else 0


def _wanted(own: Path) -> float:
    if not (own / "config.yaml").is_file():
        return float("inf")
    return int(read_config(own)["epochs"])
