"""What `import cdkd_ext` gives, and what it does not load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import cdkd_ext
from cdkd_ext.extras import missing_extra

# where no source folder hides the installed package
FOLDER = Path(__file__).parent
EXTRAS = (
    "accelerate", "cv2", "jsonargparse", "matplotlib", "pycocotools", "rich", "safetensors", "scipy", "tensorboard", "yaml",
)  # fmt: skip
# all that predicting needs beside torch and numpy
PREDICT = ("cv2", "safetensors")
FUNCTIONS = ("create_model", "distill", "evaluate", "export", "list_models", "load_model", "train")


def run(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=FOLDER
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_loads_neither_torch_nor_an_extra() -> None:
    loaded = set(run("import sys, cdkd_ext; dir(cdkd_ext); print(*sys.modules)").split())
    assert not loaded & {"torch", "numpy", *EXTRAS}
    assert {name for name in loaded if name.startswith("cdkd_ext")} == {"cdkd_ext", "cdkd_ext.errors"}


def test_networks_load_no_extra() -> None:
    loaded = set(
        run("import sys, cdkd_ext; cdkd_ext.create_model; cdkd_ext.ops; print(*sys.modules)").split()
    )
    assert "torch" in loaded and not loaded & set(EXTRAS)


# each name in a child that has imported nothing of the package, but torch, which takes seconds
EACH_ALONE = """
import os, sys, traceback
import torch

for name in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        try:
            import cdkd_ext
            getattr(cdkd_ext, name)
            exec(f"from cdkd_ext import {name}")
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, name
    print(name)
"""


def test_every_name_is_there() -> None:
    assert run(EACH_ALONE, *cdkd_ext.__all__).split() == cdkd_ext.__all__


def test_the_names_are_listed() -> None:
    assert set(cdkd_ext.__all__) <= set(dir(cdkd_ext))
    with pytest.raises(AttributeError, match="module 'cdkd_ext' has no attribute 'nothing'"):
        cdkd_ext.nothing  # noqa: B018


def test_a_function_stays_one_whatever_is_imported() -> None:
    loaded = "import cdkd_ext, cdkd_ext.demo, cdkd_ext.cli.configured"
    kinds = run(f"{loaded}; print(*(type(getattr(cdkd_ext, name)).__name__ for name in {FUNCTIONS}))")
    assert kinds.split() == ["function"] * len(FUNCTIONS)


def test_a_missing_extra_is_named(run_without) -> None:
    for name, package, extra in (
        ("Predictor", "cv2", "predict"),
        ("load_model", "safetensors", "predict"),
        ("train", "accelerate", "train"),
    ):
        done = run_without([package], f"import cdkd_ext; cdkd_ext.{name}")
        expected = f"{package} is missing; cdkd_ext.{name} needs `pip install 'cdkd-ext[{extra}]'`"
        assert done.stderr.splitlines()[-1] == f"ModuleNotFoundError: {expected}"


def test_torch_may_be_what_is_missing(run_without, tmp_path) -> None:
    code = "import sys; from cdkd_ext.cli import main; sys.exit(main(['convert', 'a.pth', 'b.safetensors']))"
    done = run_without(["torch"], code)
    assert done.stderr.splitlines() == [
        "cdkd: torch is missing; `cdkd convert` needs `pip install torch`, but to predict with an exported file"
    ]


def test_a_package_of_no_extra_is_no_extra() -> None:
    assert missing_extra(ModuleNotFoundError("", name="cdkd_ext.nothing"), "it") is None
    assert missing_extra(ModuleNotFoundError(""), "it") is None
    found = missing_extra(ModuleNotFoundError("", name="cv2.dnn"), "it", "train")
    assert found == "cv2 is missing; it needs `pip install 'cdkd-ext[train]'`"


PREDICTION = """
import numpy as np
import cdkd_ext
from cdkd_ext.inference import draw_pose, read_image, save_image
from cdkd_ext.joints import MPII_JOINTS
from cdkd_ext.checkpoints import save_model

folder = sys.argv[1]
network = cdkd_ext.create_model("hrnet_w8_small", input_size=(32, 32), num_joints=16, joints=MPII_JOINTS)
save_model(network, folder + "/best.safetensors")
save_image(np.zeros((40, 50, 3), np.uint8), folder + "/image.png")
image = read_image(folder + "/image.png")
predictor = cdkd_ext.Predictor.load(folder)
poses = predictor(image, [(5, 5, 20, 30)])
assert poses.keypoints.shape == (1, 16, 2)
save_image(draw_pose(image, poses.keypoints[0], predictor.joints), folder + "/pose.png")
cdkd_ext.export(network, folder + "/official.pth")
"""


def test_predicting_needs_torch_numpy_opencv_and_safetensors_alone(run_without, tmp_path) -> None:
    done = run_without([name for name in EXTRAS if name not in PREDICT], PREDICTION, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "pose.png").stat().st_size > 0


def test_evaluating_in_one_process_needs_no_accelerate(run_without) -> None:
    done = run_without(
        ["accelerate", "jsonargparse", "rich", "tensorboard"], "import cdkd_ext; cdkd_ext.evaluate"
    )
    assert done.returncode == 0, done.stderr
