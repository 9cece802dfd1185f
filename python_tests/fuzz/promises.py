"""Reads files of a few bytes that promise more than any memory holds, with a gigabyte and some seconds each.

`python python_tests/fuzz/promises.py` prints as JSON what each ended with.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from bad_bytes import limit_memory, read_configuration, time_limit
from safetensors.torch import save

from cdkd_ext.checkpoints import load_model
from cdkd_ext.checkpoints.foreign import read_weights
from cdkd_ext.data import load_coco_persons
from cdkd_ext.errors import InputError
from cdkd_ext.joints import COCO_JOINTS, JointSet
from cdkd_ext.models import ModelSpec

NETWORK = ModelSpec(name="hrnet_w8_small", input_size=(32, 32), num_joints=17, joints=COCO_JOINTS).to_dict()
# nine lists, each of nine of the one before
ALIASES = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else 'x'] * 9)}]" for i in range(10))


def saved(content: object, *, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def described(**changes: object) -> bytes:
    metadata = {"cdkd_ext": json.dumps({"model": {**NETWORK, **changes}})}
    return save({"weight": torch.zeros(2)}, metadata)


def header(content: dict[str, object]) -> bytes:
    text = json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text


def deflated() -> bytes:
    """A torch file whose tensor is a gigabyte of zeros, compressed to a megabyte."""
    file = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved({"weight": torch.zeros(4)}))) as intact,
        zipfile.ZipFile(file, "w") as vast,
    ):
        for entry in intact.infolist():
            large = entry.filename.endswith("data/0")
            content = bytes(1 << 30) if large else intact.read(entry)
            vast.writestr(entry.filename, content, zipfile.ZIP_DEFLATED if large else zipfile.ZIP_STORED)
    return file.getvalue()


FILES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a safetensors header without an end": ("a.safetensors", lambda: (1 << 60).to_bytes(8, "little") + b"{"),
    "a safetensors header of a hundred gigabytes": (
        "a.safetensors",
        lambda: (10**11).to_bytes(8, "little") + b"{}",
    ),
    "a tensor of terabytes": (
        "a.safetensors",
        lambda: header({"weight": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}),
    ),
    "a network of many joints": ("a.safetensors", lambda: described(num_joints=10**9, joints=None)),
    "a network of large inputs": ("a.safetensors", lambda: described(input_size=[32 * 10**7, 32 * 10**7])),
    "a network of many channels": (
        "a.safetensors",
        lambda: described(name="resnet50_upsample_free", channels_per_joint=10**8),
    ),
    "a network of many bins": ("a.safetensors", lambda: described(split_ratio=1e9)),
    "a torch file cut to its directory": ("a.pth", lambda: saved({"weight": torch.zeros(1 << 20)})[-600:]),
    "an old torch file of terabytes": (
        "a.pth",
        lambda: saved({"weight": torch.zeros(77777)}, zipped=False).replace(
            (77777).to_bytes(4, "little"), (0x7FFFFFFF).to_bytes(4, "little")
        ),
    ),
    "a compressed torch file": ("a.pth", deflated),
    "joints by aliases": ("a.yaml", lambda: f"{ALIASES}\nkeypoints: *a9\n".encode()),
    "joints by nested lists": ("a.yaml", lambda: b"keypoints: " + b"[" * 20000),
    "mirrored pairs by aliases": (
        "a.yaml",
        lambda: (
            f"{ALIASES}\n{yaml.safe_dump(COCO_JOINTS.to_category())}".replace("flip_pairs:", "x:").encode()
            + b"flip_pairs: *a9\n"
        ),
    ),
    "a configuration by aliases": ("configuration.yaml", lambda: f"{ALIASES}\nmodel: *a9\n".encode()),
    "a configuration by nested lists": ("configuration.yaml", lambda: b"model: " + b"[" * 20000),
    "annotations by nested lists": ("a.json", lambda: b'{"images": ' + b"[" * 10**6),
    "annotations by long numbers": ("a.json", lambda: b'{"images": [{"id": ' + b"9" * 10**6 + b"}]}"),
}

READERS: dict[str, Callable[[Path], object]] = {
    ".safetensors": load_model,
    ".pth": read_weights,
    ".json": lambda path: load_coco_persons(path, path.parent),
    ".yaml": JointSet.from_yaml,
}


def outcome(path: Path) -> str:
    """What reading a file ends with: the message of an InputError, or something else."""
    read = read_configuration if path.name == "configuration.yaml" else READERS[path.suffix]
    try:
        with time_limit():
            read(path)
    except InputError as error:
        return f"InputError: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "read"


def main() -> None:
    """Read all files and print the outcomes."""
    torch.set_num_threads(1)
    outcomes = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for number, (name, (file, content)) in enumerate(FILES.items()):
            paths[name] = Path(folder) / str(number) / file
            paths[name].parent.mkdir()
            paths[name].write_bytes(content())
        limit_memory(1 << 30)
        for name, path in paths.items():
            outcomes[name] = outcome(path)
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
