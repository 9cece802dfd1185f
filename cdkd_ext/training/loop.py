"""The training loop of teachers, plain students and distilled students."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from cdkd_ext.checkpoints.native import save_model
from cdkd_ext.data.batches import Batch, EpochLoader
from cdkd_ext.distillation import TeacherOutput
from cdkd_ext.errors import Terminated
from cdkd_ext.files import write_json
from cdkd_ext.models import PoseNetwork
from cdkd_ext.signals import signals_held
from cdkd_ext.training.captured_step import CapturedStep
from cdkd_ext.training.config import TrainingConfig
from cdkd_ext.training.ema import WeightAverage
from cdkd_ext.training.finite import FiniteWatch
from cdkd_ext.training.progress import scalars_of
from cdkd_ext.training.schedule import learning_rate
from cdkd_ext.training.state import NAME, load_optimizer, save_state
from cdkd_ext.training.stops import InterruptedRun, NonFiniteLossError
from cdkd_ext.training.task import DistillationTask
from cdkd_ext.training.together import train_together

__all__ = ["InterruptedRun", "NonFiniteLossError", "Record", "Trainer"]

Record = dict[str, Any]


class Evaluator(Protocol):
    """What measures a student; `build.Validation` is one."""

    @property
    def metric(self) -> str:
        """The metric that decides which checkpoint is best."""
        ...

    def __call__(self, student: PoseNetwork) -> dict[str, Any]:
        """Return the metrics."""
        ...


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


class Trainer:
    """Trains a task and keeps its run's folder: last and best checkpoint, state, metrics, TensorBoard events.

    Args:
        config: the run.
        task: student, losses and teacher.
        loader: the batches of each epoch.
        validation: measures the student.
        accelerator: devices, precision and processes.
    """

    def __init__(
        self,
        config: TrainingConfig,
        task: DistillationTask,
        loader: EpochLoader,
        validation: Evaluator,
        accelerator: Accelerator,
    ) -> None:
        self.config = config
        self.output = Path(config.output)
        self.loader = loader
        self.validation = validation
        self.accelerator = accelerator
        self.task = task.to(accelerator.device)
        self.wrapped, self.optimizer = accelerator.prepare(task, config.optimizer.build(task))
        self.adversarial_optimizer = config.adversarial_optimizer(task)
        self._captured_step = CapturedStep(self._replayed, task.parameters()) if self._replays() else None
        self._average = WeightAverage(task.student, config.ema_decay) if config.ema_decay else None
        self._finite = FiniteWatch()
        self.history: list[Record] = []
        self.best: float | None = None
        self.step = 0
        self.epochs_done = 0
        self._place = 0  # of the current step among all of the training's, at today's batch size
        self._progress = EpochProgress()
        self._clock = Clock()
        self._writer: SummaryWriter | None = None
        self._checkpoint: str | None = None  # what was kept last, in words

    def run(self, state: dict[str, Any] | None = None) -> Record:
        """Train to the end and return the last record.

        Args:
            state: of `read_run`, to go on from; None begins.

        Raises:
            NonFiniteLossError: names the step and the term.
            InterruptedRun: Ctrl-C or SIGTERM; says where the last checkpoint is.
            LostWorkerError: a loading process was killed; says where the last checkpoint is.
            InputError: an image cannot be read, or the output folder not be written; says where the last checkpoint is.
        """
        return train_together([self], [state])[0]

    def start(self, state: dict[str, Any] | None = None) -> None:
        """Take a state, or begin, and open the events' file."""
        if state is not None:
            self._restore(state)
        if self.accelerator.is_main_process:
            self._writer = SummaryWriter(self.output / "tensorboard", purge_step=self.step)

    def close(self) -> None:
        """Close the events' file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    @property
    def student(self) -> PoseNetwork:
        """What the training results in: the student, or the average of its weights."""
        return self.task.student if self._average is None else self._average.network

    @property
    def steps_taken(self) -> int:
        """Steps of the current epoch that were taken, before resuming too."""
        return self._progress.steps

    def begin_epoch(self) -> None:
        """Switch to training; what follows until `finish_epoch` counts as the epoch's time."""
        self.wrapped.train()
        self._clock = Clock(self._progress.seconds)

    def train_batch(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Take the current epoch's next step on a batch that is on the device; returns the losses."""
        # not the steps that were taken: before resuming, an epoch may have had another number of them
        self._place = epoch * len(self.loader) + self._progress.steps
        losses = self._train_step(batch)
        self._progress.add(losses, self.loader.people_per_step)
        self._progress.seconds = self._clock.seconds(len(batch["index"]) * self.accelerator.num_processes)
        return losses

    @property
    def rate(self) -> float:
        """People per second in this epoch, since the run was begun or resumed."""
        return self._clock.rate

    def due(self) -> bool:
        """Whether a checkpoint within the epoch is due after the last step."""
        every = self.config.checkpoint_every
        return every > 0 and (self._place + 1) % every == 0

    def keep(self, epoch: int) -> None:
        """Keep a checkpoint within an epoch."""
        self._stop_if(self._finite.report())
        self._write(epoch)

    def finish_epoch(self, epoch: int) -> Record:
        """Measure the student where it is time to, and keep the epoch; returns its record."""
        record = self._trained(epoch)
        config = self.config
        if (epoch + 1) % config.evaluate_every == 0 or epoch + 1 == config.epochs:
            record |= self._validate(epoch)
        self.history.append(record)
        self._save(epoch, record)
        if self._writer is not None:
            # in the middle of its queue they would leave a thread waiting
            with signals_held(signal.SIGINT, signal.SIGTERM):
                for name, value in scalars_of(record).items():
                    self._writer.add_scalar(name, value, self.step)
        return record

    def kept(self) -> str:
        """What is kept of the run."""
        if self._checkpoint is None:
            return "no epoch was finished, so there is no checkpoint yet"
        return f"the checkpoint of {self._checkpoint} is kept"

    def kept_and_next(self) -> str:
        """What is kept of the run, and how to go on with it."""
        command = f"`cdkd {self.config.command} --resume {self.output}`"
        rest = f"{command} begins again" if self._checkpoint is None else f"go on with {command}"
        return f"{self.kept()}; {rest}"

    def _trained(self, epoch: int) -> Record:
        # before anything of this epoch is kept
        self._stop_if(self._finite.report())
        progress = self._progress
        means = {name: float(value) / len(self.loader) for name, value in progress.sums.items()}
        return {
            "epoch": epoch + 1,
            "step": self.step,
            **means,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "samples_per_second": self._clock.rate,
            "seconds": progress.seconds,
        }

    def _validate(self, epoch: int) -> Record:
        if self.accelerator.num_processes > 1:
            # batch statistics are each process's own; those of the first are kept
            broadcast([*self.task.buffers(), *self.student.buffers()])
        try:
            return self.validation(self.student)
        except Terminated:
            if self.accelerator.is_main_process:
                self._write(epoch)
            raise

    def _train_step(self, batch: Batch) -> dict[str, Tensor]:
        config = self.config
        rate = learning_rate(config.optimizer, self._place, len(self.loader), config.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        progress = self._place / max(1, config.epochs * len(self.loader) - 1)
        losses = self._losses_and_gradients(batch, progress)
        self._stop_if(self._finite.add(self.step, losses))
        # before the clipping, which would shorten θ's step and count its gradient among the network's
        self._step_adversarial()
        if self.config.optimizer.clip:
            self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.config.optimizer.clip)
        self.optimizer.step()
        if self._average is not None:
            self._average.update(self.task.student)
        self.step += 1
        return {name: value.detach() for name, value in losses.items()}

    def _losses_and_gradients(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        taught = batch.get("teacher_output")
        if taught is None and batch.get("teacher_image") is not None:
            taught = self.task.ask_teacher(batch["teacher_image"])
        inputs = [batch[name] for name in ("image", "keypoints", "annotated", "labelled")]
        if self._captured_step is None:
            self.optimizer.zero_grad()
            return self._compute(*inputs, taught=taught, progress=progress)
        # in a replay all numbers are constants
        losses = self._captured_step(*inputs, *(taught or TeacherOutput()))
        self.task.loss.move_to(progress, losses)
        return losses

    def _replayed(
        self, images: Tensor, keypoints: Tensor, annotated: Tensor, labelled: Tensor, *taught: Tensor | None
    ) -> dict[str, Tensor]:
        output = None if all(part is None for part in taught) else TeacherOutput(*taught)
        return self._compute(images, keypoints, annotated, labelled, taught=output, progress=1.0)

    def _compute(
        self,
        images: Tensor,
        keypoints: Tensor,
        annotated: Tensor,
        labelled: Tensor,
        *,
        taught: TeacherOutput | None,
        progress: float,
    ) -> dict[str, Tensor]:
        """The losses, whose gradients are added to the parameters'."""
        with self.accelerator.autocast():
            losses: dict[str, Tensor] = self.wrapped(
                images,
                None,
                keypoints,
                annotated,
                labelled=labelled,
                progress=progress,
                teacher_output=taught,
            )
        self.accelerator.backward(losses["total"])
        return losses

    def _replays(self) -> bool:
        """Whether steps may be replayed: one process, whose gradients nothing else touches, and numbers that stay."""
        accelerator = self.accelerator
        alone = accelerator.num_processes == 1 and accelerator.scaler is None
        same = self.task.loss.label_loss.replayable
        return self.config.cuda_graphs and alone and same and accelerator.device.type == "cuda"

    def _step_adversarial(self) -> None:
        if self.adversarial_optimizer is None:
            return
        scaler = self.accelerator.scaler
        if scaler is not None:
            # float16's loss scale is on every gradient, and this optimiser is not the scaler's
            for group in self.adversarial_optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad.div_(scaler.get_scale())
                        if not torch.isfinite(parameter.grad):
                            parameter.grad = None
        self.adversarial_optimizer.step()
        self.adversarial_optimizer.zero_grad()

    def _stop_if(self, problem: str | None) -> None:
        if problem is not None:
            raise NonFiniteLossError(f"{problem}; {self.kept_and_next()}")

    def _save(self, epoch: int, record: Record) -> None:
        """Keep a whole epoch."""
        self._progress = EpochProgress()
        self.epochs_done = epoch + 1
        self.accelerator.wait_for_everyone()
        if not self.accelerator.is_main_process:
            self._checkpoint = _in_words(epoch + 1, 0)
            return
        metric = self.validation.metric
        if metric in record and (self.best is None or record[metric] > self.best):
            self.best = record[metric]
            save_model(self.student, self.output / "best.safetensors")
        self._write(epoch + 1)
        self._write_metrics()

    def _write(self, epoch: int) -> None:
        """Write what resuming needs, with so many whole epochs and the progress in the next."""
        save_model(self.student, self.output / "last.safetensors")
        state = {
            "epoch": epoch,
            "progress": vars(self._progress),
            "step": self.step,
            "task": self.task.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "best": self.best,
        }
        if self._average is not None:
            state["average"] = self._average.state_dict()
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        # one file, renamed into place: a kill at any moment leaves the last one
        save_state(state, self.output / NAME)
        self._checkpoint = _in_words(epoch, self._progress.steps)

    def _write_metrics(self) -> None:
        metrics = {f"best_{self.validation.metric}": self.best, "epochs": self.history}
        write_json(metrics, self.output / "metrics.json")

    def _restore(self, state: dict[str, Any]) -> None:
        self.task.load_state_dict(state["task"])
        if self._average is not None:
            # a run that had none begins it with the weights that it has
            self._average = WeightAverage(self.task.student, self.config.ema_decay)
            if "average" in state:
                self._average.load_state_dict(state["average"])
        load_optimizer(self.optimizer, state["optimizer"])
        if self.accelerator.scaler is not None and "scaler" in state:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.history, self.step = state["history"], state["step"]
        # not the state's best, which may be that of another metric
        metric = self.validation.metric
        self.best = max((record[metric] for record in self.history if metric in record), default=None)
        self.epochs_done, kept = int(state["epoch"]), EpochProgress(**state.get("progress", {}))
        self._checkpoint = _in_words(self.epochs_done, kept.steps)
        self._progress = kept.on(self.accelerator.device, self.loader.people_per_step, len(self.loader))
        if self.accelerator.is_main_process and self.history:
            # the process may have been killed between the state and the metrics
            self._write_metrics()


def _in_words(epochs: int, steps: int) -> str:
    return f"epoch {epochs + 1}, step {steps}," if steps else f"epoch {epochs}"
