"""The rows of the paper's tables, with its figures.

Gu et al., Cross-Domain Knowledge Distillation for Low-Resolution Human Pose Estimation (CDKD), Tables I to X. The figures lie
in `data/table_N.yaml`; where a row's training is a guess, its `note` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cdkd_ext.errors import check, check_option
from cdkd_ext.files import read_yaml

DATA = Path(__file__).parent / "data"
_NUMBERS = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X")
Scale = Literal["full", "small"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table.

    Args:
        name: unique in its table.
        method: as the table names it.
        input: side of the crops in pixels.
        backbone: of the paper's network.
        full: the run of `load_runs("full")` that it is.
        small: the run of `load_runs("small")`; None where small networks cannot show it.
        against: the row that the paper compares it with; None of those that are compared with.
        paper: its figures, as many of the table's columns as it prints; of COCO's rows often AP alone. None of rows that
            are not the paper's.
        parameters: millions, as the paper prints them; None where it does not.
        gflops: as the paper prints them, see `cdkd_ext.models.paper_gflops`.
        note: what one has to know about it.
    """

    name: str
    method: str
    input: int
    backbone: str
    full: str
    small: str | None = None
    against: str | None = None
    paper: tuple[float, ...] = ()
    parameters: float | None = None
    gflops: float | None = None
    note: str = ""

    def run(self, scale: Scale) -> str | None:
        """The name of its run at a scale."""
        return self.full if scale == "full" else self.small


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A table of the paper.

    Args:
        number: Roman.
        title: what it compares, on which people, by which metric.
        data: "mpii" or "coco".
        columns: names of the figures, the metric's groups and its mean.
        rows: in the paper's order.
    """

    number: str
    title: str
    data: Literal["mpii", "coco"]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def decides(self) -> str:
        """The column that rows are compared by: "mean" or "AP"."""
        return "AP" if self.data == "coco" else "mean"

    @property
    def num_joints(self) -> int:
        """J of the people that the paper measures on."""
        return {"mpii": 16, "coco": 17}[self.data]

    def figure(self, row: Row, column: str | None = None) -> float | None:
        """What the paper prints in a column, by default the one that decides; None where it prints nothing."""
        place = self.columns.index(column or self.decides)
        # a row with one figure alone has the one that decides
        values = dict(zip(self.columns, row.paper, strict=False)) if len(row.paper) > 1 else {}
        if len(row.paper) == 1:
            values = {self.decides: row.paper[0]}
        return values.get(self.columns[place])

    def row(self, name: str) -> Row:
        """The row of a name.

        Raises:
            InputError: there is none.
        """
        check_option("rows", name, [row.name for row in self.rows])
        return next(row for row in self.rows if row.name == name)

    def chosen(self, names: Sequence[str] | None) -> list[Row]:
        """The rows of these names in the table's order; all without names."""
        wanted = None if names is None else {self.row(name).name for name in names}
        return [row for row in self.rows if wanted is None or row.name in wanted]

    def compared_with(self, names: Sequence[str]) -> PaperTable:
        """The table with rows compared with the one of these that has crops of their size; of other sizes all stays.

        Raises:
            InputError: there is no such row, or two are of one size.

        Example:
            >>> from cdkd_ext.tables import load_table
            >>> load_table("I").compared_with(["simcc_32"]).row("hrnet_32").against
            'simcc_32'
        """
        for name in names:
            check_option("against", name, [row.name for row in self.rows])
        bases = {self.row(name).input: name for name in names}
        check(len(bases) == len(names), "against", " ".join(names), "one row for each size of crops")

        def base(row: Row) -> str | None:
            name = bases.get(row.input, row.against)
            return None if name == row.name else name

        return replace(self, rows=tuple(replace(row, against=base(row)) for row in self.rows))


def list_tables() -> list[str]:
    """The tables' numbers, as the paper writes them."""
    return list(_NUMBERS)


def load_table(number: str | int) -> PaperTable:
    """Read a table.

    Args:
        number: 1 to 10, or I to X.

    Raises:
        InputError: there is no such table.

    Example:
        >>> from cdkd_ext.tables import load_table
        >>> table = load_table("III")
        >>> table.figure(table.row("all"))
        79.362
    """
    text = str(number).upper()
    place = _NUMBERS.index(text) + 1 if text in _NUMBERS else int(text) if text.isdecimal() else 0
    check(1 <= place <= len(_NUMBERS), "number", repr(str(number)), "a table of the paper, 1 to 10 or I to X")
    content: dict[str, Any] = read_yaml(DATA / f"table_{place}.yaml")
    rows = tuple(Row(**row | {"paper": tuple(row.get("paper", ()))}) for row in content.pop("rows"))
    return PaperTable(**content | {"columns": tuple(content["columns"]), "rows": rows})
