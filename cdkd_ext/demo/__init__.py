"""The demonstration: drawn people, students with few and with many labels, alone and taught, and a report of what was measured.

It needs `pip install 'cdkd-ext[train]'`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdkd_ext.late import late_names

if TYPE_CHECKING:
    from cdkd_ext.demo.run import DemoConfig, run_demo
    from cdkd_ext.demo.teacher import TEACHER, train_teacher

__all__ = ["TEACHER", "DemoConfig", "run_demo", "train_teacher"]

_LATE = {
    **dict.fromkeys(("DemoConfig", "run_demo"), "run"),
    **dict.fromkeys(("TEACHER", "train_teacher"), "teacher"),
}

__getattr__, __dir__ = late_names(globals(), {name: f"demo.{_LATE[name]}" for name in __all__})
