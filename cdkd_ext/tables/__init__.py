"""The paper's tables: their rows and figures, the trainings behind them, and what was measured, side by side.

It needs `pip install 'cdkd-ext[train]'`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdkd_ext.late import late_names

if TYPE_CHECKING:
    from cdkd_ext.tables.costs import Costs, row_costs
    from cdkd_ext.tables.measured import Measured, made_otherwise, measure_rows
    from cdkd_ext.tables.page import format_table, write_table
    from cdkd_ext.tables.picture import draw_table
    from cdkd_ext.tables.plan import RATES, Plan, study_runs
    from cdkd_ext.tables.rows import PaperTable, Row, list_tables, load_table
    from cdkd_ext.tables.runs import TableRun, load_runs

__all__ = [
    "RATES",
    "Costs",
    "Measured",
    "PaperTable",
    "Plan",
    "Row",
    "TableRun",
    "draw_table",
    "format_table",
    "list_tables",
    "load_runs",
    "load_table",
    "made_otherwise",
    "measure_rows",
    "row_costs",
    "study_runs",
    "write_table",
]

_LATE = {
    **dict.fromkeys(("Costs", "row_costs"), "costs"),
    **dict.fromkeys(("Measured", "made_otherwise", "measure_rows"), "measured"),
    **dict.fromkeys(("format_table", "write_table"), "page"),
    "draw_table": "picture",
    **dict.fromkeys(("RATES", "Plan", "study_runs"), "plan"),
    **dict.fromkeys(("PaperTable", "Row", "list_tables", "load_table"), "rows"),
    **dict.fromkeys(("TableRun", "load_runs"), "runs"),
}

__getattr__, __dir__ = late_names(globals(), {name: f"tables.{_LATE[name]}" for name in __all__})
