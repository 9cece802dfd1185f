"""A row of a study's report."""

from __future__ import annotations

from dataclasses import dataclass

from cdkd_ext.studies.statistics import Estimate


@dataclass(frozen=True)
class RowResult:
    """A row of the report: students that differ in the seed alone, or a network off the shelf.

    Attributes:
        key: row of the plan, or name of the network with its resolution.
        title: in words.
        kind: the same without the network's name.
        size: pixels of the crops; None is full resolution.
        shelf: whether it is off the shelf.
        limbs: percentage of the limbs' joints; None where nothing was measured yet.
        all_joints: of all joints; None as well where the network does not know some of them.
        macs: for a crop; None is not known.
        parameters: of the network; None is not known.
        epochs: of the trainings.
        seconds: of a training's steps, the mean.
        missing: seeds that have not finished.
    """

    key: str
    title: str
    kind: str
    size: int | None
    shelf: bool
    limbs: Estimate | None
    all_joints: Estimate | None
    macs: int | None = None
    parameters: int | None = None
    epochs: tuple[int, ...] = ()
    seconds: float = 0.0
    missing: tuple[int, ...] = ()
