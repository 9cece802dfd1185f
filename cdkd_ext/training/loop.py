"""The training loop of teachers, plain students and distilled students."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from cdkd_ext.checkpoints.native import save_model
from cdkd_ext.data.batches import Batch, EpochBatches
from cdkd_ext.errors import check
from cdkd_ext.files import write_json
from cdkd_ext.models import HeatmapOutput, SimCCOutput
from cdkd_ext.training.config import DistillationConfig, TrainingConfig
from cdkd_ext.training.progress import TrainingDisplay
from cdkd_ext.training.schedule import learning_rate
from cdkd_ext.training.state import load_state, save_state
from cdkd_ext.training.task import PoseTask

Record = dict[str, Any]


class NonFiniteLossError(ArithmeticError):
    """A term of the loss became infinite or NaN."""


class InterruptedRun(Exception):  # noqa: N818 (not an error: the user asked for it)
    """Ctrl-C; the last checkpoint is kept."""


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block: in TensorBoard's queue it would leave a thread waiting forever."""
    raises = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not raises or threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if held:
        raise KeyboardInterrupt


class Trainer:
    """Trains a task and keeps its run's folder: last and best checkpoint, state, metrics, TensorBoard events.

    Args:
        config: the run.
        task: student and losses.
        loader: the batches; its sampler decides the order.
        sampler: the same sampler, told the epoch.
        evaluate: returns the metrics of the student.
        accelerator: devices, precision and processes.
        metric: the one of them that decides which checkpoint is best.
        teacher: computes the teacher's outputs from batch["teacher_image"]; None where there is no teacher or its
            outputs come with the batch.
        temperature_rate: learning rate of the adversarial parameters' own plain gradient step.
    """

    def __init__(
        self,
        config: TrainingConfig,
        task: PoseTask,
        loader: DataLoader[Batch],
        sampler: EpochBatches,
        evaluate: Callable[[PoseTask], dict[str, Any]],
        accelerator: Accelerator,
        metric: str = "pckh",
        teacher: Callable[[Tensor], SimCCOutput | HeatmapOutput] | None = None,
        temperature_rate: float = 1e-3,
    ) -> None:
        self.config = config
        self.output = Path(config.output)
        self.loader = loader
        self.sampler = sampler
        self.evaluate = evaluate
        self.accelerator = accelerator
        self.metric = metric
        self.teacher = teacher
        self.task = task.to(accelerator.device)
        optimizer_class = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[config.optimizer.name]
        optimizer = optimizer_class(
            task.weight_groups(config.optimizer.weight_decay), config.optimizer.learning_rate, fused=True
        )
        self.wrapped, self.optimizer = accelerator.prepare(task, optimizer)
        # Adam would normalise the reversal's ξ away, so θ has a plain gradient step of its own
        adversarial = list(task.loss.adversarial_parameters())
        self.adversarial_optimizer = torch.optim.SGD(adversarial, temperature_rate) if adversarial else None
        self.command = "distill" if isinstance(config, DistillationConfig) else "train"
        self.history: list[Record] = []
        self.best: float | None = None
        self.step = 0

    def run(self, *, resume: bool = False) -> Record:
        """Train to the end and return the last record.

        Raises:
            NonFiniteLossError: names the step and the term.
            InterruptedRun: Ctrl-C; says where the last checkpoint is.
        """
        first = self._restore() if resume else 0
        main = self.accelerator.is_main_process
        writer = SummaryWriter(self.output / "tensorboard", purge_step=self.step) if main else None
        epochs, steps = self.config.epochs, len(self.sampler)
        try:
            with TrainingDisplay(epochs * steps, quiet=not main) as display:
                display.start(self.step)
                for epoch in range(first, epochs):
                    record = self._train_epoch(epoch, display)
                    if (epoch + 1) % self.config.evaluate_every == 0 or epoch + 1 == epochs:
                        record |= self.evaluate(self.task)
                    self.history.append(record)
                    self._save(epoch, record)
                    scalars = {
                        name: value for name, value in record.items() if isinstance(value, (int, float))
                    }
                    display.epoch(epoch, epochs, self.step, scalars)
                    if writer is not None:
                        with _interrupts_held():
                            for name, value in scalars.items():
                                writer.add_scalar(name, value, self.step)
        except KeyboardInterrupt:
            raise InterruptedRun(f"interrupted in step {self.step}; {self._kept()}") from None
        finally:
            if writer is not None:
                writer.close()
        return self.history[-1]

    def _train_epoch(self, epoch: int, display: TrainingDisplay) -> Record:
        config = self.config
        self.sampler.epoch = epoch
        self.wrapped.train()
        sums: dict[str, Tensor] = {}
        started, samples, rate = time.perf_counter(), 0, 0.0
        for index, batch in enumerate(self.loader):
            rate_now = learning_rate(config.optimizer, self.step, len(self.sampler), config.epochs)
            for group in self.optimizer.param_groups:
                group["lr"] = rate_now
            losses = self._train_step(batch)
            for name, value in losses.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value
            samples += len(batch["image"]) * self.accelerator.num_processes
            rate = samples / (time.perf_counter() - started)
            if display.live and index % 10 == 0:
                display.step(self.step, epoch, {name: float(value) for name, value in losses.items()}, rate)
        means = {name: float(value) / len(self.sampler) for name, value in sums.items()}
        return {
            "epoch": epoch + 1,
            "step": self.step,
            **means,
            "learning_rate": rate_now,
            "samples_per_second": rate,
            "seconds": time.perf_counter() - started,
        }

    def _train_step(self, batch: Batch) -> dict[str, Tensor]:
        batch = {name: value.to(self.accelerator.device, non_blocking=True) for name, value in batch.items()}
        if self.teacher is not None:
            output = self.teacher(batch.pop("teacher_image"))
            batch |= {f"teacher_{name}": value for name, value in output._asdict().items()}
        progress = self.step / max(1, self.config.epochs * len(self.sampler) - 1)
        with self.accelerator.autocast():
            losses = self.wrapped(batch, progress)
        self._check_finite(losses)
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

    def _check_finite(self, losses: dict[str, Tensor]) -> None:
        values = torch.stack([value.detach().float() for value in losses.values()])
        finite = torch.isfinite(values)
        if not bool(finite.all()):
            terms = [name for name, fine in zip(losses, finite.tolist(), strict=True) if not fine]
            first = [name for name in terms if name != "total"] or terms
            raise NonFiniteLossError(
                f"step {self.step}: {', '.join(first)} became {float(values[~finite][0])}; {self._kept()}"
            )

    def _kept(self) -> str:
        if not (self.output / "state.pt").exists():
            return "no epoch was finished, so there is no checkpoint yet"
        return f"the checkpoint of epoch {len(self.history)} is kept; go on with `cdkd {self.command} --resume {self.output}`"

    def _save(self, epoch: int, record: Record) -> None:
        self.accelerator.wait_for_everyone()
        if not self.accelerator.is_main_process:
            return
        student = self.task.student
        if self.metric in record and (self.best is None or record[self.metric] > self.best):
            self.best = record[self.metric]
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
        write_json({f"best_{self.metric}": self.best, "epochs": self.history}, self.output / "metrics.json")

    def _restore(self) -> int:
        path = self.output / "state.pt"
        if not path.exists():
            return 0
        state = load_state(path)
        check(
            state["epoch"] <= self.config.epochs,
            "epochs",
            self.config.epochs,
            f"at least the {state['epoch']} that {self.output} has already",
        )
        self.task.load_state_dict(state["task"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None and "scaler" in state:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.history, self.best, self.step = state["history"], state["best"], state["step"]
        return int(state["epoch"])
