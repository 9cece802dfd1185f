"""Networks that teach."""

from cdkd_ext.teachers.frozen import FrozenTeacher

__all__ = ["FrozenTeacher"]
