"""What it takes to store a teacher's outputs: bytes and hours, from a short measurement."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from cdkd_ext.data import PoseDataset
from cdkd_ext.data.loading import load_people
from cdkd_ext.data.sharded_views import stored_bytes, student_columns
from cdkd_ext.distillation import TeacherOutput
from cdkd_ext.errors import check
from cdkd_ext.evaluation.evaluate import make_accelerator
from cdkd_ext.teachers.compact import compact_columns
from cdkd_ext.training.agreement import watch_people
from cdkd_ext.training.build import AnyTeacher, build_dataset, load_view_teacher, student_spec, teacher_joints
from cdkd_ext.training.config import DistillationConfig

PEOPLE = {"COCO: 150,000 people": 150_000, "ten million crops": 10_000_000}
_SAMPLE = 32  # people that are loaded and shown to the teacher


@dataclass(frozen=True)
class CacheRates:
    """How fast views are made; what is not given is measured.

    Args:
        load: views per second that one process decodes and crops, for student and teacher together.
        teacher: views per second that go through the teacher and the coding of its outputs.
    """

    load: float | None = None
    teacher: float | None = None


@dataclass(frozen=True)
class CachePlan:
    """What a cache takes.

    Attributes:
        bytes: per view, of what is stored.
        views: per person.
        people: how many, by name: of the data set and of others to compare with.
        load: views per second that one process decodes and crops.
        teacher: views per second that go through teacher and coding.
        workers: processes that load beside the one that asks the teacher.
    """

    bytes: dict[str, float]
    views: int
    people: dict[str, int]
    load: float
    teacher: float
    workers: int

    def hours(self, people: int) -> float:
        """Hours that one process takes with its loading processes, which load while it asks the teacher."""
        loading, asking = 1 / self.load, 1 / self.teacher
        each = max(loading / self.workers, asking) if self.workers else loading + asking
        return people * self.views * each / 3600


def plan_cache(config: DistillationConfig, rates: CacheRates = CacheRates()) -> CachePlan:
    """Load a few of a run's people, ask its teacher about them, and see what their views take.

    Nothing is written. Without a data set, people are drawn to be measured.

    Args:
        config: the run; `data.views` 0 counts as 1.
        rates: those that are known.

    Raises:
        InputError: a rate is not positive, or as `prepare_views` does.

    Example:
        ```python
        print(plan_text(plan_cache(DistillationConfig(teacher="runs/teacher", data=DataConfig(root="coco")))))
        ```
    """
    config.validate()
    for name in ("load", "teacher"):
        value = getattr(rates, name)
        check(value is None or value > 0, f"rates.{name}", value, "a positive number of views per second")
    views = max(config.data.views, 1)
    accelerator = make_accelerator(config.cpu)
    with tempfile.TemporaryDirectory() as folder:
        data = replace(config.data, views=views, synthetic_people=min(config.data.synthetic_people, _SAMPLE))
        config = replace(config, data=data)
        people = load_people(config.data, Path(folder), teacher_joints=lambda: teacher_joints(config))
        people = watch_people(config, people)
        spec = student_spec(config, people.joints)
        teacher = load_view_teacher(config, spec, people.joints, accelerator)
        dataset = build_dataset(config, people, spec, teacher)
        samples, load = _load(dataset)
    output, ask = _ask(teacher, samples)
    return CachePlan(
        bytes=_bytes(samples, output),
        views=views,
        people=({"this data set": len(dataset)} if config.data.root or config.data.images else {}) | PEOPLE,
        load=rates.load or load,
        teacher=rates.teacher or ask,
        workers=config.data.workers,
    )


def _load(dataset: PoseDataset) -> tuple[dict[str, Tensor], float]:
    """Stacked samples of the first people, and how many are loaded per second."""
    started = time.perf_counter()
    samples = [dataset[index] for index in range(min(len(dataset), _SAMPLE))]
    rate = len(samples) / (time.perf_counter() - started)
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}, rate


def _ask(teacher: AnyTeacher, samples: dict[str, Tensor]) -> tuple[TeacherOutput, float]:
    """The teacher's output, and for how many views per second it is computed and coded."""
    images = samples["teacher_image"]
    # the first calls choose algorithms, and on a GPU capture a graph
    for _ in range(3):
        started = time.perf_counter()
        output = teacher(images)
        compact_columns(output, features=True)
        rate = len(images) / (time.perf_counter() - started)
    return output, rate


def _bytes(samples: dict[str, Tensor], output: TeacherOutput) -> dict[str, float]:
    sizes = {
        f"student's crops and labels, {kind}": stored_bytes(student_columns(samples, kind))
        for kind in ("raw", "jpeg")
    }
    values = {name: value for name, value in output._asdict().items() if value is not None}
    dense = {name: 2.0 * value[0].numel() for name, value in values.items()}
    feature = dense.pop("feature", 0.0)
    if dense:
        sizes["teacher, dense"] = sum(dense.values()) + feature
        sizes["teacher, compact"] = stored_bytes(compact_columns(output, features=False))
    if feature:
        sizes["teacher, compact, and features"] = stored_bytes(compact_columns(output, features=True))
    return sizes


def plan_text(plan: CachePlan) -> str:
    """A plan as a table."""
    names = list(plan.people)
    width = max(map(len, plan.bytes))
    lines = [" " * width + "  bytes/view" + "".join(f"  {name:>20}" for name in names)]
    for name, size in plan.bytes.items():
        totals = (size * count * plan.views / 1e9 for count in plan.people.values())
        lines.append(
            f"{name:<{width}}  {size:>10,.0f}" + "".join(f"  {total:>17,.2f} GB" for total in totals)
        )
    hours = (plan.hours(count) for count in plan.people.values())
    lines.append(
        f"{'time of one process':<{width}}  {'':>10}" + "".join(f"  {hour:>18,.2f} h" for hour in hours)
    )
    lines.append(
        "Feature maps, which SAPE learns from, are not compact: half floats beside the rest, and always in dense."
    )
    lines.append(
        f"{plan.views} views per person; {plan.load:,.0f} views/s loaded per process, {plan.workers} loading processes; "
        f"{plan.teacher:,.0f} views/s through the teacher and the coding."
    )
    return "\n".join(lines)
