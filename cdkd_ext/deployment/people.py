"""The people whose crops an exported file is checked, quantised and measured on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cdkd_ext.data import DataConfig, EvaluationSet, PoseDataset
from cdkd_ext.data.loading import load_validation
from cdkd_ext.evaluation import measure
from cdkd_ext.evaluation.crop_networks import predict_with
from cdkd_ext.evaluation.metrics import crop_padding, crop_resample
from cdkd_ext.inference import CropNetwork
from cdkd_ext.models import ModelSpec
from cdkd_ext.synthetic import draw_people
from cdkd_ext.training.files import data_of_run

_DRAWN = 16


@dataclass(frozen=True)
class CheckedPeople:
    """People in images.

    Attributes:
        truth: the people with their annotations.
        spec: the description of the network that looks at them.
        drawn: whether they were drawn for want of others.
    """

    truth: EvaluationSet
    spec: ModelSpec
    drawn: bool

    @property
    def source(self) -> str:
        """Where they come from, in words."""
        return "drawn people" if self.drawn else str(self.truth.annotation_file)

    def crops(self, count: int) -> npt.NDArray[np.uint8]:
        """RGB crops (N, h, w, 3) of people that are spread evenly, N at most `count`."""
        truth, spec = self.truth, self.spec
        dataset = PoseDataset(
            truth.persons,
            truth.joints,
            size=spec.input_size,
            padding=crop_padding(truth, spec),
            resample=crop_resample(truth, spec),
        )
        chosen = sorted({int(i) for i in np.linspace(0, len(dataset) - 1, min(count, len(dataset)))})
        return np.stack([dataset[index]["image"].permute(1, 2, 0).numpy() for index in chosen])

    def accuracy(self, network: CropNetwork) -> tuple[str, float] | None:
        """Name and value in percent of a network's metric; None where the labels are of other joints, or there are none."""
        truth = self.truth
        if self.drawn or truth.metric == "none" or network.joints.names != truth.joints.names:
            return None
        metrics = measure(truth, predict_with(network, truth), self.spec)
        return ("PCKh@0.5", metrics["pckh"]) if truth.metric == "pckh" else ("AP", 100 * metrics["AP"])


@contextmanager
def people_to_check(weights: str, data: DataConfig | None, spec: ModelSpec) -> Iterator[CheckedPeople]:
    """The validation people of the data, else of the run, else drawn ones, which are gone after the block.

    Args:
        weights: the folder of a run, or a checkpoint.
        data: what the user chose.
        spec: the description of the network.

    Raises:
        InputError: the data that were chosen, or the run's that are there, cannot be read.
    """
    config = data
    if config is None and (Path(weights) / "config.yaml").is_file():
        config = data_of_run(weights)
        there = config.root is not None and config.val is not None and Path(config.root).is_dir()
        config = config if there else None
    if config is not None:
        yield CheckedPeople(load_validation(config), spec, drawn=False)
        return
    with tempfile.TemporaryDirectory() as folder:
        draw_people(Path(folder) / "val", _DRAWN)
        yield CheckedPeople(load_validation(DataConfig(root=folder)), spec, drawn=True)
