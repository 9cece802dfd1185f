"""Low-resolution human pose estimation by cross-domain knowledge distillation."""

from importlib.metadata import version as _version

__version__ = _version("cdkd-ext")
