"""The training loop of teachers, plain students and distilled students."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from cdkd_ext.checkpoints.native import save_model
from cdkd_ext.data.batches import Batch, EpochLoader, LostWorkerError, lost_workers_named
from cdkd_ext.errors import Terminated
from cdkd_ext.files import write_json
from cdkd_ext.models import PoseNetwork
from cdkd_ext.training.config import TrainingConfig
from cdkd_ext.training.finite import FiniteWatch
from cdkd_ext.training.progress import TrainingDisplay
from cdkd_ext.training.schedule import learning_rate
from cdkd_ext.training.state import save_state
from cdkd_ext.training.task import DistillationTask

Record = dict[str, Any]


class NonFiniteLossError(ArithmeticError):
    """A term of the loss became infinite or NaN."""


class InterruptedRun(Exception):  # noqa: N818 (not an error: the user asked for it)
    """Ctrl-C, or SIGTERM raised as `cdkd_ext.errors.Terminated`; the last checkpoint is kept.

    Args:
        message: where it stopped and what is kept.
        terminated: whether it was SIGTERM.
    """

    def __init__(self, message: str, *, terminated: bool = False) -> None:
        super().__init__(message)
        self.terminated = terminated


class Evaluator(Protocol):
    """What measures a student; `build.Validation` is one."""

    @property
    def metric(self) -> str:
        """The metric that decides which checkpoint is best."""
        ...

    def __call__(self, student: PoseNetwork) -> dict[str, Any]:
        """Return the metrics."""
        ...


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait for the end of the block: in TensorBoard's queue they would leave a thread waiting."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[tuple[int, FrameType | None]] = []
    found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {int(number): handler for number, handler in found.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, lambda number, frame: held.append((number, frame)))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for number, frame in held:
        handlers[number](number, frame)


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
        self._finite = FiniteWatch()
        self.history: list[Record] = []
        self.best: float | None = None
        self.step = 0
        self._place = 0  # of the current step among all of the training's, at today's batch size

    def run(self, state: dict[str, Any] | None = None) -> Record:
        """Train to the end and return the last record.

        Args:
            state: of `read_run`, to go on from; None begins.

        Raises:
            NonFiniteLossError: names the step and the term.
            InterruptedRun: Ctrl-C or SIGTERM; says where the last checkpoint is.
            LostWorkerError: a loading process was killed; says where the last checkpoint is.
        """
        first = 0 if state is None else self._restore(state)
        main = self.accelerator.is_main_process
        writer = SummaryWriter(self.output / "tensorboard", purge_step=self.step) if main else None
        epochs, steps = self.config.epochs, len(self.loader)
        try:
            with lost_workers_named(), TrainingDisplay(epochs * steps, quiet=not main) as display:
                display.start(first * steps)
                for epoch in range(first, epochs):
                    record = self._train_epoch(epoch, display)
                    if (epoch + 1) % self.config.evaluate_every == 0 or epoch + 1 == epochs:
                        record |= self.validation(self.task.student)
                    self.history.append(record)
                    self._save(epoch, record)
                    scalars = {
                        name: value for name, value in record.items() if isinstance(value, (int, float))
                    }
                    display.epoch(epoch, epochs, (epoch + 1) * steps, scalars)
                    if writer is not None:
                        with _interrupts_held():
                            for name, value in scalars.items():
                                writer.add_scalar(name, value, self.step)
        except KeyboardInterrupt as error:
            terminated = isinstance(error, Terminated)
            word = "terminated" if terminated else "interrupted"
            message = f"{word} in step {self.step}; {self._kept()}"
            raise InterruptedRun(message, terminated=terminated) from None
        except LostWorkerError as error:
            raise LostWorkerError(f"{error}; {self._kept()}") from error
        finally:
            if writer is not None:
                writer.close()
        return self.history[-1]

    def _train_epoch(self, epoch: int, display: TrainingDisplay) -> Record:
        config = self.config
        self.wrapped.train()
        sums: dict[str, Tensor] = {}
        started, samples, rate = time.perf_counter(), 0, 0.0
        steps = len(self.loader)
        for index, batch in enumerate(self.loader.epoch(epoch)):
            # not the steps that were taken: before resuming, an epoch may have had another number of them
            self._place = epoch * steps + index
            rate_now = learning_rate(config.optimizer, self._place, steps, config.epochs)
            for group in self.optimizer.param_groups:
                group["lr"] = rate_now
            losses = self._train_step(batch)
            for name, value in losses.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value
            samples += len(batch["index"]) * self.accelerator.num_processes
            rate = samples / (time.perf_counter() - started)
            if display.live and index % 10 == 0:
                display.step(
                    self._place + 1, epoch, {name: float(value) for name, value in losses.items()}, rate
                )
        # before anything of this epoch is kept
        self._stop_if(self._finite.report())
        means = {name: float(value) / steps for name, value in sums.items()}
        return {
            "epoch": epoch + 1,
            "step": self.step,
            **means,
            "learning_rate": rate_now,
            "samples_per_second": rate,
            "seconds": time.perf_counter() - started,
        }

    def _train_step(self, batch: Batch) -> dict[str, Tensor]:
        batch = self.loader.on_device(send_to_device(batch, self.accelerator.device, non_blocking=True))
        with self.accelerator.autocast():
            losses = self.wrapped(
                batch["image"],
                batch.get("teacher_image"),
                batch["keypoints"],
                batch["annotated"],
                labelled=batch["labelled"],
                progress=self._place / max(1, self.config.epochs * len(self.loader) - 1),
                teacher_output=batch.get("teacher_output"),
            )
        self._stop_if(self._finite.add(self.step, losses))
        self.optimizer.zero_grad()
        self.accelerator.backward(losses["total"])
        # before the clipping, which would shorten θ's step and count its gradient among the network's
        self._step_adversarial()
        if self.config.optimizer.clip:
            self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.config.optimizer.clip)
        self.optimizer.step()
        self.step += 1
        return {name: value.detach() for name, value in losses.items()}

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
            raise NonFiniteLossError(f"{problem}; {self._kept()}")

    def _kept(self) -> str:
        if not (self.output / "state.pt").exists():
            return "no epoch was finished, so there is no checkpoint yet"
        command = f"cdkd {self.config.command} --resume {self.output}"
        return f"the checkpoint of epoch {len(self.history)} is kept; go on with `{command}`"

    def _save(self, epoch: int, record: Record) -> None:
        self.accelerator.wait_for_everyone()
        if not self.accelerator.is_main_process:
            return
        student, metric = self.task.student, self.validation.metric
        if metric in record and (self.best is None or record[metric] > self.best):
            self.best = record[metric]
            save_model(student, self.output / "best.safetensors")
        save_model(student, self.output / "last.safetensors")
        state = {
            "epoch": epoch + 1,
            "step": self.step,
            "task": self.task.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "best": self.best,
        }
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        # one file, renamed into place: a kill at any moment leaves the last whole epoch
        save_state(state, self.output / "state.pt")
        write_json({f"best_{metric}": self.best, "epochs": self.history}, self.output / "metrics.json")

    def _restore(self, state: dict[str, Any]) -> int:
        self.task.load_state_dict(state["task"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None and "scaler" in state:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.history, self.best, self.step = state["history"], state["best"], state["step"]
        return int(state["epoch"])
