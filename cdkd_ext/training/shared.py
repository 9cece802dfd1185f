"""What students that are trained together share, and the file that keeps them together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from cdkd_ext.errors import check
from cdkd_ext.files import read_yaml, replacing
from cdkd_ext.training.config import TrainingConfig

NAME = "students.yaml"
# of a student alone; the loader, the teacher and the loop serve all
_OWN = frozenset({
    "output", "model", "label_loss", "optimizer", "evaluate_every", "flip_test", "simcc_score", "seed", "ema_decay", "sape",
    "cca", "teaching", "temperature",
})  # fmt: skip


def check_shared(configs: Sequence[TrainingConfig]) -> None:
    """Check that runs agree in all that they share, and that each has a folder of its own.

    Raises:
        InputError: names the student by its place, and the field.
    """
    first = configs[0]
    outputs: dict[Path, int] = {}
    for i, config in enumerate(configs):
        for field in fields(first):
            got, expected = getattr(config, field.name), getattr(first, field.name)
            if field.name not in _OWN:
                name, got, expected = _differing(field.name, got, expected)
                check(got == expected, f"students[{i}].{name}", got, f"{expected}, as of the first one")
        output = Path(config.output).resolve()
        other = outputs.setdefault(output, i)
        check(
            other == i,
            f"students[{i}].output",
            config.output,
            f"another folder than that of students[{other}]",
        )
    # its loss scale is halved after a step that overflowed, whosever it was
    fp16 = len(configs) > 1 and first.precision == "fp16"
    check(not fp16, "precision", "fp16 for several students", "no or bf16")


def _differing(name: str, got: object, expected: object) -> tuple[str, object, object]:
    """The option within a group by which two groups differ."""
    while got != expected and is_dataclass(got) and is_dataclass(expected):
        inner = next(
            field.name for field in fields(got) if getattr(got, field.name) != getattr(expected, field.name)
        )
        name, got, expected = f"{name}.{inner}", getattr(got, inner), getattr(expected, inner)
    return name, got, expected


def save_students(folder: Path, seed: int, outputs: Sequence[str]) -> None:
    """Write which runs are trained together; those within the folder are named from there, so that it can be moved."""
    within = [os.path.relpath(output, folder) for output in outputs]
    named = [
        path if not path.startswith("..") else str(Path(output).resolve())
        for path, output in zip(within, outputs, strict=True)
    ]
    with replacing(folder / NAME) as temporary:
        temporary.write_text(yaml.safe_dump({"seed": seed, "students": named}, sort_keys=False))


def read_students(folder: str | os.PathLike[str]) -> tuple[int, list[Path]]:
    """Read what `save_students` wrote.

    Returns:
        The common seed and the folders of the runs.

    Raises:
        InputError: the file cannot be read, or a field is wrong.
    """
    path = Path(folder) / NAME
    content: Any = read_yaml(path)
    known = isinstance(content, dict) and content.keys() == {"seed", "students"}
    check(known, str(path), content, "the fields seed and students")
    seed, students = content["seed"], content["students"]
    check(type(seed) is int and seed >= 0, f"{path}: seed", seed, "a non-negative integer")
    named = isinstance(students, list) and students and all(isinstance(name, str) for name in students)
    check(named, f"{path}: students", students, "a list of folders")
    return seed, [Path(folder) / name for name in students]
