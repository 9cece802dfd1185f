"""Loads the compiled library that registers the `cdkd` operators, and is open to more kernels of theirs."""

from __future__ import annotations

import importlib.util
import os

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
