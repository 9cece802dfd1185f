"""The epochs of one training, or of several that share their loader and their teacher."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

from accelerate.utils import send_to_device
from torch import Tensor

from cdkd_ext.data.batches import Batch, LostWorkerError, lost_workers_named
from cdkd_ext.data.shared_samples import STUDENTS
from cdkd_ext.errors import InputError, Terminated, fail, one_line
from cdkd_ext.signals import HeldSignals, signals_held
from cdkd_ext.teachers import Teacher
from cdkd_ext.training.progress import TrainingDisplay, scalars_of
from cdkd_ext.training.stops import InterruptedRun
from cdkd_ext.training.trainee import Trainee


def train_together(
    trainers: Sequence[Trainee[Any]], states: Sequence[dict[str, Any] | None], teacher: Teacher | None = None
) -> list[dict[str, Any]]:
    """Train several students to the end, each on its part of the same batches, and return their last records.

    They share the loader, whose batches hold a part for each under "students" if there are several. A student
    that comes from further on than the others waits for them.

    Args:
        trainers: of the students, with one loader, one accelerator and as many epochs.
        states: of `read_run`, to go on from; None begins.
        teacher: asked once per batch for all; None where each task asks its own.

    Raises:
        NonFiniteLossError: names the step and the term.
        InterruptedRun: Ctrl-C or SIGTERM; says where the last checkpoints are.
        LostWorkerError: a loading process was killed; says where the last checkpoints are.
        InputError: an image cannot be read, or an output folder not be written; says where the last checkpoints are.
    """
    first = trainers[0]
    epochs, steps = first.config.epochs, len(first.loader)
    try:
        for trainer, state in zip(trainers, states, strict=True):
            if state is not None:
                trainer.remember(state)
        for trainer, state in zip(trainers, states, strict=True):
            trainer.start(state)
        quiet = not first.accelerator.is_main_process
        with lost_workers_named(), TrainingDisplay(epochs * steps, quiet=quiet) as display:
            display.start(min(trainer.epochs_done * steps + trainer.steps_taken for trainer in trainers))
            for epoch in range(min(trainer.epochs_done for trainer in trainers), epochs):
                chosen = [trainer for trainer in trainers if trainer.epochs_done == epoch]
                if not chosen:
                    break
                _train_epoch(trainers, chosen, epoch, teacher, display)
                for place, trainer in enumerate(chosen):
                    try:
                        scalars = scalars_of(trainer.finish_epoch(epoch))
                    except BaseException:
                        # theirs have all steps, too
                        _keep_all(chosen[place + 1 :], epoch)
                        raise
                    name = "" if len(trainers) == 1 else trainer.output.name
                    display.epoch(epoch, epochs, (epoch + 1) * steps, scalars, name)
    except KeyboardInterrupt as error:
        terminated = isinstance(error, Terminated)
        word = "terminated" if terminated else "interrupted"
        message = f"{word} in step {max(trainer.step for trainer in trainers)}; {_kept(trainers)}"
        raise InterruptedRun(message, terminated=terminated) from None
    except OSError as error:
        # of TensorBoard's events, for one
        got = f"{error.strerror or error}; {_kept(trainers)}"
        fail(str(error.filename or first.output), got, "a disk that takes and gives files")
    except InputError as error:
        kind = LostWorkerError if isinstance(error, LostWorkerError) else InputError
        raise kind(f"{one_line(error)}; {_kept(trainers)}") from error
    finally:
        for trainer in trainers:
            trainer.close()
    return [trainer.history[-1] for trainer in trainers]


def _train_epoch(
    trainers: Sequence[Trainee[Any]],
    chosen: Sequence[Trainee[Any]],
    epoch: int,
    teacher: Teacher | None,
    display: TrainingDisplay,
) -> None:
    """Give the batches of an epoch to the trainers that have not finished it."""
    loader, accelerator = trainers[0].loader, trainers[0].accelerator
    for trainer in chosen:
        trainer.begin_epoch()
    start = min(trainer.steps_taken for trainer in chosen)
    with signals_held(signal.SIGTERM, once=True) as held:
        for index, loaded in enumerate(loader.epoch(epoch, start), start):
            batch = loader.on_device(send_to_device(loaded, accelerator.device, non_blocking=True))
            parts = _asked(batch.get(STUDENTS) or [batch], teacher)
            shown: dict[str, Tensor] = {}
            for trainer, part in zip(trainers, parts, strict=True):
                if trainer in chosen and trainer.steps_taken == index:
                    losses = _step_unless_left(trainer, part, epoch, held)
                    shown |= losses if len(trainers) == 1 else {trainer.output.name: losses["total"]}
            _keep_within(chosen, epoch, held)
            if display.live and index % 10 == 0:
                values = {name: float(value) for name, value in shown.items()}
                display.step(epoch * len(loader) + index + 1, epoch, values, chosen[0].rate)
        if held:
            _keep_within(chosen, epoch, held)


def _asked(parts: list[Batch], teacher: Teacher | None) -> list[Batch]:
    """Put the teacher's output, which the first part has or has the crops for, into every part."""
    first = dict(parts[0])
    if teacher is not None and "teacher_image" in first:
        first["teacher_output"] = teacher(first.pop("teacher_image"))
    elif "teacher_output" in first:
        # decoded once for all
        first["teacher_output"] = first["teacher_output"].widened()
    shared = {name: first[name] for name in ("teacher_output",) if name in first}
    return [first, *({**shared, **part} for part in parts[1:])]


def _step_unless_left(
    trainer: Trainee[Any], batch: Batch, epoch: int, held: HeldSignals
) -> dict[str, Tensor]:
    try:
        return trainer.train_batch(batch, epoch)
    except RuntimeError:
        if not trainer.accelerator.is_main_process:
            # the first process was terminated too: it has kept its state and gone
            held.release()
        raise


def _keep_within(trainers: Sequence[Trainee[Any]], epoch: int, held: HeldSignals) -> None:
    """Keep checkpoints after a step where it is time to; the first process ends here where it is terminated.

    The others go on until they miss it: without them it could not finish its step.
    """
    if not trainers[0].accelerator.is_main_process:
        return
    if held or any(trainer.due() for trainer in trainers):
        for trainer in trainers:
            trainer.keep(epoch)
        held.release()


def _keep_all(trainers: Sequence[Trainee[Any]], epoch: int) -> None:
    for trainer in trainers:
        if trainer.accelerator.is_main_process:
            trainer.keep(epoch)


def _kept(trainers: Sequence[Trainee[Any]]) -> str:
    if len(trainers) == 1:
        return trainers[0].kept_and_next()
    each = "; ".join(f"{trainer.output}: {trainer.kept()}" for trainer in trainers)
    return f"{each}; resume them together"
