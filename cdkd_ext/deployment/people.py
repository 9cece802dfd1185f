"""The people whose crops an exported file is checked, quantised and measured on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cdkd_ext.data import DataConfig, EvaluationSet, Person, PoseDataset
from cdkd_ext.data.footage import footage_folder, load_footage
from cdkd_ext.data.loading import labelled_people, load_validation
from cdkd_ext.errors import InputError
from cdkd_ext.evaluation import measure
from cdkd_ext.evaluation.crop_networks import predict_with
from cdkd_ext.evaluation.metrics import crop_padding, crop_resample
from cdkd_ext.inference import CropNetwork
from cdkd_ext.models import ModelSpec
from cdkd_ext.synthetic import draw_people
from cdkd_ext.training.files import data_of_run, moved_data

_DRAWN = 16


class Accuracy(NamedTuple):
    """What a network was measured at.

    Attributes:
        metric: its name.
        value: in percent.
        people: how many it is of.
    """

    metric: str
    value: float
    people: int


class Calibration(NamedTuple):
    """What a network is quantised by.

    Attributes:
        crops: RGB uint8 (N, h, w, 3).
        source: whose they are, in words.
        others: the people who are left to measure on.
    """

    crops: npt.NDArray[np.uint8]
    source: str
    others: CheckedPeople


@dataclass(frozen=True)
class CheckedPeople:
    """People in images.

    Attributes:
        truth: the people with their annotations.
        spec: the description of the network that looks at them.
        source: where they come from, in words.
        config: the same as options; None where they were drawn for want of others.
    """

    truth: EvaluationSet
    spec: ModelSpec
    source: str
    config: DataConfig | None

    @property
    def drawn(self) -> bool:
        """Whether they were drawn for want of others."""
        return self.config is None

    def crops(self, count: int) -> npt.NDArray[np.uint8]:
        """RGB crops (N, h, w, 3) of people that are spread evenly, N at most `count`."""
        return self._crops(self.truth.persons, count)

    def calibration(self, count: int) -> Calibration:
        """At most `count` crops to quantise by: of people to train on, so that the others are measured without bias.

        Without such people, every other one of those to validate on is taken, and left out of the measurement. AP counts all
        people of its file, so that there it measures on them, too.

        Raises:
            InputError: the annotations to train on are malformed.
        """
        config = self.config
        assert config is not None
        if config.root is not None and config.train is not None:
            file = Path(config.root) / config.train
            people = labelled_people(config)[0] if file.is_file() else []
            if people:
                return Calibration(self._crops(people, count), f"people to train on, {file}", self)
        chosen, rest = self.truth.persons[::2], self.truth.persons[1::2]
        crops, source = self._crops(chosen, count), f"every other person of {self.source}"
        if self.truth.metric == "AP" or not rest:
            return Calibration(crops, f"{source}, who are measured on, too", self)
        others = replace(self, truth=replace(self.truth, persons=rest))
        return Calibration(crops, f"{source}, who are not measured on", others)

    def _crops(self, persons: Sequence[Person], count: int) -> npt.NDArray[np.uint8]:
        truth, spec = self.truth, self.spec
        dataset = PoseDataset(
            persons,
            truth.joints,
            size=spec.input_size,
            padding=crop_padding(truth, spec),
            resample=crop_resample(truth, spec),
            unbiased=spec.method.unbiased_crop,
        )
        chosen = sorted({int(i) for i in np.linspace(0, len(dataset) - 1, min(count, len(dataset)))})
        return np.stack([dataset[index]["image"].permute(1, 2, 0).numpy() for index in chosen])

    def accuracy(self, network: CropNetwork) -> Accuracy | None:
        """A network's metric; None where the labels are of other joints, or there are none."""
        truth = self.truth
        if self.drawn or truth.metric == "none" or network.joints.names != truth.joints.names:
            return None
        metrics = measure(truth, predict_with(network, truth), self.spec)
        if truth.metric == "pckh":
            # those without a head length are left out
            return Accuracy("PCKh@0.5", metrics["pckh"], metrics["people"])
        return Accuracy("AP", 100 * metrics["AP"], len(truth.persons))


@contextmanager
def people_to_check(weights: str, data: DataConfig | None, spec: ModelSpec) -> Iterator[CheckedPeople]:
    """The validation people of the data, else of the run, else the run's footage, else drawn ones, gone after the block.

    Args:
        weights: the folder of a run, or a checkpoint, which may lie in one.
        data: what the user chose.
        spec: the description of the network.

    Raises:
        InputError: the data that were chosen, or the run's that are there, cannot be read.
    """
    run = Path(weights) if Path(weights).is_dir() else Path(weights).parent
    of_run = (run / "config.yaml").is_file()
    config = moved_data(data, run) if data is not None and of_run else data
    if config is None and of_run:
        config = data_of_run(run)
        there = config.root is not None and config.val is not None and Path(config.root).is_dir()
        if not there:
            footage = _footage(config, run, spec)
            if footage is not None:
                yield footage
                return
        config = config if there else None
    if config is not None:
        truth = load_validation(config)
        yield CheckedPeople(truth, spec, str(truth.annotation_file), config)
        return
    with tempfile.TemporaryDirectory() as folder:
        draw_people(Path(folder) / "val", _DRAWN)
        yield CheckedPeople(load_validation(DataConfig(root=folder)), spec, "drawn people", None)


def _footage(config: DataConfig, run: Path, spec: ModelSpec) -> CheckedPeople | None:
    """The people of a run's footage, whom nothing is measured on; None where it has none, or it is there no more."""
    if not config.images or spec.joints is None:
        return None
    try:
        persons = load_footage(config, footage_folder(config, run), spec.joints).persons
    except InputError:
        return None
    sources = [config.images] if isinstance(config.images, str) else config.images
    truth = EvaluationSet(persons, spec.joints, "none", Path(sources[0]), "found in the footage")
    return CheckedPeople(truth, spec, ", ".join(sources), config)
