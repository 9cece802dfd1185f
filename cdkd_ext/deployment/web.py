"""An exported network as a page that runs it in a browser."""

from __future__ import annotations

import json
import os
import shutil
from importlib.resources import files
from pathlib import Path

from cdkd_ext.errors import check, fail
from cdkd_ext.files import new_folder
from cdkd_ext.inference import ExportedNetwork
from cdkd_ext.joint_sides import split_side
from cdkd_ext.onnx_file import OnnxFile

# of the npm package onnxruntime-web, beside the page
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
_MODEL = "model.onnx"


def check_runtime(runtime: str | os.PathLike[str] | None) -> Path:
    """Return the folder with onnxruntime-web's files.

    Args:
        runtime: the folder ``dist`` of the npm package onnxruntime-web.

    Raises:
        InputError: it is not given, or lacks a file.
    """
    expected = "the folder dist of the npm package onnxruntime-web (`npm pack onnxruntime-web` gets it)"
    if runtime is None:
        fail("web_runtime", "nothing", expected)
    for name in RUNTIME_FILES:
        check((Path(runtime) / name).is_file(), "web_runtime", f"{runtime}, without {name}", expected)
    return Path(runtime)


def check_new_folder(folder: str | os.PathLike[str]) -> Path:
    """The folder of a page, which has to be new.

    Raises:
        InputError: it has something in it, or is a file.
    """
    target = Path(folder)
    empty = not target.exists() or (target.is_dir() and not any(target.iterdir()))
    check(empty, "web", f"{target}, which is there", "a new or empty folder")
    return target


def write_web_page(
    model: str | os.PathLike[str], folder: str | os.PathLike[str], runtime: str | os.PathLike[str] | None
) -> Path:
    """Write a folder with a page that runs an exported network on images and the camera, without any other server.

    Browsers run it from a server alone, such as ``python -m http.server``, not from a file.

    Args:
        model: an ONNX file that `export_network` wrote.
        folder: the new folder.
        runtime: see `check_runtime`.

    Returns:
        The page.

    Raises:
        InputError: the file is none of `export_network`, the runtime is not there, or the folder has something in it.
    """
    source = check_runtime(runtime)
    network = ExportedNetwork(OnnxFile(model, cpu=True))
    target = check_new_folder(folder)
    page = files("cdkd_ext.deployment").joinpath("page.html").read_text(encoding="utf-8")
    description = json.dumps(_described(network)).replace("<", "\\u003c")
    with new_folder(target) as temporary:
        (temporary / "index.html").write_text(page.replace('"DESCRIPTION"', description), encoding="utf-8")
        shutil.copyfile(model, temporary / _MODEL)
        for name in RUNTIME_FILES:
            shutil.copyfile(source / name, temporary / name)
    return target / "index.html"


def _described(network: ExportedNetwork) -> dict[str, object]:
    """What the page has to know."""
    joints = network.joints
    return {
        "size": list(network.input_size),
        "padding": network.padding,
        "resample": network.resample,
        "unbiased": network.unbiased_crop,
        "threshold": network.score_threshold,
        "joints": list(joints.names),
        "sides": [split_side(name)[0] or "middle" for name in joints.names],
        "edges": [list(edge) for edge in joints.edges],
    }
