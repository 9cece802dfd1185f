"""Studies: many trainings that answer one question, run side by side, measured and compared with intervals.

It needs `pip install 'cdkd-ext[train]'`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdkd_ext.late import late_names

if TYPE_CHECKING:
    from cdkd_ext.studies.engine import RunReport, run_study
    from cdkd_ext.studies.lsp import LspStudy
    from cdkd_ext.studies.report import StudyReport, write_report
    from cdkd_ext.studies.results import RunResult, collect, row_hits
    from cdkd_ext.studies.run import lsp_study, plan_text
    from cdkd_ext.studies.runs import LaterWords, StudyRun, run_metrics, run_state
    from cdkd_ext.studies.shelf import ShelfResult, measure_shelf
    from cdkd_ext.studies.statistics import Estimate, RowHits, difference, mean

__all__ = [
    "Estimate",
    "LaterWords",
    "LspStudy",
    "RowHits",
    "RunReport",
    "RunResult",
    "ShelfResult",
    "StudyReport",
    "StudyRun",
    "collect",
    "difference",
    "lsp_study",
    "mean",
    "measure_shelf",
    "plan_text",
    "row_hits",
    "run_metrics",
    "run_state",
    "run_study",
    "write_report",
]

_LATE = {
    **dict.fromkeys(("RunReport", "run_study"), "engine"),
    "LspStudy": "lsp",
    **dict.fromkeys(("StudyReport", "write_report"), "report"),
    **dict.fromkeys(("RunResult", "collect", "row_hits"), "results"),
    **dict.fromkeys(("lsp_study", "plan_text"), "run"),
    **dict.fromkeys(("LaterWords", "StudyRun", "run_metrics", "run_state"), "runs"),
    **dict.fromkeys(("ShelfResult", "measure_shelf"), "shelf"),
    **dict.fromkeys(("Estimate", "RowHits", "difference", "mean"), "statistics"),
}

__getattr__, __dir__ = late_names(globals(), {name: f"studies.{_LATE[name]}" for name in __all__})
