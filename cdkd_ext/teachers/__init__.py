"""Networks that teach, and their outputs stored for fixed views."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cdkd_ext.teachers.frozen import FrozenTeacher, Teacher

if TYPE_CHECKING:
    from cdkd_ext.teachers.compact import CompactOutput, CompactOutputs, build_compact_outputs
    from cdkd_ext.teachers.description import TeacherDescription
    from cdkd_ext.teachers.file import TeacherFile
    from cdkd_ext.teachers.foreign import ForeignTeacher
    from cdkd_ext.teachers.joint_map import JointMap
    from cdkd_ext.teachers.options import TeacherOptions
    from cdkd_ext.teachers.presets import list_presets
    from cdkd_ext.teachers.readers import Readout
    from cdkd_ext.teachers.stored import StoredOutputs, build_teacher_outputs

__all__ = [
    "CompactOutput",
    "CompactOutputs",
    "ForeignTeacher",
    "FrozenTeacher",
    "JointMap",
    "Readout",
    "StoredOutputs",
    "Teacher",
    "TeacherDescription",
    "TeacherFile",
    "TeacherOptions",
    "build_compact_outputs",
    "build_teacher_outputs",
    "list_presets",
]

# what needs more than torch and numpy is imported when it is asked for
_LATE = {
    "CompactOutput": "compact",
    "CompactOutputs": "compact",
    "ForeignTeacher": "foreign",
    "JointMap": "joint_map",
    "Readout": "readers",
    "StoredOutputs": "stored",
    "TeacherDescription": "description",
    "TeacherFile": "file",
    "TeacherOptions": "options",
    "build_compact_outputs": "compact",
    "build_teacher_outputs": "stored",
    "list_presets": "presets",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LATE])
