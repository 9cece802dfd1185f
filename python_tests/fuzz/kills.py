"""Tiny trainings ended anywhere and gone on with: `python python_tests/fuzz/kills.py --moments 50`.

Each must end at the bits of the unbroken run, leave no temporary file, and have had nothing unreadable meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

import cdkd_ext.cli.distill
import cdkd_ext.training.run  # noqa: F401 (once, and not in each forked process)
from cdkd_ext.cli import main as cdkd
from cdkd_ext.synthetic.dataset import draw_people

_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_TEMPORARY = re.compile(r"\..+-[0-9a-f]{8}(\..+)?")
_PATIENCE = 60  # seconds for the other processes once one is gone
SETUPS = {
    "images": ["--checkpoint_every=2"],
    "loading processes": ["--checkpoint_every=1", "--data.workers=1"],
    "views and teacher outputs": ["--checkpoint_every=2", "--data.views=2"],
    "stored crops": ["--data.stored_crops=true"],
}


class FoundError(AssertionError):
    """A run that was ended did not go on as it has to."""


class Processes:
    """One training in forked processes, which have everything imported already.

    Args:
        arguments: of `cdkd`.
        log: file for all that they print.
        count: how many processes share the training.
        prepare: called in each forked process, before anything else.
    """

    def __init__(
        self, arguments: Sequence[str], log: Path, count: int = 1, prepare: Callable[[], None] | None = None
    ) -> None:
        self.log = log
        environment = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port()}
        # accelerate would choose more threads, which a forked process cannot start where its parent had some
        environment["OMP_NUM_THREADS"] = "1"
        self.ids = []
        for rank in range(count):
            ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            self.ids.append(_forked(arguments, log, {**environment, **ranks} if count > 1 else {}, prepare))

    def wait(self) -> list[int]:
        """Exit statuses, negative for signals; what outlives another by a minute, or five in all, is killed."""
        statuses: dict[int, int] = {}
        last, deadline = time.monotonic() + 5 * _PATIENCE, None
        while len(statuses) < len(self.ids):
            for process in self.ids:
                if process not in statuses:
                    done, status = os.waitpid(process, os.WNOHANG)
                    if done:
                        statuses[process] = os.waitstatus_to_exitcode(status)
            deadline = deadline or (time.monotonic() + _PATIENCE if statuses else None)
            if time.monotonic() > min(last, deadline or last):
                self.send(signal.SIGKILL)
            time.sleep(0.005)
        return [statuses[process] for process in self.ids]

    def send(self, number: int, first_alone: bool = False) -> None:
        """Send a signal to all processes, or to the first alone."""
        for process in self.ids[: 1 if first_alone else None]:
            with suppress(ProcessLookupError):
                os.kill(process, number)


def _free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def _forked(
    arguments: Sequence[str], log: Path, environment: dict[str, str], prepare: Callable[[], None] | None
) -> int:
    process = os.fork()
    if process:
        return process
    status = 99
    try:
        os.environ.update(environment)
        # a training in the parent has told it how many processes there are
        AcceleratorState._reset_state(reset_partial_state=True)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)
        torch.set_num_threads(1)
        if prepare is not None:
            prepare()
        status = cdkd(list(arguments))
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


class Training:
    """A tiny distillation, the bits that it ends at, and the ways to end it before.

    Args:
        folder: for everything.
        data: a data set of drawn people with train/ and val/.
        setup: of `SETUPS`.
        count: processes.
    """

    def __init__(self, folder: Path, data: Path, teacher: Path, setup: str, count: int) -> None:
        self.folder = folder
        self.count = count
        self.options = [
            *("distill", f"--teacher={teacher}", f"--data.root={data}", "--data.workers=0"),
            *("--model.name=hrnet_w8_small", "--epochs=2", f"--batch_size={8 // count}"),
            *("--temperature.adversarial=true", "--flip_test=false", *SETUPS[setup]),
        ]
        began = time.monotonic()
        self.expected = self._finished(folder / "whole")
        self.seconds = time.monotonic() - began

    def start(self, name: str, prepare: Callable[[], None] | None = None) -> Processes:
        """Begin a run of that name, or go on with it."""
        output = self.folder / name
        go_on = (output / "config.yaml").is_file()
        options = ["distill", f"--resume={output}"] if go_on else [*self.options, f"--output={output}"]
        return Processes(options, self.folder / f"{name}.log", self.count, prepare)

    def check(self, name: str) -> None:
        """Check what an ended run left, go on with it, and compare the end.

        Raises:
            FoundError: says what is unreadable, left or different.
        """
        output = self.folder / name
        try:
            read_all(output)
            found = self._finished(output)
        except Exception as error:
            raise FoundError(
                f"{name}: {type(error).__name__}: {error}; see {self.folder / name}.log"
            ) from error
        different = [key for key in {*self.expected, *found} if self.expected.get(key) != found.get(key)]
        left = temporaries(output)
        if different or left:
            raise FoundError(f"{name}: different: {different}; left behind: {left}")

    def _finished(self, output: Path) -> dict[str, object]:
        statuses = self.start(output.name).wait()
        if any(statuses):
            raise FoundError(
                f"statuses {statuses}: {(self.folder / f'{output.name}.log').read_text()[-2000:]}"
            )
        return _bits(output)


def _bits(output: Path) -> dict[str, object]:
    """All that a run ends at, but for its seconds."""
    state = torch.load(output / "state.pt", weights_only=True)
    records = json.loads((output / "metrics.json").read_text())["epochs"]
    return {
        "last": (output / "last.safetensors").read_bytes(),
        "best": (output / "best.safetensors").read_bytes(),
        "metrics": [_without_times(record) for record in records],
        "history": [_without_times(record) for record in state.pop("history")],
        "state": _plain(state),
    }


def _without_times(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if "second" not in name}


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


_READERS: dict[str, Callable[[Path], object]] = {
    ".pt": lambda path: torch.load(path, weights_only=True),
    ".safetensors": load_file,
    ".json": lambda path: json.loads(path.read_text()),
    ".yaml": lambda path: yaml.safe_load(path.read_text()),
    ".npy": np.load,
}


def read_all(output: Path) -> None:
    """Read every file of a run that has its final name."""
    for path in output.rglob("*"):
        inside = path.relative_to(output).parts
        if path.suffix in _READERS and not any(_TEMPORARY.fullmatch(part) for part in inside):
            _READERS[path.suffix](path)


def temporaries(output: Path) -> list[Path]:
    """The temporary files and folders of a run."""
    return [path for path in output.rglob("*") if _TEMPORARY.fullmatch(path.name)]


def make_teacher(folder: Path, data: Path) -> Path:
    """A teacher of one epoch."""
    options = ["--model.name=hrnet_w8_small", "--model.input_size=[64,64]", "--epochs=1", "--data.workers=0"]
    log = folder / "teacher.log"
    output = folder / "teacher"
    if any(Processes(["train", f"--data.root={data}", f"--output={output}", *options], log).wait()):
        raise FoundError(log.read_text())
    return output


def end_at_random(training: Training, seed: int) -> str:
    """End a run at a moment that follows from a seed and the machine's speed; returns how it ended."""
    rng = random.Random(seed)
    number = rng.choice(_SIGNALS)
    name = f"{seed}-{number.name}"
    processes = training.start(name)
    time.sleep(rng.uniform(0, 1.05 * training.seconds))
    first_alone = number == signal.SIGKILL and rng.random() < 0.5
    processes.send(number, first_alone)
    statuses = processes.wait()
    said = (training.folder / f"{name}.log").read_text()
    if training.count == 1 and "Traceback" in said:
        raise FoundError(f"{name}: statuses {statuses}: {said[-2000:]}")
    training.check(name)
    return f"{number.name}: {statuses}"


def main() -> None:
    """Parse the command line, end runs at random moments and print how they ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=50, help="for one process, and half as many for two")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for split, people in (("train", 32), ("val", 8)):
            draw_people(folder / "data" / split, people, seed=people)
        teacher = make_teacher(folder, folder / "data")
        for count, moments in ((1, arguments.moments), (2, arguments.moments // 2)):
            endings: Counter[str] = Counter()
            for number, setup in enumerate(SETUPS):
                place = folder / f"{count}-{number}"
                place.mkdir()
                training = Training(place, folder / "data", teacher, setup, count)
                for seed in range(number, moments, len(SETUPS)):
                    endings[end_at_random(training, arguments.seed + seed)] += 1
            print(f"{count} processes, {moments} moments: {dict(endings)}", flush=True)


if __name__ == "__main__":
    main()
