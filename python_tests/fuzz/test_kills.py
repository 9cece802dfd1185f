"""Trainings that are ended, or find the disk full, before certain files and steps of theirs; see kills.py."""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys

import pytest
from kills import FoundError, Training, make_teacher, read_all, temporaries

pytestmark = pytest.mark.long

_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.chmod")


@pytest.fixture(scope="module")
def teacher(drawn_people, tmp_path_factory):
    return make_teacher(tmp_path_factory.mktemp("teacher"), drawn_people)


@pytest.fixture(scope="module")
def training(drawn_people, teacher, tmp_path_factory):
    """Writes stored views, teacher outputs, checkpoints within epochs, and everything at their ends."""
    return Training(tmp_path_factory.mktemp("one"), drawn_people, teacher, "views and teacher outputs", 1)


@pytest.fixture(scope="module")
def shared_training(drawn_people, teacher, tmp_path_factory):
    return Training(tmp_path_factory.mktemp("two"), drawn_people, teacher, "images", 2)


def before_change(folder, first, happens, *, ever_after=False):
    """Let something happen before a process changes its n-th file of a folder, counted from 1.

    To open a file for writing, to rename, to remove and to make one are such changes; there are about 110.
    """

    def prepare():
        count = 0

        def hook(event, arguments):
            nonlocal count
            writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if not (writes or event in _CHANGES) or str(folder) not in str(arguments[0]):
                return
            count += 1
            if count == first or (ever_after and count > first and event != "os.remove"):
                happens()

        sys.addaudithook(hook)

    return prepare


def said(training, name):
    return (training.folder / f"{name}.log").read_text()


@pytest.mark.parametrize(
    ("number", "change"),
    [(signal.SIGTERM, 9), (signal.SIGKILL, 30), (signal.SIGINT, 50), (signal.SIGKILL, 70)],
)
def test_a_run_ended_anywhere_goes_on_to_the_bits_of_the_unbroken_one(training, number, change):
    name = f"{number.name}-{change}"
    happens = before_change(training.folder / name, change, lambda: os.kill(os.getpid(), number))
    status = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    assert training.start(name, happens).wait() == [status]
    assert "Traceback" not in said(training, name)
    if number != signal.SIGKILL:
        assert not temporaries(training.folder / name)
    training.check(name)


def test_two_processes_ended_in_a_write_go_on_to_the_same_bits(shared_training):
    name = "two"
    kill = before_change(shared_training.folder / name, 15, lambda: os.kill(os.getpid(), signal.SIGKILL))
    statuses = shared_training.start(name, kill).wait()
    assert statuses[0] == -signal.SIGKILL and statuses[1]
    shared_training.check(name)


@pytest.mark.parametrize(("reason", "change"), [(errno.EROFS, 1), (errno.ENOSPC, 9), (errno.ENOSPC, 52)])
def test_a_disk_that_takes_no_more_is_one_line_and_the_last_state_stays(training, reason, change):
    name = f"{errno.errorcode[reason]}-{change}"

    def full():
        raise OSError(reason, os.strerror(reason))

    happens = before_change(training.folder / name, change, full, ever_after=True)
    assert training.start(name, happens).wait() == [2]
    assert os.strerror(reason) in said(training, name) and "Traceback" not in said(training, name)
    assert not temporaries(training.folder / name)
    training.check(name)


@pytest.mark.parametrize("largest", [2_000, 600_000])
def test_files_that_are_cut_off_by_the_system(training, largest):
    """Within the writers of torch, safetensors and numpy's memory maps."""
    name = f"largest-{largest}"
    limited = training.start(name, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest)))
    assert limited.wait() == [2]
    assert "expected a disk that takes it" in said(training, name) and "Traceback" not in said(training, name)
    assert not temporaries(training.folder / name)
    training.check(name)


def test_what_is_unreadable_is_found(training):
    path = training.folder / "broken" / "state.pt"
    path.parent.mkdir()
    path.write_bytes(b"half")
    with pytest.raises(FoundError, match="broken"):
        training.check("broken")


def test_what_is_left_behind_is_found(training):
    (training.folder / "left/views/.views-01234567-89abcdef").mkdir(parents=True)
    assert len(temporaries(training.folder / "left")) == 1
    read_all(training.folder / "left")
