"""Names of a package that are imported when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def late_names(
    namespace: dict[str, Any], places: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the functions `__getattr__` and `__dir__` of a package (PEP 562).

    Args:
        namespace: `globals()` of the package, which keeps what was imported.
        places: the module of each name, without the leading ``cdkd_ext.``.

    Example:
        ```python
        __getattr__, __dir__ = late_names(globals(), {"Predictor": "inference.predictor"})
        ```
    """

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {namespace['__name__']!r} has no attribute {name!r}")
        namespace[name] = getattr(import_module(f"cdkd_ext.{places[name]}"), name)
        return namespace[name]

    def names() -> list[str]:
        return sorted({*namespace, *places})

    return get, names
