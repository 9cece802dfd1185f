"""Networks off the shelf, on the same people's crops at full resolution and reduced as far away people arrive."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cdkd_ext.adaptation.measuring import Watched
from cdkd_ext.adaptation.resolutions import shown
from cdkd_ext.data import EvaluationSet, PoseDataset
from cdkd_ext.evaluation import JointHits, joint_hits
from cdkd_ext.joints import JointSet
from cdkd_ext.studies.engine import say
from cdkd_ext.studies.results import people_identity
from cdkd_ext.teachers import ForeignTeacher, PseudoLabels, TeacherFile, TeacherOptions


@dataclass(frozen=True)
class ShelfResult:
    """What a network off the shelf finds at one resolution.

    Attributes:
        name: of the network.
        height: pixels that the crops were reduced to; None is full resolution.
        hits: which joints it finds; those that it does not know are wrong.
        unknown: names of the joints that it does not know.
    """

    name: str
    height: int | None
    hits: JointHits
    unknown: tuple[str, ...]


def check_shelf(files: Mapping[str, str], truth: EvaluationSet) -> None:
    """Check that networks can be asked about people.

    Args:
        files: as of `measure_shelf`.
        truth: the people.

    Raises:
        InputError: a file is missing or malformed, or no joint matches.
    """
    for file in files.values():
        _load(file, truth.joints, TeacherOptions(flip=True))


def measure_shelf(
    files: dict[str, str],
    truth: EvaluationSet,
    heights: Sequence[int | None],
    folder: Path,
    *,
    threads: int | None = None,
    report: Callable[[str], None] = say,
) -> list[ShelfResult]:
    """Measure networks at resolutions, each once: what was measured is kept in a folder.

    The crop is the one that the network's description asks for, reduced so that each of the few pixels is the mean over its
    area, and enlarged again to the network's input (`crop_from_afar`); the prediction is averaged with that for the mirror
    image.

    Args:
        files: of networks, by name: ONNX files, YAML files that describe one, or checkpoints of this package.
        truth: the people.
        heights: pixels of the reduced crops; None is full resolution. Those that are no fewer than the network's own are left
            out.
        folder: where to keep what was measured.
        threads: of onnxruntime; None leaves the choice to it.
        report: is given a line for each measurement.

    Raises:
        InputError: a file is missing or malformed, or no joint matches.
    """
    results = []
    for name, file in files.items():
        options = TeacherOptions(flip=True, threads=threads)
        network, identity = _load(file, truth.joints, options)
        watched = _watched(network, truth)
        unknown = tuple(
            joint
            for joint, sources in zip(truth.joints.names, network.joint_map.sources, strict=True)
            if not sources
        )
        for height in heights:
            if height is not None and height >= watched.size[0]:
                continue
            path = folder / f"{name}-{shown(height)}.npz"
            known = f"{identity} {people_identity(truth)}"
            hits = JointHits.load(path, known)
            if hits is None:
                hits = _measured(network, watched, truth, height)
                hits.save(path, known)
                report(f"{name} at {shown(height)}: measured")
            results.append(ShelfResult(name, height, hits, unknown))
    return results


def _load(file: str, joints: JointSet, options: TeacherOptions) -> tuple[ForeignTeacher, str]:
    """A network and what tells it from others."""
    found = TeacherFile(file, options=options)
    if not found.is_foreign:
        # which needs the extra `adapt`
        from cdkd_ext.adaptation.networks import load_teacher

        return load_teacher(file, joints, options)
    network = found.load("cpu", joints)
    assert isinstance(network, ForeignTeacher)
    return network, found.identity(network)


def _watched(network: ForeignTeacher, truth: EvaluationSet) -> Watched:
    """The people's crops as the network takes them."""
    spec = network.teacher_spec
    dataset = PoseDataset(
        truth.persons, truth.joints, size=spec.input_size, padding=spec.padding, resample=spec.resample
    )
    shape = (len(truth.persons), len(truth.joints))
    # nobody's agreement is asked for
    nothing = PseudoLabels(np.zeros((*shape, 2), np.float32), np.zeros(shape, np.float32))
    return Watched.of(dataset, nothing)


def _measured(
    network: ForeignTeacher, watched: Watched, truth: EvaluationSet, height: int | None
) -> JointHits:
    keypoints = watched.predicted(lambda crops: network.predict(crops).keypoints, height)
    return joint_hits(watched.in_image(keypoints), truth.persons, truth.joints)
