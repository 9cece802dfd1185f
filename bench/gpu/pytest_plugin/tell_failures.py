"""A pytest plugin: why a test failed is printed at once, so that a later crash of the process does not take it along."""

from __future__ import annotations

from typing import Any


def pytest_runtest_logreport(report: Any) -> None:
    """Print the end of a failure's text."""
    if report.failed:
        print(f"\n{report.longreprtext[-3000:]}\n", flush=True)
