"""The order in which commands of a study run, and what becomes of those that fail or are stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cdkd_ext.errors import InputError, Terminated
from cdkd_ext.studies import LaterWords, StudyRun, collect, engine, run_state, run_study

STAND_IN = Path(__file__).with_name("stand_in.py")


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_CLI", (str(STAND_IN),))
    monkeypatch.setattr(engine, "_LOOK", 0.005)


def plain(name: str, *words: str, kind: str = "train", **options: object) -> StudyRun:
    return StudyRun(name=name, row="row", command=(kind, *words), **options)  # type: ignore[arg-type]


def journal(folder: Path, *whats: str) -> list[str]:
    path = folder / "JOURNAL"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.rpartition(" ")[0] for line in lines if not whats or line.split()[0] in whats]


def states(runs: list[StudyRun], folder: Path, **options: object) -> dict[str, str]:
    return {one.name: one.state for one in run_study(runs, folder, report=lambda line: None, **options)}  # type: ignore[arg-type]


@pytest.fixture
def after_start(tmp_path: Path) -> Iterator[Callable[[str, Callable[[], None]], None]]:
    """Does something as soon as the journal has a line."""
    threads: list[threading.Thread] = []
    ended = threading.Event()

    def when(line: str, act: Callable[[], None]) -> None:
        def watch() -> None:
            while line not in journal(tmp_path):
                if ended.wait(0.005):
                    return
            act()

        threads.append(threading.Thread(target=watch))
        threads[-1].start()

    yield when
    ended.set()
    for thread in threads:
        thread.join()


def test_runs_follow_those_that_they_wait_for(tmp_path: Path) -> None:
    runs = [
        plain("student", after=("teacher",)),
        plain("teacher"),
        plain("measured", kind="eval", after=("student",)),
    ]
    assert set(states(runs, tmp_path, jobs=3).values()) == {"finished"}
    whole = [f"{what} {name}" for name in ("teacher", "student", "measured") for what in ("starts", "ends")]
    assert journal(tmp_path) == whole
    assert all(line.endswith(" 1") for line in (tmp_path / "JOURNAL").read_text().splitlines()), "threads"


def test_finished_runs_are_kept_and_new_ones_added(tmp_path: Path) -> None:
    states([plain("first")], tmp_path)
    lines: list[str] = []
    reports = run_study([plain("first"), plain("second")], tmp_path, report=lines.append)
    assert journal(tmp_path, "starts") == ["starts first", "starts second"]
    assert [one.seconds > 0 for one in reports] == [False, True]
    assert lines[0] == "1 of 2 runs are finished already"
    assert lines[-1].startswith("second: finished in") and lines[-1].endswith("(2 of 2)")


def test_a_failure_is_told_and_ends_nothing_else(tmp_path: Path) -> None:
    runs = [
        plain("bad", "--fail"),
        plain("student", after=("bad",)),
        plain("later", after=("student",)),
        plain("good"),
    ]
    reports = {one.name: one for one in run_study(runs, tmp_path, report=lambda line: None)}
    assert reports["bad"].state == "failed" and reports["bad"].message == "what went wrong"
    assert reports["student"].state == reports["later"].state == "left out"
    assert reports["student"].message == "it waits for bad"
    assert reports["good"].state == "finished"


def test_a_failed_run_is_tried_again(tmp_path: Path) -> None:
    run = plain("bad", "--fail")
    assert states([run], tmp_path) == {"bad": "failed"}
    (tmp_path / "bad/words.json").write_text("[]")
    assert states([run], tmp_path) == {"bad": "finished"}
    assert journal(tmp_path) == ["starts bad", "resumes bad", "ends bad"]


def test_only_so_many_run_at_a_time(
    tmp_path: Path, after_start: Callable[[str, Callable[[], None]], None]
) -> None:
    after_start("starts run0", lambda: after_start("starts run1", (tmp_path / "go").touch))
    runs = [plain(f"run{number}", "--wait", "go") for number in range(5)]
    states(runs, tmp_path, jobs=2)
    running = most = 0
    for line in journal(tmp_path):
        running += 1 if line.startswith("starts") else -1
        most = max(most, running)
    assert most == 2


def test_one_run_alone_makes_what_several_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other run with the same cache starts before the first has begun its steps."""
    makes = engine._Child.makes_cache
    seen: list[set[str]] = []

    def looked(child: engine._Child) -> bool:
        seen.append({one.split()[1] for one in journal(tmp_path, "starts")})
        return makes.fget(child)  # type: ignore[attr-defined,no-any-return]

    monkeypatch.setattr(engine._Child, "makes_cache", property(looked))
    runs = [plain(f"run{number}", cache="views") for number in range(3)]
    assert set(states(runs, tmp_path, jobs=3).values()) == {"finished"}
    assert seen and all(len(started) <= 3 for started in seen)
    monkeypatch.setattr(engine._Child, "makes_cache", True)
    states([plain(f"alone{number}", cache="views") for number in range(3)], tmp_path, jobs=3)
    alone = [line for line in journal(tmp_path) if "alone" in line]
    assert alone == [f"{what} alone{number}" for number in range(3) for what in ("starts", "ends")]


def test_later_words_are_found_once(tmp_path: Path) -> None:
    asked: list[Path] = []

    def find(folder: Path) -> list[str]:
        asked.append(folder)
        return ["--epochs", str(len(json.loads((folder / "first/metrics.json").read_text())["epochs"]))]

    run = plain("second", after=("first",), later=LaterWords("--epochs AS_MANY", find))
    assert run.line("study") == "cdkd train --epochs AS_MANY --output study/second"
    states([run, plain("first")], tmp_path)
    (tmp_path / "second/metrics.json").unlink()
    states([run, plain("first")], tmp_path)
    assert asked == [tmp_path]
    assert json.loads((tmp_path / "second/words.json").read_text())[1:3] == ["--epochs", "2"]
    assert journal(tmp_path, "resumes") == ["resumes second"]


def test_the_folder_of_the_study_is_put_into_words(tmp_path: Path) -> None:
    run = plain("student", "--teacher", "{study}/teacher/last.safetensors", kind="distill")
    states([run], tmp_path)
    words = json.loads((tmp_path / "student/words.json").read_text())
    assert words == [
        "distill",
        "--teacher",
        f"{tmp_path}/teacher/last.safetensors",
        "--output",
        f"{tmp_path}/student",
    ]


def test_a_folder_with_another_run_is_refused(tmp_path: Path) -> None:
    states([plain("run", "--epochs", "2", "--seed", "0")], tmp_path)
    with pytest.raises(InputError, match=r"run: expected --epochs 2 as in .*request.json.*, got --epochs 3"):
        states([plain("run", "--epochs", "3", "--seed", "0")], tmp_path)
    with pytest.raises(InputError, match=r"run: expected nothing behind 0 as in .*, got 0 --cpu"):
        states([plain("run", "--epochs", "2", "--seed", "0", "--cpu")], tmp_path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, Terminated])
def test_who_stops_the_study_lets_its_commands_keep_their_state(
    error: type[BaseException],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    after_start: Callable[[str, Callable[[], None]], None],
) -> None:
    stop = threading.Event()
    reap = engine._Study._reap

    def stopped(study: engine._Study) -> None:
        if stop.is_set():
            raise error
        reap(study)

    monkeypatch.setattr(engine._Study, "_reap", stopped)
    runs = [plain("one", "--wait", "go"), plain("two", "--wait", "go")]
    after_start("starts one", lambda: after_start("starts two", stop.set))
    with pytest.raises(error):
        states(runs, tmp_path, jobs=2)
    assert sorted(journal(tmp_path, "keeps")) == ["keeps one", "keeps two"]
    assert [run_state(run, tmp_path) for run in runs] == ["begun", "begun"]
    stop.clear()
    (tmp_path / "go").touch()
    assert set(states(runs, tmp_path, jobs=2).values()) == {"finished"}
    assert sorted(journal(tmp_path, "resumes")) == ["resumes one", "resumes two"]


_CALL = """
import sys
from cdkd_ext.studies import StudyRun, engine, run_study

engine._CLI = (sys.argv[1],)
run_study([StudyRun(name="one", row="row", command=("train", "--wait", "go"))], sys.argv[2])
"""


def test_two_calls_share_the_runs_of_a_folder(
    tmp_path: Path, after_start: Callable[[str, Callable[[], None]], None]
) -> None:
    """Another process is at one of the runs: it is waited for, not started again, and still found finished."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    call = [sys.executable, "-c", _CALL, str(STAND_IN), str(tmp_path)]
    # elsewhere, because a checkout would hide the installed package
    other = subprocess.Popen(call, env=environment, cwd=tmp_path)
    try:
        started = threading.Event()
        after_start("starts one", started.set)
        assert started.wait(60)
        after_start("ends two", (tmp_path / "go").touch)
        runs = [plain("one", "--wait", "go"), plain("two")]
        assert states(runs, tmp_path, jobs=2) == {"one": "finished", "two": "finished"}
        assert other.wait(60) == 0
    finally:
        other.kill()
    assert journal(tmp_path, "starts", "resumes") == ["starts one", "starts two"]


def test_an_evaluation_is_read_as_it_is(tmp_path: Path) -> None:
    run = plain("measured", kind="eval")
    assert collect([run], tmp_path) == []
    states([run], tmp_path)
    (found,) = collect([run], tmp_path)
    assert found.metrics == {"pckh": 50.0} and found.hits is None and found.epochs == 0


def test_what_is_damaged_is_named(tmp_path: Path) -> None:
    states([plain("run")], tmp_path)
    request = tmp_path / "run/request.json"
    whole = request.read_text()
    for content, message in (
        ("", "request.json: expected valid JSON, got an empty file"),
        ("{}", "request.json: command"),
    ):
        request.write_text(content)
        with pytest.raises(InputError, match=message):
            states([plain("run")], tmp_path)
    request.write_text(whole)
    (tmp_path / "run/metrics.json").write_text('{"epochs": 3}')
    with pytest.raises(InputError, match=r"metrics.json: epochs: expected a list"):
        run_state(plain("run"), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"output: expected a folder, got .*file"):
        states([plain("run")], tmp_path / "file")


def test_plans_that_cannot_be_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="runs: expected a name of its own for each run, got one twice"):
        states([plain("one"), plain("one")], tmp_path)
    with pytest.raises(InputError, match="one: after: expected the name of a run of the study, got other"):
        states([plain("one", after=("other",))], tmp_path)
    with pytest.raises(InputError, match="runs: expected an order in which they can run, got one, two"):
        states([plain("one", after=("two",)), plain("two", after=("one",))], tmp_path)
    with pytest.raises(InputError, match="jobs: expected a positive number"):
        states([plain("one")], tmp_path, jobs=0)
    with pytest.raises(InputError, match="name: expected letters, digits"):
        plain("../one")
    with pytest.raises(InputError, match="one: command: expected one of 'train', 'distill', 'adapt', 'eval'"):
        plain("one", kind="demo")
    assert not (tmp_path / "one").exists()


def test_a_trial_that_fails_ends_only_itself(tmp_path: Path) -> None:
    """Unlike a teacher: what it was to decide is decided by the others."""
    found: list[str] = []

    def decide(folder: Path) -> list[str]:
        found.extend(name for name in ("low", "high") if (folder / name / "metrics.json").exists())
        return []

    runs = [
        plain("student", tried=("low", "high"), later=LaterWords("BEST", decide)),
        plain("low"),
        plain("high", "--fail"),
    ]
    assert states(runs, tmp_path) == {"student": "finished", "low": "finished", "high": "failed"}
    assert found == ["low"] and journal(tmp_path, "starts")[-1] == "starts student"
    with pytest.raises(
        InputError, match="student: tried: expected the name of a run of the study, got other"
    ):
        run_study([plain("student", tried=("other",))], tmp_path)
    with pytest.raises(InputError, match="runs: expected an order in which they can run"):
        run_study([plain("a", tried=("b",)), plain("b", after=("a",))], tmp_path)


def test_what_failed_before_it_began_may_get_other_words(tmp_path: Path) -> None:
    assert states([plain("run", "--weights", "none")], tmp_path / "other") == {"run": "finished"}
    own = tmp_path / "run"
    own.mkdir()
    (own / "request.json").write_text(json.dumps({"command": ["train", "--weights", "none"], "later": []}))
    (own / "log.txt").write_text("no such file\n")
    assert states([plain("run", "--weights", "there")], tmp_path) == {"run": "finished"}
    assert json.loads((own / "request.json").read_text())["command"] == ["train", "--weights", "there"]
    with pytest.raises(InputError, match="run: expected --weights there as in"):
        states([plain("run", "--weights", "none")], tmp_path)


def test_a_file_in_the_place_of_a_run_fails_that_one_alone(tmp_path: Path) -> None:
    (tmp_path / "bad").touch()
    assert states([plain("bad"), plain("good")], tmp_path) == {"bad": "failed", "good": "finished"}


def test_nobody_has_to_read_what_is_said(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom cdkd_ext.studies import StudyRun, engine, run_study\n"
        f"engine._CLI = ({str(STAND_IN)!r},)\n"
        "runs = [StudyRun(name=name, row='row', command=('train',)) for name in ('first', 'second')]\n"
        "sys.stdin.readline()\n"
        f"ended = run_study(runs, {str(tmp_path / 'study')!r})\n"
        f"Path({str(tmp_path / 'ended')!r}).write_text(' '.join(one.state for one in ended))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdout.close()
    process.stdin.write(b"go\n")
    process.stdin.close()
    process.wait(60)
    assert (tmp_path / "ended").read_text() == "finished finished"
