"""How a training stops before its end."""

from __future__ import annotations


class NonFiniteLossError(ArithmeticError):
    """A term of the loss became infinite or NaN."""


class InterruptedRun(Exception):  # noqa: N818 (not an error: the user asked for it)
    """Ctrl-C, or SIGTERM raised as `cdkd_ext.errors.Terminated`; the last checkpoint is kept.

    Args:
        message: where it stopped and what is kept.
        terminated: whether it was SIGTERM.
    """

    def __init__(self, message: str, *, terminated: bool = False) -> None:
        super().__init__(message)
        self.terminated = terminated
