"""What the network of a row costs, beside what the paper prints.

Counting takes seconds a network, so the numbers lie in `data/costs.yaml`, which ``python -m cdkd_ext.tables.costs`` writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from cdkd_ext.files import read_yaml, replacing
from cdkd_ext.models import ModelSpec, profile_models
from cdkd_ext.tables.rows import DATA, Row, Scale, list_tables, load_table
from cdkd_ext.tables.runs import TableRun, load_runs

_FILE = DATA / "costs.yaml"
_SCALES: tuple[Scale, ...] = ("full", "small")
_SMALL_JOINTS = 16


@dataclass(frozen=True)
class Costs:
    """Of a row's network, and of its training.

    Attributes:
        parameters: all of the network that is trained.
        macs: multiply-accumulates for a crop, see `cdkd_ext.models.count_macs`.
        gflops: as the paper counts, see `cdkd_ext.models.paper_gflops`.
        epochs: of its training, without those that it starts from.
        batch_size: of a step and process.
    """

    parameters: int
    macs: int
    gflops: float
    epochs: int
    batch_size: int


def row_costs(rows: Sequence[Row], *, scale: Scale = "full", equalised: bool = False) -> dict[str, Costs]:
    """The costs of rows by their names; rows that a scale does not have are left out.

    Networks at full scale have the joints of the row's data set, those at small scale MPII's sixteen.

    Args:
        rows: of a table.
        scale: of their runs.
        equalised: whether their trainings are.

    Example:
        >>> from cdkd_ext.tables import load_table, row_costs
        >>> row_costs([load_table("III").row("all")])["all"].parameters
        28634768
    """
    runs, stored, found = load_runs(scale), read_yaml(_FILE)[scale], dict[str, Costs]()
    for row in rows:
        name = row.run(scale)
        if name is not None:
            settings = runs[name].settings(equalised=equalised)
            found[row.name] = Costs(
                **stored[name], epochs=settings["epochs"], batch_size=settings["batch_size"]
            )
    return found


def count_costs(run: TableRun, num_joints: int) -> dict[str, Any]:
    """Parameters, multiply-accumulates and the paper's GFLOPs of a run's network, without building its weights."""
    (profile,) = profile_models([run.spec(num_joints)])
    return {
        "parameters": profile.parameters,
        "macs": profile.macs,
        "gflops": round(profile.paper_gflops, 4),
    }


def write_costs() -> None:
    """Count the costs of all rows' networks and write them into the package: minutes."""
    content: dict[str, dict[str, Any]] = {scale: {} for scale in _SCALES}
    known: dict[ModelSpec, dict[str, Any]] = {}
    for number in list_tables():
        table = load_table(number)
        for scale in _SCALES:
            runs = load_runs(scale)
            joints = table.num_joints if scale == "full" else _SMALL_JOINTS
            for name in filter(None, (row.run(scale) for row in table.rows)):
                spec = runs[name].spec(joints)
                if spec not in known:
                    known[spec] = count_costs(runs[name], spec.num_joints)
                content[scale][name] = dict(known[spec])
    text = "# Written by `python -m cdkd_ext.tables.costs`.\n"
    for scale in _SCALES:
        body = {name: content[scale][name] for name in sorted(content[scale])}
        text += yaml.safe_dump({scale: body}, default_flow_style=None, sort_keys=False, width=200)
    with replacing(_FILE) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_costs()
