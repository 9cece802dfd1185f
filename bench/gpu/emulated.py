"""The CUDA kernels run on the CPU, at the smallest sizes."""

from __future__ import annotations

from cdkd_ext.emulation.launch_plan import plan_launches
from cdkd_ext.emulation.passes import LaunchSizes

TINY = LaunchSizes(
    batch=2, joints=2, student_bins=24, teacher_bins=96, student_side=4, teacher_side=8, projectors=2
)


def launches() -> list[list[str]]:
    """Name, number of launches and traffic of every pass."""
    return [[done.name, str(len(done.launches)), f"{done.ratio:.2f}"] for done in plan_launches(TINY)]
