"""The training of an adaptation: steps, measurements of agreement, what is kept."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from cdkd_ext.adaptation.config import AdaptationConfig
from cdkd_ext.adaptation.losses import KeypointLoss, kept_loss, kept_outputs
from cdkd_ext.adaptation.measuring import Watched
from cdkd_ext.adaptation.networks import AdaptableNetwork
from cdkd_ext.adaptation.resolutions import shown
from cdkd_ext.checkpoints.run_files import STATE
from cdkd_ext.data.batches import Batch, EpochLoader
from cdkd_ext.errors import check
from cdkd_ext.training.state import load_optimizer, save_state
from cdkd_ext.training.trainee import Record, Trainee

AGREEMENT = "agreement"
_SHAKEN = 0.8  # of the agreement that a first portion leaves; less is more than new crops explain


class AdaptationTask(nn.Module):
    """A network with its losses: crops and a teacher's keypoints in, named losses out.

    Args:
        network: what learns.
        sigma: see `KeypointLoss`.
        keep_outputs: weight of the term that holds the other outputs; 0 leaves it out.
        frozen: names of weights that do not learn, with * for any letters.

    Raises:
        InputError: a name of `frozen` is that of no weight, or nothing is left to learn.
    """

    def __init__(
        self,
        network: AdaptableNetwork,
        *,
        sigma: float = 0.025,
        keep_outputs: float = 1.0,
        frozen: list[str] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = KeypointLoss.of(network, sigma)
        _freeze(network, frozen or [])
        self._keep = keep_outputs if keep_outputs > 0 and _has_others(network) else 0.0
        # in a tuple it is no part of the module
        self._original: tuple[AdaptableNetwork, ...] = ()
        if self._keep:
            self._original = (copy.deepcopy(network).requires_grad_(False),)

    @property
    def needs_full(self) -> bool:
        """Whether `forward` needs the crops at full resolution."""
        return bool(self._original)

    def forward(
        self, crops: Tensor, full: Tensor | None, keypoints: Tensor, weights: Tensor
    ) -> dict[str, Tensor]:
        """Return the named losses, scalars, "total" among them.

        Args:
            crops: RGB (B, 3, H, W) uint8, at any resolution, enlarged.
            full: the same at full resolution; None where `needs_full` is false.
            keypoints: the teacher's, (B, J, 2) in pixels of the crops.
            weights: (B, J).
        """
        outputs = self.network(crops)
        losses = self.loss(outputs, keypoints, weights)
        total = torch.stack(list(losses.values())).sum()
        if self._original and full is not None:
            description, reader = self.network.description, self.network.reader
            with torch.no_grad():
                wanted = kept_outputs(description, reader, self._original[0](full))
            losses["kept"] = kept_loss(kept_outputs(description, reader, outputs), wanted)
            total = total + self._keep * losses["kept"]
        return {**losses, "total": total}

    def to_device(self, device: torch.device) -> AdaptationTask:
        """Move everything, the unchanged network too."""
        for original in self._original:
            original.to(device)
        return self.to(device)

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Parameter groups of the optimiser: matrices and kernels decay, biases do not."""
        learning = [value for value in self.network.learning().values() if value.requires_grad]
        return [
            {"params": [value for value in learning if value.dim() > 1], "weight_decay": weight_decay},
            {"params": [value for value in learning if value.dim() <= 1], "weight_decay": 0.0},
        ]


def _freeze(network: AdaptableNetwork, patterns: list[str]) -> None:
    weights = network.learning()
    for pattern in patterns:
        chosen = [name for name in weights if fnmatchcase(name, pattern)]
        some = ", ".join(list(weights)[:8])
        check(chosen, "frozen", repr(pattern), f"the name of a weight, such as {some}")
        for name in chosen:
            weights[name].requires_grad_(False)
    check(
        any(value.requires_grad for value in weights.values()), "frozen", patterns, "something left to learn"
    )


def _has_others(network: AdaptableNetwork) -> bool:
    crops = torch.zeros(1, 3, *network.input_size, dtype=torch.uint8)
    with torch.no_grad():
        return bool(kept_outputs(network.description, network.reader, network(crops)))


class AdaptationTrainer(Trainee[AdaptationConfig]):
    """Trains an adaptation in the common loop (`training.together`) and keeps its run's folder.

    Args:
        config: the run.
        task: network and losses.
        loader: the batches of each portion.
        watched: people kept aside, whose agreement decides which weights are best.
        accelerator: device and precision.
        save: writes the adapted network to a file.
    """

    metric = AGREEMENT

    def __init__(
        self,
        config: AdaptationConfig,
        task: AdaptationTask,
        loader: EpochLoader,
        watched: Watched,
        accelerator: Accelerator,
        save: Callable[[Path], None],
    ) -> None:
        self.task = task.to_device(accelerator.device)
        super().__init__(config, loader, accelerator, config.optimizer.build(task))
        self._watched, self._save = watched, save

    def start(self, state: dict[str, Any] | None = None) -> None:
        """Take a state, or measure the unchanged network."""
        if state is not None:
            self._restore(state)
            self._end_if_stalled()
        else:
            self.history.append({"epoch": 0, "step": 0, **self._measure()})

    def close(self) -> None:
        """Nothing is open."""

    def finish_epoch(self, epoch: int) -> Record:
        """Measure the network, keep it where it is better than before, and end the training where it is no more."""
        record = {**self._trained(epoch), **self._measure()}
        self.history.append(record)
        if len(self.history) == 2:
            self._say_if_shaken()
        self._next_epoch(epoch)
        if self._is_best(record):
            self._save(self.output / self.task.network.file_name)
        self._write(self.epochs_done)
        self._write_metrics()
        self._end_if_stalled()
        return record

    def _say_if_shaken(self) -> None:
        """Say so where the first portion took much of what the network knew."""
        before, after = (record[AGREEMENT] for record in self.history)
        if after < _SHAKEN * before:
            rate = self.config.optimizer.learning_rate
            self.accelerator.print(
                f"the agreement fell from {before:.1f} to {after:.1f}: a tenth of the learning rate "
                f"(--optimizer.learning_rate {rate / 10:g}) keeps more of what the network knows"
            )

    def _end_if_stalled(self) -> None:
        # not in what is written: with another `patience` the run may go on from there
        if self._stalled():
            self.epochs_done = self.config.epochs

    def _stalled(self) -> bool:
        """Whether the agreement has not risen for as many measurements as `patience` says."""
        patience = self.config.patience
        values = [record[AGREEMENT] for record in self.history[1:]]
        return 0 < patience < len(values) and max(values[-patience:]) <= max(values[:-patience])

    def _measure(self) -> Record:
        """The agreement with the teacher, mean and at each watched resolution."""
        network = self.task.network

        @torch.no_grad()
        def predict(crops: Tensor) -> Tensor:
            with self.accelerator.autocast():
                outputs = network(crops)
            count = len(network.joints)
            return network.reader.readout(network.reader.read(outputs)).keypoints[:, :count]

        values = {
            f"{AGREEMENT}_{shown(height)}": self._watched.agreement(self._watched.predicted(predict, height))
            for height in self.config.resolutions().watched()
        }
        return {AGREEMENT: sum(values.values()) / len(values), **(values if len(values) > 1 else {})}

    def _train_step(self, batch: Batch) -> dict[str, Tensor]:
        with self.accelerator.autocast():
            losses = self.task(batch["image"], batch.get("full"), batch["keypoints"], batch["weights"])
        self._stop_if(self._finite.add(self.step, losses))
        self.optimizer.zero_grad()
        losses["total"].backward()
        if self.config.optimizer.clip:
            torch.nn.utils.clip_grad_norm_(self.task.parameters(), self.config.optimizer.clip)
        self.optimizer.step()
        self.step += 1
        return {name: value.detach() for name, value in losses.items()}

    def _write(self, epoch: int) -> None:
        save_state({**self._state(epoch), "task": self.task.state_dict()}, self.output / STATE)
        self._written(epoch)

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.task.load_state_dict(state["task"])
        load_optimizer(self.optimizer, state["optimizer"])
        self._go_on_from(state)


def check_state(state: Mapping[str, Any], folder: Path, task: nn.Module) -> None:
    """Check that a run's state is one of the network that is to go on.

    Raises:
        InputError: names the first tensor that differs.
    """
    own, saved = task.state_dict(), state["task"]
    for name in sorted({*own, *saved}):
        got, wanted = (tuple(tensors[name].shape) if name in tensors else "none" for tensors in (own, saved))
        check(got == wanted, f"resume: {name}", got, f"{wanted} as in {folder / STATE}")
