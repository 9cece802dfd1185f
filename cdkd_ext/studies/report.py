"""What a study of students found: tables with intervals as Markdown and JSON, and a chart."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cdkd_ext.adaptation.resolutions import shown
from cdkd_ext.data import EvaluationSet
from cdkd_ext.evaluation import limb_joints
from cdkd_ext.files import replacing, write_json
from cdkd_ext.studies.chart import draw_chart
from cdkd_ext.studies.engine import RunReport
from cdkd_ext.studies.lsp import Comparison, RowTitle
from cdkd_ext.studies.results import RunResult, row_hits
from cdkd_ext.studies.rows import RowResult
from cdkd_ext.studies.runs import StudyRun
from cdkd_ext.studies.shelf import ShelfResult
from cdkd_ext.studies.statistics import Estimate, RowHits, difference, mean


@dataclass(frozen=True)
class ComparisonResult:
    """A difference of two rows, in points.

    Attributes:
        title: what it tells.
        first: title of the row that is compared with.
        second: title of the row that is to be better.
        size: pixels of the crops.
        limbs: difference on the limbs' joints.
        all_joints: on all joints; None where one of the networks does not know some.
    """

    title: str
    first: str
    second: str
    size: int | None
    limbs: Estimate
    all_joints: Estimate | None


@dataclass(frozen=True)
class StudyReport:
    """All that a study found.

    Attributes:
        about: what was measured and how, in sentences.
        rows: of the tables.
        comparisons: between rows.
        runs: name, command and state of each run.
        failed: runs that failed in the last call or wait for one that did.
        machine: versions.
    """

    about: list[str]
    rows: list[RowResult]
    comparisons: list[ComparisonResult]
    runs: list[dict[str, Any]]
    failed: list[RunReport]
    machine: dict[str, str]


class _Measured:
    """The rows that were measured on people, by key: limbs' joints and all joints."""

    def __init__(self, truth: EvaluationSet) -> None:
        self._limbs = limb_joints(truth.joints)
        self.rows: dict[str, tuple[RowHits, RowHits | None]] = {}

    def add_runs(self, key: str, results: Sequence[RunResult]) -> None:
        limbs = row_hits(results, self._limbs)
        if limbs is not None:
            self.rows[key] = limbs, row_hits(results)

    def add_shelf(self, key: str, result: ShelfResult) -> None:
        limbs, every = (result.hits.per_person(joints) for joints in (self._limbs, None))
        known = None if result.unknown else RowHits(every[0][None], every[1])
        self.rows[key] = RowHits(limbs[0][None], limbs[1]), known

    def means(self, key: str) -> tuple[Estimate | None, Estimate | None]:
        limbs, every = self.rows.get(key, (None, None))
        return None if limbs is None else mean(limbs), None if every is None else mean(every)

    def differences(self, first: str, second: str) -> tuple[Estimate, Estimate | None] | None:
        """The second row's points above the first; None unless both were measured with a seed in common."""
        if first not in self.rows or second not in self.rows:
            return None
        (a, all_a), (b, all_b) = self.rows[first], self.rows[second]
        if a.seeds and b.seeds and not set(a.seeds) & set(b.seeds):
            return None
        every = None if all_a is None or all_b is None else difference(all_a, all_b)
        return difference(a, b), every


def make_report(
    runs: Sequence[StudyRun],
    titles: dict[str, RowTitle],
    comparisons: Sequence[Comparison],
    results: Sequence[RunResult],
    shelf: Sequence[ShelfResult],
    truth: EvaluationSet,
    *,
    about: Sequence[str] = (),
    reports: Sequence[RunReport] = (),
) -> StudyReport:
    """Compare what has been measured so far.

    Args:
        runs: of the plan.
        titles: of its rows.
        comparisons: between them.
        results: of the runs that have finished, measured on the people.
        shelf: networks off the shelf.
        truth: the people.
        about: what was measured and how, in sentences.
        reports: of the last call of `run_study`.
    """
    measured = _Measured(truth)
    by_row = {key: [result for result in results if result.run.row == key] for key in titles}
    for key, found in by_row.items():
        measured.add_runs(key, found)
    for one in shelf:
        measured.add_shelf(_shelf_key(one), one)
    rows = [
        _student_row(key, title, [run for run in runs if run.row == key], by_row[key], measured)
        for key, title in titles.items()
    ]
    rows += [
        RowResult(_shelf_key(one), one.name, one.name, one.height, True, *measured.means(_shelf_key(one)))
        for one in shelf
    ]
    done = {result.run.name for result in results}
    return StudyReport(
        list(about),
        rows,
        list(_compared(rows, comparisons, measured)),
        [{"name": run.name, "command": run.line(), "finished": run.name in done} for run in runs],
        [report for report in reports if report.state != "finished"],
        {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "machine": platform.machine(),
        },
    )


def write_report(report: StudyReport, folder: Path) -> Path:
    """Write results.md, results.json and results.png; return the first."""
    write_json(asdict(report), folder / "results.json")
    if _is_drawn(report):
        draw_chart(report.rows, folder / "results.png")
    with replacing(folder / "results.md") as temporary:
        temporary.write_text(markdown(report), encoding="utf-8")
    return folder / "results.md"


def markdown(report: StudyReport) -> str:
    """The tables."""
    lines = [
        "# Students for small crops",
        "",
        *report.about,
        "",
        *(["![Accuracy with intervals](results.png)", ""] if _is_drawn(report) else []),
    ]
    for size in _sizes(report.rows):
        own = [row for row in report.rows if row.size == size]
        lines += [f"## {_pixels(size)}", "", *_row_table(own), ""]
        compared = [one for one in report.comparisons if one.size == size]
        if compared:
            lines += [*_comparison_table(compared), ""]
    lines += [*_missing(report), ""]
    return "\n".join(lines)


def _is_drawn(report: StudyReport) -> bool:
    """Whether anything was measured."""
    return any(row.limbs is not None for row in report.rows)


def _sizes(rows: Iterable[RowResult]) -> list[int | None]:
    found = {row.size for row in rows}
    return [*sorted(size for size in found if size is not None), *([None] if None in found else [])]


def _pixels(size: int | None) -> str:
    return "Full resolution" if size is None else f"{size}×{size}"


def _shelf_key(result: ShelfResult) -> str:
    return f"{result.name}-{shown(result.height)}"


def _student_row(
    key: str, title: RowTitle, runs: Sequence[StudyRun], results: Sequence[RunResult], measured: _Measured
) -> RowResult:
    done = {result.run.name for result in results}
    first = results[0] if results else None
    return RowResult(
        key,
        str(title),
        title.kind,
        runs[0].size,
        False,
        *measured.means(key),
        macs=None if first is None else first.macs,
        parameters=None if first is None else first.parameters,
        epochs=tuple(sorted({result.epochs for result in results})),
        seconds=sum(result.seconds for result in results) / max(len(results), 1),
        missing=tuple(run.seed or 0 for run in runs if run.name not in done),
    )


def _compared(
    rows: Sequence[RowResult], comparisons: Sequence[Comparison], measured: _Measured
) -> Iterator[ComparisonResult]:
    by_key = {row.key: row for row in rows}
    pairs = [(one.title, one.first, one.second) for one in comparisons]
    for row in rows:
        if not row.shelf:
            off = [other for other in rows if other.shelf and other.size == row.size]
            best = max(off, key=lambda other: other.limbs.value if other.limbs else 0.0, default=None)
            if best is not None:
                pairs.append(("above the best off the shelf", best.key, row.key))
    for title, first, second in pairs:
        found = measured.differences(first, second)
        if found is not None:
            yield ComparisonResult(
                title, by_key[first].title, by_key[second].title, by_key[second].size, *found
            )


def _row_table(rows: Sequence[RowResult]) -> list[str]:
    head = (
        "| network | p12 [95 %] | each seed | p14 [95 %] | each seed | parameters | MACs | epochs | seconds |"
    )
    return [head, "|---" * 9 + "|", *(_row_line(row) for row in rows)]


def _row_line(row: RowResult) -> str:
    cells = [row.title]
    for estimate in (row.limbs, row.all_joints):
        cells += ["–", "–"] if estimate is None else [_with_interval(estimate), _each(estimate)]
    cells += [
        "–" if row.parameters is None else f"{row.parameters / 1e6:.2f} M",
        "–" if row.macs is None else f"{row.macs / 1e6:.0f} M",
        ", ".join(map(str, row.epochs)) or "–",
        f"{row.seconds:.0f}" if row.seconds else "–",
    ]
    return "| " + " | ".join(cells) + " |"


def _comparison_table(comparisons: Sequence[ComparisonResult]) -> list[str]:
    lines = ["| difference | from | to | p12 [95 %] | p | seeds | p14 [95 %] | p |", "|---" * 8 + "|"]
    for one in comparisons:
        cells = [one.title, one.first, one.second]
        cells += [_with_interval(one.limbs, sign=True), _p(one.limbs), str(max(len(one.limbs.seeds), 1))]
        every = one.all_joints
        cells += ["–", "–"] if every is None else [_with_interval(every, sign=True), _p(every)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _missing(report: StudyReport) -> list[str]:
    lines = []
    for row in report.rows:
        if row.missing:
            seeds = ", ".join(map(str, row.missing))
            lines.append(f"- {_pixels(row.size)}, {row.title}: not finished: seed {seeds}")
    lines += [f"- {one.name}: {one.state}: {one.message}" for one in report.failed]
    return ["## Missing", "", *lines] if lines else ["Nothing is missing: all runs have finished."]


def _with_interval(estimate: Estimate, *, sign: bool = False) -> str:
    numbers = [estimate.value, estimate.low, estimate.high]
    value, low, high = (f"{number:+.1f}" if sign else f"{number:.1f}" for number in numbers)
    return f"{value} [{low}, {high}]".replace("-", "−")


def _each(estimate: Estimate) -> str:
    return ", ".join(f"{value:.1f}" for value in estimate.each)


def _p(estimate: Estimate) -> str:
    if estimate.p is None:
        return "–"
    return "< 0.001" if estimate.p < 0.001 else f"{estimate.p:.3f}"
