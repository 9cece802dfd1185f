"""What the finished runs of a table's rows measured, and which of the paper's differences they show."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cdkd_ext.data import EvaluationSet
from cdkd_ext.data.loading import load_validation
from cdkd_ext.errors import InputError
from cdkd_ext.studies import Estimate, RowHits, RunResult, StudyRun, collect, difference, mean, row_hits
from cdkd_ext.studies.runs import check_request, run_metrics
from cdkd_ext.tables.plan import Plan, row_runs
from cdkd_ext.tables.rows import PaperTable, Row
from cdkd_ext.training.files import data_of_run, read_config

Verdict = Literal["holds", "does not hold", "cannot be told"]
_AP = ("AP", "AP50", "AP75", "AP_M", "AP_L", "AR")


@dataclass(frozen=True)
class Measured:
    """What the finished runs of a row measured.

    Attributes:
        seeds: of the runs.
        values: percent of each column, of each seed; with the column "mean" (PCKh) or "AP" among them.
        boxes: where the people's boxes are from.
        reference: what PCKh's lengths are, or nothing.
        people: how many were measured.
        epochs: of each run.
        seconds: of each run's steps, on average.
        rate: the learning rate.
        parameters: of the trained network.
        macs: multiply-accumulates for a crop.
        interval: of the metric over people and seeds; None of AP, or where nobody was measured.
        against: by how many points the row is above the one that it is compared with.
    """

    seeds: tuple[int, ...]
    values: Mapping[str, tuple[float, ...]]
    boxes: str
    reference: str
    people: int
    epochs: int
    seconds: float
    rate: float
    parameters: int
    macs: int
    interval: Estimate | None = None
    against: Estimate | None = None

    @property
    def decides(self) -> str:
        """The column that rows are compared by."""
        return "AP" if "AP" in self.values else "mean"

    @property
    def metric(self) -> str:
        """What that column is."""
        return "AP" if self.decides == "AP" else "PCKh@0.5"

    def mean(self, column: str | None = None) -> float | None:
        """Over the seeds; None of a column that was not measured."""
        values = self.values.get(column or self.decides)
        return None if values is None else statistics.fmean(values)

    def spread(self, column: str | None = None) -> float | None:
        """Standard deviation over the seeds; None of a single one."""
        values = self.values.get(column or self.decides, ())
        return statistics.stdev(values) if len(values) > 1 else None


def measure_rows(
    table: PaperTable,
    plan: Plan,
    folder: str | Path,
    rows: Sequence[str] | None = None,
    *,
    intervals: bool = True,
    planned: bool = True,
    workers: int = 0,
) -> dict[str, Measured]:
    """Read what the finished runs of rows measured, by the rows' names; rows without any are left out.

    Args:
        table: whose rows.
        plan: that the runs were made by; its seeds are looked for.
        folder: of the study.
        rows: names of some of them; None takes all.
        intervals: predict the validation people, once for each run, to tell differences from chance; else None stands
            for every estimate.
        planned: leave out runs of other people or options than the plan's, see `made_otherwise`.
        workers: processes that load images.

    Raises:
        InputError: a file is damaged, or the people cannot be read.
    """
    folder = Path(folder)
    wanted = table.chosen(rows)
    # a row that is not wanted may be what a wanted one is compared with
    named = {row.name: row for row in wanted} | {
        row.against: table.row(row.against) for row in wanted if row.against
    }
    runs = {
        name: [run for run in row_runs(row, plan) if not planned or _is_planned(run, folder)]
        for name, row in named.items()
    }
    truth = _people([run for found in runs.values() for run in found], folder) if intervals else None
    results = {name: collect(found, folder, truth, workers=workers) for name, found in runs.items()}
    hits = {name: row_hits(found) for name, found in results.items()}
    return {
        row.name: _estimated(
            _measured(results[row.name], folder), hits[row.name], hits.get(row.against or "")
        )
        for row in wanted
        if results[row.name]
    }


def made_otherwise(table: PaperTable, plan: Plan, folder: str | Path) -> list[str]:
    """The names of rows with finished runs in a folder that were made of other people, or with other options, than a plan's."""
    folder = Path(folder)
    return [
        row.name
        for row in table.rows
        if any(run_metrics(run, folder) and not _is_planned(run, folder) for run in row_runs(row, plan))
    ]


def _is_planned(run: StudyRun, folder: Path) -> bool:
    try:
        check_request(run, folder)
    except InputError:
        return False
    return True


def verdict(table: PaperTable, row: Row, measured: Measured | None) -> Verdict | None:
    """Whether the paper's difference between a row and the one it is compared with shows here; None without both.

    It holds where the interval of the measured difference lies on the paper's side of 0, and does not hold where it lies
    on the other one. With fewer than two seeds, or people, nothing can be told.
    """
    if row.against is None or measured is None or measured.against is None:
        return None
    figure, base = table.figure(row), table.figure(table.row(row.against))
    if figure is None or base is None:
        return None
    found = measured.against
    if len(found.seeds) < 2 or found.people < 2 or found.low <= 0 <= found.high:
        return "cannot be told"
    return "holds" if (found.value > 0) == (figure > base) else "does not hold"


def _people(runs: Sequence[StudyRun], folder: Path) -> EvaluationSet | None:
    """The people that runs were measured on, by a metric that says who was right about whom."""
    for run in runs:
        if "pckh" in (run_metrics(run, folder) or {}):
            return load_validation(data_of_run(folder / run.name))
    return None


def _measured(results: Sequence[RunResult], folder: Path) -> Measured:
    first = results[0].metrics
    columns = [_columns(result.metrics) for result in results]
    return Measured(
        seeds=tuple(result.run.seed or 0 for result in results),
        values={
            name: tuple(found[name] for found in columns)
            for name in columns[0]
            if all(name in found for found in columns)
        },
        boxes=str(first.get("boxes", "")),
        reference=str(first.get("reference", "")),
        people=int(first.get("people", 0)),
        epochs=results[0].epochs,
        seconds=statistics.fmean(result.seconds for result in results),
        rate=float(read_config(folder / results[0].run.name)["optimizer"]["learning_rate"]),
        parameters=results[0].parameters,
        macs=results[0].macs,
    )


def _columns(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Percent by a table's columns; without those of which nobody could be measured, which a file calls null."""
    if "pckh" in metrics:
        found = {**metrics.get("pckh_per_joint", {}), "mean": metrics["pckh"]}
    else:
        found = {
            name: None if metrics[name] is None else 100 * metrics[name] for name in _AP if name in metrics
        }
    return {name: value for name, value in found.items() if value is not None}


def _estimated(measured: Measured, hits: RowHits | None, base: RowHits | None) -> Measured:
    if hits is None:
        return measured
    common = base is not None and set(base.seeds) & set(hits.seeds)
    return replace(
        measured,
        interval=mean(hits),
        against=difference(base, hits) if base is not None and common else None,
    )
