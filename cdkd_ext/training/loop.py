"""The training loop of teachers, plain students and distilled students."""

from __future__ import annotations

import signal
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from cdkd_ext.checkpoints.native import save_model
from cdkd_ext.checkpoints.run_files import STATE
from cdkd_ext.data.batches import Batch, EpochLoader
from cdkd_ext.distillation import TeacherOutput
from cdkd_ext.models import PoseNetwork
from cdkd_ext.signals import signals_held
from cdkd_ext.training.captured_step import CapturedStep
from cdkd_ext.training.config import TrainingConfig
from cdkd_ext.training.ema import WeightAverage
from cdkd_ext.training.progress import scalars_of
from cdkd_ext.training.state import load_optimizer, save_state
from cdkd_ext.training.stops import InterruptedRun, NonFiniteLossError
from cdkd_ext.training.task import DistillationTask
from cdkd_ext.training.together import train_together
from cdkd_ext.training.trainee import Record, Trainee

__all__ = ["InterruptedRun", "NonFiniteLossError", "Record", "Trainer"]


class Evaluator(Protocol):
    """What measures a student; `build.Validation` is one."""

    @property
    def metric(self) -> str:
        """The metric that decides which checkpoint is best."""
        ...

    def __call__(self, student: PoseNetwork) -> dict[str, Any]:
        """Return the metrics."""
        ...


class Trainer(Trainee[TrainingConfig]):
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
        self.validation = validation
        self.task = task.to(accelerator.device)
        self.wrapped, optimizer = accelerator.prepare(task, config.optimizer.build(task))
        super().__init__(config, loader, accelerator, optimizer)
        self.adversarial_optimizer = config.adversarial_optimizer(task)
        self._captured_step = CapturedStep(self._replayed, task.parameters()) if self._replays() else None
        self._average = WeightAverage(task.student, config.ema_decay) if config.ema_decay else None
        self._writer: SummaryWriter | None = None

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
            # the last epoch's numbers lie at this step
            self._writer = SummaryWriter(self.output / "tensorboard", purge_step=self.step + 1)

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
    def metric(self) -> str:
        """The metric that decides which checkpoint is best."""
        return self.validation.metric

    def begin_epoch(self) -> None:
        """Switch to training; what follows until `finish_epoch` counts as the epoch's time."""
        self.wrapped.train()
        super().begin_epoch()

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

    def _validate(self, epoch: int) -> Record:
        if self.accelerator.num_processes > 1:
            # batch statistics are each process's own; those of the first are kept
            broadcast([*self.task.buffers(), *self.student.buffers()])
        try:
            return self.validation(self.student)
        except BaseException:
            # the epoch's steps are done: what goes on measures alone
            if self.accelerator.is_main_process:
                self._write(epoch)
            raise

    def _train_step(self, batch: Batch) -> dict[str, Tensor]:
        progress = self._place / max(1, self.config.epochs * len(self.loader) - 1)
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

    def _save(self, epoch: int, record: Record) -> None:
        """Keep a whole epoch."""
        self._next_epoch(epoch)
        self.accelerator.wait_for_everyone()
        if not self.accelerator.is_main_process:
            self._written(epoch + 1)
            return
        if self._is_best(record):
            save_model(self.student, self.output / "best.safetensors")
        self._write(epoch + 1)
        self._write_metrics()

    def _write(self, epoch: int) -> None:
        save_model(self.student, self.output / "last.safetensors")
        state = {**self._state(epoch), "task": self.task.state_dict()}
        if self._average is not None:
            state["average"] = self._average.state_dict()
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        # one file, renamed into place: a kill at any moment leaves the last one
        save_state(state, self.output / STATE)
        self._written(epoch)

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
        self._go_on_from(state)
