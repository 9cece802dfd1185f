"""Networks that teach, and their outputs stored for fixed views."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdkd_ext.late import late_names
from cdkd_ext.teachers.frozen import FrozenTeacher, Teacher

if TYPE_CHECKING:
    from cdkd_ext.teachers.asked_once import AskedOnce, TaughtSamples
    from cdkd_ext.teachers.compact import CompactOutput, CompactOutputs, build_compact_outputs
    from cdkd_ext.teachers.description import TeacherDescription
    from cdkd_ext.teachers.file import TeacherFile
    from cdkd_ext.teachers.foreign import ForeignTeacher
    from cdkd_ext.teachers.joint_map import JointMap
    from cdkd_ext.teachers.network import CalledNetwork, OnnxNetwork
    from cdkd_ext.teachers.options import TeacherOptions
    from cdkd_ext.teachers.presets import list_presets
    from cdkd_ext.teachers.pseudo_labels import PseudoLabels, ask_teacher, unlabelled_person
    from cdkd_ext.teachers.readers import Readout
    from cdkd_ext.teachers.stored import StoredOutputs, build_teacher_outputs

__all__ = [
    "AskedOnce",
    "CalledNetwork",
    "CompactOutput",
    "CompactOutputs",
    "ForeignTeacher",
    "FrozenTeacher",
    "JointMap",
    "OnnxNetwork",
    "PseudoLabels",
    "Readout",
    "StoredOutputs",
    "TaughtSamples",
    "Teacher",
    "TeacherDescription",
    "TeacherFile",
    "TeacherOptions",
    "ask_teacher",
    "build_compact_outputs",
    "build_teacher_outputs",
    "list_presets",
    "unlabelled_person",
]

# what needs more than torch and numpy is imported when it is asked for
_LATE = {
    "AskedOnce": "asked_once",
    "CalledNetwork": "network",
    "CompactOutput": "compact",
    "CompactOutputs": "compact",
    "ForeignTeacher": "foreign",
    "JointMap": "joint_map",
    "OnnxNetwork": "network",
    "PseudoLabels": "pseudo_labels",
    "Readout": "readers",
    "StoredOutputs": "stored",
    "TaughtSamples": "asked_once",
    "TeacherDescription": "description",
    "TeacherFile": "file",
    "TeacherOptions": "options",
    "ask_teacher": "pseudo_labels",
    "build_compact_outputs": "compact",
    "build_teacher_outputs": "stored",
    "list_presets": "presets",
    "unlabelled_person": "pseudo_labels",
}

__getattr__, __dir__ = late_names(globals(), {name: f"teachers.{module}" for name, module in _LATE.items()})
