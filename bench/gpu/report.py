"""Results of the stages: one JSON file each, one page of all, one table at the end."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.harness.table import print_rows

OK, FAILED, CUT_OFF, SKIPPED = "ok", "failed", "cut off", "skipped"
Table = dict[str, Any]  # title, columns, rows


@dataclass(frozen=True)
class Result:
    """What is known of a stage.

    Attributes:
        stage: its name.
        title: one line.
        status: OK, FAILED, CUT_OFF or SKIPPED.
        summary: what it found, in one line.
        seconds: that it took.
        tables: each with a title, columns and rows of texts.
        notes: paragraphs.
    """

    stage: str
    title: str
    status: str
    summary: str = ""
    seconds: float = 0.0
    tables: Sequence[Table] = ()
    notes: Sequence[str] = field(default=())


class Findings:
    """What one stage finds; written after each addition, so that a stage that is cut off has told what it knew.

    Args:
        file: where to write.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.summary = ""
        self.tables: list[Table] = []
        self.notes: list[str] = []
        self.samples: list[dict[str, Any]] = []

    def table(self, title: str, columns: Sequence[str]) -> Table:
        """Begin a table."""
        self.tables.append({"title": title, "columns": list(columns), "rows": []})
        return self.tables[-1]

    def write(self, summary: str | None = None) -> None:
        """Write everything, and the summary if there is a new one."""
        self.summary = self.summary if summary is None else summary
        write_whole(
            self.file, json.dumps({name: value for name, value in vars(self).items() if name != "file"})
        )


def stage_options(stage: str) -> tuple[argparse.Namespace, Findings]:
    """Options that every stage takes: output, limit, dry_run."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.gpu.{stage}")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--limit", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, at tiny sizes")
    options = parser.parse_args()
    return options, Findings(options.output / f"{stage}.json")


def read_result(file: Path) -> dict[str, Any]:
    """What a stage wrote; empty if it wrote nothing."""
    return json.loads(file.read_text()) if file.exists() else {}


def write_report(results: Sequence[Result], output: Path, *, dry_run: bool) -> None:
    """Write report.json and report.md."""
    write_whole(output / "report.json", json.dumps([asdict(result) for result in results], indent=1))
    write_whole(output / "report.md", "\n".join(_page(results, dry_run=dry_run)) + "\n")


def write_whole(file: Path, text: str) -> None:
    """Write a file whole or not at all.

    `cdkd_ext.files` does this too, but the package is not built yet where this is needed.
    """
    temporary = file.with_name(f".{file.name}")
    temporary.write_text(text)
    temporary.replace(file)


def print_table(results: Sequence[Result]) -> None:
    """The stages, and their tables, as text."""
    for result in results:
        for table in result.tables:
            print(f"\n{result.stage}: {table['title']}")
            print_rows([table["columns"], *table["rows"]])
    print()
    print_rows([["stage", "result", "seconds", ""], *map(_line, results)])


def _line(result: Result) -> list[str]:
    return [result.stage, result.status, f"{result.seconds:.0f}", result.summary]


def _page(results: Sequence[Result], *, dry_run: bool) -> list[str]:
    lines = ["# GPU report", "", "Made by `make gpu` (`python -m bench.gpu`)."]
    if dry_run:
        lines += [
            "",
            "**A dry run on a CPU: nothing here ran on a GPU, and its times say nothing about one.**",
        ]
    lines += ["", *_markdown([["stage", "result", "seconds", ""], *map(_line, results)])]
    for result in results:
        lines += ["", f"## {result.title}", "", f"{result.status}: {result.summary}"]
        for note in result.notes:
            lines += ["", note]
        for table in result.tables:
            lines += ["", f"### {table['title']}", "", *_markdown([table["columns"], *table["rows"]])]
    return lines


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return [head, f"|{'---|' * len(rows[0])}", *body]
