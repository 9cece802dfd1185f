"""Networks that teach, and their outputs stored for fixed views."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cdkd_ext.teachers.frozen import FrozenTeacher, Teacher

if TYPE_CHECKING:
    from cdkd_ext.teachers.compact import CompactOutput, CompactOutputs, build_compact_outputs
    from cdkd_ext.teachers.file import TeacherFile
    from cdkd_ext.teachers.stored import StoredOutputs, build_teacher_outputs

__all__ = [
    "CompactOutput",
    "CompactOutputs",
    "FrozenTeacher",
    "StoredOutputs",
    "Teacher",
    "TeacherFile",
    "build_compact_outputs",
    "build_teacher_outputs",
]

# what needs more than torch and numpy is imported when it is asked for
_LATE = {
    "CompactOutput": "compact",
    "CompactOutputs": "compact",
    "StoredOutputs": "stored",
    "TeacherFile": "file",
    "build_compact_outputs": "compact",
    "build_teacher_outputs": "stored",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LATE])
