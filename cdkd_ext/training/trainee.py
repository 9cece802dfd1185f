"""What trains in the common loop: where it is, what it has measured, and what is kept of it."""

from __future__ import annotations

import math
import shlex
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor

from cdkd_ext.data.batches import Batch, EpochLoader
from cdkd_ext.files import write_json
from cdkd_ext.training.config import OptimizerConfig
from cdkd_ext.training.finite import FiniteWatch
from cdkd_ext.training.schedule import learning_rate
from cdkd_ext.training.stops import NonFiniteLossError

Record = dict[str, Any]


class RunConfig(Protocol):
    """What every training's configuration says."""

    output: str
    optimizer: OptimizerConfig
    checkpoint_every: int

    @property
    def command(self) -> str:
        """Of `cdkd`, that goes on with the run."""
        ...

    @property
    def epochs(self) -> int:
        """How many there are."""
        ...


Config = TypeVar("Config", bound=RunConfig)


@dataclass
class EpochProgress:
    """How far an epoch has come; part of the state that a run goes on from.

    Attributes:
        steps: that were taken.
        people: that were seen, by all processes.
        sums: of each loss over the steps, of the first process.
        seconds: that the steps took.
    """

    steps: int = 0
    people: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, losses: dict[str, Tensor], people: int) -> None:
        """Count a step."""
        self.steps += 1
        self.people += people
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value

    def on(self, device: torch.device, people_per_step: int, steps: int) -> EpochProgress:
        """The same progress on a device, in an epoch of so many people per step and so many steps.

        With another batch size some people can be seen twice in the epoch, and none are left out.
        """
        taken = min(self.people // people_per_step, steps)
        sums = {name: value.to(device) for name, value in self.sums.items()}
        if taken != self.steps:
            sums = {name: value * (taken / self.steps) for name, value in sums.items()}
        return EpochProgress(taken, taken * people_per_step, sums, self.seconds)


class Clock:
    """The seconds of an epoch's steps and their rate; what was spent before resuming counts as time alone.

    Args:
        before: seconds that were spent on the epoch before.
    """

    def __init__(self, before: float = 0.0) -> None:
        self._before = before
        self._started = time.perf_counter()
        self._people = 0
        self.rate = 0.0

    def seconds(self, people: int) -> float:
        """Count some more people and return the epoch's seconds so far."""
        elapsed = time.perf_counter() - self._started
        self._people += people
        self.rate = self._people / elapsed
        return self._before + elapsed


class Trainee(ABC, Generic[Config]):
    """A network in training and its run's folder. It ends early where `finish_epoch` sets `epochs_done` to all epochs.

    Args:
        config: the run.
        loader: the batches of each epoch.
        accelerator: devices, precision and processes.
        optimizer: whose learning rate follows the schedule.

    Attributes:
        output: the run's folder.
        history: a record of each epoch.
        best: the highest value of the metric that decides; None before there is one.
        step: steps that were taken since the run was begun.
        epochs_done: whole epochs.
    """

    def __init__(
        self, config: Config, loader: EpochLoader, accelerator: Accelerator, optimizer: torch.optim.Optimizer
    ) -> None:
        self.config = config
        self.output = Path(config.output)
        self.loader = loader
        self.accelerator = accelerator
        self.optimizer = optimizer
        self.history: list[Record] = []
        self.best: float | None = None
        self.step = 0
        self.epochs_done = 0
        self._place = 0  # of the current step among all of the training's, at today's batch size
        self._progress = EpochProgress()
        self._clock = Clock()
        self._finite = FiniteWatch()
        self._checkpoint: str | None = None  # what was kept last, in words

    @property
    @abstractmethod
    def metric(self) -> str:
        """The metric that decides what is best."""

    @abstractmethod
    def start(self, state: dict[str, Any] | None = None) -> None:
        """Take a state, or begin."""

    @abstractmethod
    def finish_epoch(self, epoch: int) -> Record:
        """Measure the network and keep the epoch; returns its record."""

    @abstractmethod
    def close(self) -> None:
        """Close what is open."""

    @abstractmethod
    def _train_step(self, batch: Batch) -> dict[str, Tensor]:
        """Take a step and count it; returns the losses without their graph."""

    @abstractmethod
    def _write(self, epoch: int) -> None:
        """Write what resuming needs, with so many whole epochs and the progress in the next."""

    @property
    def steps_taken(self) -> int:
        """Steps of the current epoch that were taken, before resuming too."""
        return self._progress.steps

    @property
    def rate(self) -> float:
        """People per second in this epoch, since the run was begun or resumed."""
        return self._clock.rate

    def remember(self, state: Mapping[str, Any]) -> None:
        """Know what is kept of a run that is about to go on: what ends it meanwhile says so."""
        self._checkpoint = _in_words(int(state["epoch"]), state.get("progress", {}).get("steps", 0))

    def begin_epoch(self) -> None:
        """What follows until `finish_epoch` counts as the epoch's time."""
        self._clock = Clock(self._progress.seconds)

    def train_batch(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Take the current epoch's next step on a batch that is on the device; returns the losses."""
        # not the steps that were taken: before resuming, an epoch may have had another number of them
        self._place = epoch * len(self.loader) + self._progress.steps
        rate = learning_rate(self.config.optimizer, self._place, len(self.loader), self.config.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses = self._train_step(batch)
        self._progress.add(losses, self.loader.people_per_step)
        self._progress.seconds = self._clock.seconds(len(batch["index"]) * self.accelerator.num_processes)
        return losses

    def due(self) -> bool:
        """Whether a checkpoint within the epoch is due after the last step."""
        every = self.config.checkpoint_every
        return every > 0 and (self._place + 1) % every == 0

    def keep(self, epoch: int) -> None:
        """Keep a checkpoint within an epoch."""
        self._stop_if(self._finite.report())
        self._write(epoch)

    def kept(self) -> str:
        """What is kept of the run."""
        if self._checkpoint is None:
            return "no epoch was finished, so there is no checkpoint yet"
        return f"the checkpoint of {self._checkpoint} is kept"

    def kept_and_next(self) -> str:
        """What is kept of the run, and how to go on with it."""
        command = f"`cdkd {self.config.command} --resume {shlex.quote(str(self.output))}`"
        rest = f"{command} begins again" if self._checkpoint is None else f"go on with {command}"
        return f"{self.kept()}; {rest}"

    def _stop_if(self, problem: str | None) -> None:
        if problem is not None:
            raise NonFiniteLossError(f"{problem}; {self.kept_and_next()}")

    def _trained(self, epoch: int) -> Record:
        """The record of an epoch's steps."""
        # before anything of this epoch is kept
        self._stop_if(self._finite.report())
        progress = self._progress
        means = {name: float(value) / max(1, progress.steps) for name, value in progress.sums.items()}
        return {
            "epoch": epoch + 1,
            "step": self.step,
            **means,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "samples_per_second": self._clock.rate,
            "seconds": progress.seconds,
        }

    def _next_epoch(self, epoch: int) -> None:
        self._progress = EpochProgress()
        self.epochs_done = epoch + 1

    def _is_best(self, record: Record) -> bool:
        """Whether the network is better than before, which is remembered."""
        value = record.get(self.metric)
        if value is None or not math.isfinite(value) or (self.best is not None and value <= self.best):
            return False
        self.best = value
        return True

    def _written(self, epoch: int) -> None:
        """Remember what was kept."""
        self._checkpoint = _in_words(epoch, self._progress.steps)

    def _state(self, epoch: int) -> dict[str, Any]:
        """Where the run is."""
        return {
            "epoch": epoch,
            "progress": vars(self._progress),
            "step": self.step,
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "best": self.best,
        }

    def _go_on_from(self, state: Mapping[str, Any]) -> None:
        """Be where a run was; the network and the optimiser are restored already."""
        self.history, self.step = state["history"], state["step"]
        # not the state's best, which may be that of another metric
        values = (record.get(self.metric, math.nan) for record in self.history if record["epoch"] > 0)
        self.best = max((value for value in values if math.isfinite(value)), default=None)
        self.epochs_done, kept = int(state["epoch"]), EpochProgress(**state.get("progress", {}))
        self._progress = kept.on(self.accelerator.device, self.loader.people_per_step, len(self.loader))
        if self.accelerator.is_main_process and self.history:
            # the process may have been killed between the state and the metrics
            self._write_metrics()

    def _write_metrics(self) -> None:
        write_json({f"best_{self.metric}": self.best, "epochs": self.history}, self.output / "metrics.json")


def _in_words(epochs: int, steps: int) -> str:
    return f"epoch {epochs + 1}, step {steps}," if steps else f"epoch {epochs}"
