"""The teacher of the demonstration, which comes with the package, and how it was made.

``teacher.safetensors`` beside this file is trained on people that are drawn for it alone: the demonstration draws others.
The recipe ``demo_teacher`` of `cdkd_ext.recipes` holds the settings. This makes people, run and file anew:

    python -m cdkd_ext.demo.teacher runs/demo_teacher

The file is in half precision, which is half as large and measures the same.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cdkd_ext.checkpoints import load_model, save_model
from cdkd_ext.data.loading import prepare_synthetic
from cdkd_ext.errors import check
from cdkd_ext.studies import StudyRun, run_study

TEACHER = Path(__file__).with_name("teacher.safetensors")
PEOPLE, SEED = 12_000, 1


def train_teacher(
    folder: str | os.PathLike[str], *, people: int = PEOPLE, options: tuple[str, ...] = ()
) -> Path:
    """Draw people and train the demonstration's teacher on them, as the one that comes with the package was trained.

    Args:
        folder: receives the people, the run and the file; what an earlier call finished is kept.
        people: how many to train on; an eighth as many to validate.
        options: of `cdkd train` beside the recipe's.

    Returns:
        The path of the file, ``teacher.safetensors``, in half precision.

    Raises:
        InputError: the training failed, or the folder cannot be written.
    """
    folder = Path(folder).absolute()
    drawn = prepare_synthetic(folder / "synthetic", people, seed=SEED, workers=os.cpu_count() or 1)
    command = ("train", "--recipe", "demo_teacher", "--data.root", str(drawn), *options)
    (report,) = run_study([StudyRun(name="run", row="teacher", command=command)], folder)
    check(
        report.state == "finished", f"{folder / 'run'}", report.message, "a finished training (see log.txt)"
    )
    model = load_model(folder / "run/last.safetensors")
    save_model(model.half(), folder / TEACHER.name)
    return folder / TEACHER.name


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m cdkd_ext.demo.teacher FOLDER")
    print(train_teacher(sys.argv[1]))
