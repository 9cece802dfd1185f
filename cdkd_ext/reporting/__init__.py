"""A page about trained networks: what they see and say, how right they are, and how they were trained.

It needs `pip install 'cdkd-ext[train]'`.
"""

from cdkd_ext.reporting.collect import Predicted, RunsOnPeople, predict_runs
from cdkd_ext.reporting.page import write_report

__all__ = ["Predicted", "RunsOnPeople", "predict_runs", "write_report"]
