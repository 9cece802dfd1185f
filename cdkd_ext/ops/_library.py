"""Loads the compiled library that registers the `cdkd` operators, and is open to more kernels of theirs."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable
from typing import Any

import torch

from cdkd_ext.errors import check_option


def load() -> None:
    """Load the operators.

    Raises:
        ImportError: the library is missing or does not load, with the likely causes.
        InputError: the environment variable CDKD_ISA, which lowers the instruction set, is none of the known ones.
    """
    check_option("CDKD_ISA", os.environ.get("CDKD_ISA", "baseline"), ("baseline", "avx2", "avx512"))
    # find_spec and not __file__: in an editable install the library lies elsewhere
    spec = importlib.util.find_spec("cdkd_ext._ops")
    if spec is None or spec.origin is None:
        raise ImportError(
            "cdkd_ext: the compiled operators are not installed. Run `pip install .` in the checkout; "
            "do not import the package from the source folder without installing it."
        )
    try:
        torch.ops.load_library(spec.origin)
    except OSError as error:
        raise ImportError(
            f"cdkd_ext: {spec.origin} does not load under torch {torch.__version__}: {error}\n"
            "Likely causes: torch older than 2.10, or a library built on another system or C++ runtime. "
            "Rebuild with `pip install --force-reinstall --no-deps .`."
        ) from error


load()
library = torch.library.Library("cdkd", "IMPL")


def register_fake(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register what stands for an operator where tensors have no values; it need not look out for None.

    Torch takes None for a tensor of an operator's signature, and kernels refuse it by the argument's name.

    Args:
        name: of the operator, without its library's.
    """
    schema = getattr(torch.ops.cdkd, name).default._schema
    needed = [
        (place, argument.name)
        for place, argument in enumerate(schema.arguments)
        if str(argument.type) == "Tensor"
    ]

    def register(fake: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fake)
        def checked(*args: Any, **options: Any) -> Any:
            for place, argument in needed:
                if (args[place] if place < len(args) else options.get(argument)) is None:
                    raise TypeError(f"{argument}: expected a tensor, got None")
            return fake(*args, **options)

        return torch.library.register_fake(f"cdkd::{name}", checked)

    return register
