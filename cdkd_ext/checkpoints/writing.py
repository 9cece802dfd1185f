"""Files of tensors, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cdkd_ext.errors import fail
from cdkd_ext.files import replacing

_EXPECTED = "a disk that takes it"


def write_safetensors(
    tensors: dict[str, Tensor], path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors by name, and texts beside them.

    Raises:
        InputError: the folder cannot be written or is full.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, None if metadata is None else dict(metadata))
        except SafetensorError as error:
            fail(str(path), error, _EXPECTED)


def write_torch(content: Any, path: str | os.PathLike[str]) -> None:
    """Write what `torch.save` takes.

    Raises:
        InputError: the folder cannot be written or is full.
    """
    with replacing(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # what torch's writer makes of a full disk
            fail(str(path), str(error).splitlines()[0], _EXPECTED)
