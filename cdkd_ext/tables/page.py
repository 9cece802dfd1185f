"""A table as text for a terminal, as Markdown and as JSON."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cdkd_ext.data.person import ANNOTATED_BOXES
from cdkd_ext.files import replacing, write_json
from cdkd_ext.tables.costs import Costs
from cdkd_ext.tables.measured import Measured, verdict
from cdkd_ext.tables.picture import draw_table
from cdkd_ext.tables.plan import RATES, ROOT, SEARCH_SHARE, Plan
from cdkd_ext.tables.rows import PaperTable, Row

_NONE = "–"


@dataclass(frozen=True)
class Sheet:
    """What there is to show of a table.

    Args:
        table: with the paper's figures.
        rows: of the table, in its order.
        plan: how the rows are trained.
        costs: of the rows' networks by row.
        measured: of the finished rows.
    """

    table: PaperTable
    rows: Sequence[Row]
    plan: Plan
    costs: Mapping[str, Costs]
    measured: Mapping[str, Measured]

    @property
    def boxes(self) -> str:
        """Where the people's boxes are from, as measured, or as the recipes have it."""
        found = sorted({one.boxes for one in self.measured.values()})
        return "; ".join(found) or ANNOTATED_BOXES


def format_table(sheet: Sheet) -> str:
    """The table for a terminal: figures side by side, then what one has to know about them."""
    lines = [f"Table {sheet.table.number}: {sheet.table.title} ({_scale(sheet.plan)})", ""]
    lines += _aligned(_cells(sheet))
    return "\n".join([*lines, "", *_notes(sheet)])


def markdown(sheet: Sheet) -> str:
    """The table as Markdown, with every column that the paper prints or that was measured."""
    head, *body = _cells(sheet)
    lines = [
        f"# Table {sheet.table.number}: {sheet.table.title}",
        "",
        f"{_scale(sheet.plan).capitalize()}.",
        "",
    ]
    lines += _piped(head, body)
    parts = _parts(sheet)
    if parts:
        lines += ["", "Percent of each column, the paper's and measured:", "", *_piped(parts[0], parts[1:])]
    return "\n".join([*lines, "", *(f"- {note}" for note in _notes(sheet)), ""])


def as_json(sheet: Sheet) -> dict[str, Any]:
    """All that the sheet holds as plain data."""
    return {
        "table": sheet.table.number,
        "title": sheet.table.title,
        "scale": sheet.plan.scale,
        "protocol": "equalised" if sheet.plan.equalised or sheet.plan.scale == "small" else "paper",
        "columns": list(sheet.table.columns),
        "root": sheet.plan.root if sheet.measured else None,
        "search": sheet.plan.search,
        "options": list(sheet.plan.options),
        "boxes": sheet.boxes,
        "rows": [_row_json(sheet, row) for row in sheet.rows],
    }


def write_table(sheet: Sheet, folder: str | Path) -> list[Path]:
    """Write table_N.md, table_N.json and table_N.png.

    Args:
        sheet: the table.
        folder: an existing one.

    Returns:
        The files.
    """
    stem = Path(folder) / f"table_{sheet.table.number}"
    paths = [stem.with_suffix(suffix) for suffix in (".md", ".json", ".png")]
    with replacing(paths[0]) as temporary:
        temporary.write_text(markdown(sheet), encoding="utf-8")
    write_json(as_json(sheet), paths[1])
    with replacing(paths[2]) as temporary:
        draw_table(sheet.table, sheet.rows, sheet.costs, sheet.measured, temporary)
    return paths


def _cells(sheet: Sheet) -> list[list[str]]:
    """The head and the rows; without the columns of what was measured where nothing was."""
    metric = {"mean": "PCKh", "AP": "AP"}[sheet.table.decides]
    found = "/".join(sorted({one.metric for one in sheet.measured.values()}))
    head = ["row", "method", "input", "backbone", f"paper's {metric}", f"measured {found}"]
    head += [
        "paper's difference",
        "measured difference",
        "M: paper, here",
        "GFLOPs: paper, here",
        "MMACs",
        "epochs",
    ]
    lines = [head, *(_row_cells(sheet, row) for row in sheet.rows)]
    if not sheet.measured:
        lines = [[cell for place, cell in enumerate(line) if place not in (5, 7)] for line in lines]
    return lines


def _row_cells(sheet: Sheet, row: Row) -> list[str]:
    table, found, costs = sheet.table, sheet.measured.get(row.name), sheet.costs.get(row.name)
    paper = table.figure(row)
    base = None if row.against is None else table.figure(table.row(row.against))
    digits = 1 if table.decides == "AP" else 3
    parameters, macs = (getattr(found or costs, name, None) for name in ("parameters", "macs"))
    printed = _number(row.parameters, 1), _number(row.gflops, 3)
    return [
        row.name,
        row.method,
        str(row.input),
        row.backbone,
        _number(paper, digits),
        _spread(found),
        _NONE if paper is None or base is None else f"{paper - base:+.{digits}f} to {row.against}",
        _difference(sheet, row),
        f"{printed[0]}, {_number(None if parameters is None else parameters / 1e6, 1)}",
        f"{printed[1]}, {_number(None if costs is None else costs.gflops, 3)}",
        _number(None if macs is None else macs / 1e6, 1),
        str(getattr(found or costs, "epochs", _NONE)),
    ]


def _number(value: float | None, digits: int) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"


def _spread(found: Measured | None) -> str:
    if found is None:
        return _NONE
    spread = found.spread()
    value = f"{found.mean():.2f}"
    return f"{value} ± {spread:.2f} ({len(found.seeds)})" if spread is not None else f"{value} (1)"


def _difference(sheet: Sheet, row: Row) -> str:
    found = sheet.measured.get(row.name)
    if found is None or found.against is None:
        return _NONE
    said = verdict(sheet.table, row, found)
    told = f": {said}" if said else ""
    return f"{found.against.value:+.2f} [{found.against.low:+.2f}, {found.against.high:+.2f}]{told}"


def _parts(sheet: Sheet) -> list[list[str]]:
    """The columns beside the one that decides; nothing where there are none."""
    names = list(sheet.table.columns)
    for one in sheet.measured.values():
        names += [name for name in one.values if name not in names]
    if len(names) < 2:
        return []
    lines = [["row", "", *names]]
    for row in sheet.rows:
        found = sheet.measured.get(row.name)
        if row.paper:
            known = [sheet.table.figure(row, name) if name in sheet.table.columns else None for name in names]
            lines.append([row.name, "paper", *(_number(value, 1) for value in known)])
        if found is not None:
            lines.append([row.name, "measured", *(_number(found.mean(name), 1) for name in names)])
    return lines


def _notes(sheet: Sheet) -> list[str]:
    notes = [f"boxes: {sheet.boxes}", *_notes_of_measured(sheet)]
    if sheet.plan.scale == "small":
        notes.append(
            "one small trunk, the same views, epochs and batch for all; teachers and backbones are trained beside them"
        )
    elif sheet.table.data == "coco":
        notes.append("the paper's figures: ground-truth boxes, as in every released configuration")
    notes.append(
        "GFLOPs: as the paper counts, see `cdkd models`; MMACs: million multiply-accumulates of the whole network"
    )
    notes += [f"{row.name}: {row.note}" for row in sheet.rows if row.note]
    missing = [row.name for row in sheet.rows if row.run(sheet.plan.scale) is None]
    if missing:
        notes.append(f"not at this scale: {', '.join(missing)}")
    return notes


def _notes_of_measured(sheet: Sheet) -> list[str]:
    if not sheet.measured:
        return []
    found = sheet.measured.values()
    people = sorted({one.people for one in found})
    root = sheet.plan.root
    of = ", as each run's request.json says" if root == ROOT else f" of {root}"
    notes = [f"measured on {', '.join(map(str, people))} people{of}"]
    if sheet.plan.options:
        notes.append(f"with {shlex.join(sheet.plan.options)}")
    notes += [f"head length: {reference}" for reference in sorted({one.reference for one in found} - {""})]
    notes.append(
        "measured: mean over seeds ± standard deviation (number of seeds); differences with 95 % intervals"
    )
    rates = ", ".join(f"{name} {one.rate:g}" for name, one in sheet.measured.items())
    notes.append(f"learning rates: {rates}")
    if sheet.plan.search:
        tried = ", ".join(f"{rate:g}" for rate in RATES)
        notes.append(
            f"each system's rate: the best of {tried} after 1/{SEARCH_SHARE} of the epochs (rounded down), a seed of its own"
        )
    return notes


def _scale(plan: Plan) -> str:
    if plan.scale == "small":
        return "small scale"
    return "full scale, equalised" if plan.equalised else "full scale, as published"


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]


def _piped(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *body]
    return [f"| {' | '.join(line)} |" for line in lines]


def _row_json(sheet: Sheet, row: Row) -> dict[str, Any]:
    found, costs = sheet.measured.get(row.name), sheet.costs.get(row.name)
    measured = None
    if found is not None:
        measured = {
            **asdict(found),
            "mean": found.mean(),
            "spread": found.spread(),
            "verdict": verdict(sheet.table, row, found),
        }
    return {
        **asdict(row),
        "run": row.run(sheet.plan.scale),
        "costs": None if costs is None else asdict(costs),
        "measured": measured,
    }
