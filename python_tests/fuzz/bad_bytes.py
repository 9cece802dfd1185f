"""Damaged files of every kind that the package reads: `python python_tests/fuzz/bad_bytes.py --count 2000`.

A reader may accept a file or raise an InputError of one line. Nothing else, nothing in the file is executed, and no
file takes long or much memory.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import pickle
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from mutations import mutate
from safetensors.torch import save

from cdkd_ext.checkpoints import load_model
from cdkd_ext.checkpoints.foreign import read_weights
from cdkd_ext.data import load_coco_detections, load_coco_persons, load_mpii_persons
from cdkd_ext.errors import InputError
from cdkd_ext.images import encode_image, read_image
from cdkd_ext.joints import COCO_JOINTS, JointSet
from cdkd_ext.models import create_model
from cdkd_ext.models.spec import ModelSpec
from cdkd_ext.training.state import load_state

SECONDS = 10.0  # of the processor, for one file; it takes some milliseconds
MEMORY = 2 << 30  # beyond what the process holds when it begins
_NETWORK = ModelSpec(name="hrnet_w8_small", input_size=(32, 32), num_joints=17, joints=COCO_JOINTS)


class FindingError(AssertionError):
    """What no damaged file may cause."""


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        suffix: of the file's name.
        intact: contents of intact files.
        read: reads a file and raises InputError where it cannot.
        text: whether the file is text.
    """

    suffix: str
    intact: list[bytes]
    read: Callable[[Path], object]
    text: bool = False


class _Payload:
    """Unpickled, it leaves a file behind."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.canary,)


def kinds(folder: Path) -> dict[str, Kind]:
    """All kinds of files, their intact examples made in `folder`."""
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    (folder / "image.png").write_bytes(encode_image(image, ".png"))
    annotations = _annotations()
    annotation_file = folder / "annotations.json"
    annotation_file.write_text(json.dumps(annotations))
    boxes = [{"image_id": 1, "category_id": 1, "bbox": [3, 4, 20, 30], "score": 0.5}] * 2
    network = create_model(_NETWORK)
    progressive = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    restarts = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_RST_INTERVAL, 2])[1].tobytes()
    others = [encode_image(image, suffix) for suffix in (".png", ".bmp", ".webp", ".tiff", ".ppm")]
    return {
        "jpeg": Kind(".jpg", [encode_image(image, ".jpg"), progressive, restarts], read_image),
        "other images": Kind(".img", others, read_image),
        "annotations": Kind(
            ".json", [json.dumps(annotations).encode()], lambda path: load_coco_persons(path, folder), True
        ),
        "boxes": Kind(
            ".json",
            [json.dumps(boxes).encode()],
            lambda path: load_coco_detections(annotation_file, folder, path),
            True,
        ),
        "MPII annotations": Kind(
            ".json", [json.dumps(_mpii()).encode()], lambda path: load_mpii_persons(path, folder), True
        ),
        "joints": Kind(
            ".yaml", [yaml.safe_dump(COCO_JOINTS.to_category()).encode()], JointSet.from_yaml, True
        ),
        "configuration": Kind(".yaml", [_configuration(folder)], read_configuration, True),
        "safetensors": Kind(".safetensors", [_safetensors(network)], _read_checkpoint(network)),
        "torch": Kind(".pth", _torch_files(network, folder / "canary"), read_weights),
        "run's state": Kind(".pt", _states(folder / "canary"), load_state),
    }


def _annotations() -> dict[str, Any]:
    person = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "keypoints": [5, 6, 2] * 17,
        "num_keypoints": 17,
        "bbox": [2, 3, 30, 30],
        "area": 900,
        "iscrowd": 0,
        "head_size": 7.5,
    }
    return {
        "images": [{"id": 1, "file_name": "image.png", "height": 40, "width": 60}],
        "annotations": [person, {**person, "id": 2}],
        "categories": [{"id": 1, "name": "person", **COCO_JOINTS.to_category()}],
    }


def _mpii() -> list[dict[str, Any]]:
    joints = {"joints": [[9.0, 8.0]] * 16, "joints_vis": [1] * 16}
    return [{"image": "image.png", "center": [20.0, 20.0], "scale": 0.2, **joints}] * 2


def _configuration(folder: Path) -> bytes:
    options = {
        "data": {"root": str(folder / "nothing here"), "format": "coco", "padding": 1.25},
        "model": {"name": "hrnet_w8_small", "input_size": [32, 32], "head": "simcc", "split_ratio": 2.0},
        "epochs": 2,
        "batch_size": 4,
        "output": "run",
    }
    return yaml.safe_dump(options).encode()


def read_configuration(path: Path) -> None:
    """Let the command line read a configuration whose data do not exist, as a user would."""
    from cdkd_ext.cli import main

    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = main(["train", "--config", str(path), "--data.root", str(path.parent / "nothing here")])
    if status != 2:
        raise FindingError(f"a training without data ended with {status}")
    raise InputError(said.getvalue().strip())


def _safetensors(network: torch.nn.Module) -> bytes:
    metadata = {"cdkd_ext": json.dumps({"model": _NETWORK.to_dict()})}
    return save(network.state_dict(), metadata)


def _read_checkpoint(network: Any) -> Callable[[Path], object]:
    def read(path: Path) -> None:
        with contextlib.suppress(InputError):
            read_weights(path)
        load_model(path)

    return read


def _torch_files(network: torch.nn.Module, canary: Path) -> list[bytes]:
    weights = {
        name: value for name, value in network.state_dict().items() if name.startswith(("conv", "final"))
    }
    return [
        _saved({"state_dict": weights, "epoch": 3, "meta": {"seed": 1}}),
        _saved(weights, _use_new_zipfile_serialization=False),
        _saved({"state_dict": weights, "hook": _Payload(canary)}),
        pickle.dumps({"state_dict": _Payload(canary)}),
    ]


def _states(canary: Path) -> list[bytes]:
    state = {"epoch": 1, "model": {"weight": torch.zeros(3, 4)}, "generator": torch.get_rng_state()}
    return [_saved(state), _saved({**state, "hook": _Payload(canary)})]


def _saved(content: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def run(kind: str, seed: int, first: int, count: int) -> Counter[str]:
    """Read damaged files of a kind, numbers `first` to `first + count` of a seed's sequence.

    Raises:
        FindingError: with the command that reads the file again.
    """
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        folder = Path(name)
        chosen = kinds(folder)[kind]
        for i in range(first, first + count):
            rng = random.Random(f"{kind} {seed}/{i}")
            path = folder / f"damaged{chosen.suffix}"
            path.write_bytes(mutate(rng.choice(chosen.intact), rng, text=chosen.text))
            try:
                counts[_outcome(chosen, path)] += 1
                if (folder / "canary").exists():
                    raise FindingError("the file was executed")
            except FindingError as finding:
                again = f"python python_tests/fuzz/bad_bytes.py --kind '{kind}' --seed {seed} --first {i} --count 1"
                raise FindingError(f"{again}: {finding}") from finding
            path.unlink()
    return counts


def _outcome(kind: Kind, path: Path) -> str:
    began = time.process_time()
    try:
        with time_limit():
            kind.read(path)
    except InputError as error:
        if len(str(error).splitlines()) != 1 or len(str(error)) > 2000:
            raise FindingError(
                f"a message of several lines, or a very long one: {str(error)[:2000]!r}"
            ) from error
        return "refused"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise FindingError(
            f"{type(error).__name__}: {str(error)[:300]} ({where.filename}:{where.lineno})"
        ) from error
    finally:
        if time.process_time() - began > SECONDS / 4:
            print(f"{kind.suffix}: {time.process_time() - began:.1f} s", file=sys.stderr)
    return "read"


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """Raise TimeoutError after SECONDS of this process's own time."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    previous = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)


def limit_memory(more: int) -> None:
    """Let this process map no more than `more` bytes beyond what it maps already."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (mapped + more, mapped + more))


def main() -> None:
    """Parse the command line, read the files and print the outcomes as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", help="one kind of file; all without")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=200, help="files of each kind")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    limit_memory(MEMORY)
    with tempfile.TemporaryDirectory() as folder:
        names = [arguments.kind] if arguments.kind else list(kinds(Path(folder)))
    outcomes = {}
    for name in names:
        try:
            outcomes[name] = run(name, arguments.seed, arguments.first, arguments.count)
        except FindingError as finding:
            sys.exit(str(finding))
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
