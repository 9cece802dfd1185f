"""The files that a run leaves in its folder, and needs to go on."""

from __future__ import annotations

from pathlib import Path

from cdkd_ext.errors import check

STATE = "state.pt"
# in the order in which a copy is made: the state comes last
RUN_FILES = ("config.yaml", "best.safetensors", "last.safetensors", "metrics.json", STATE)


def check_no_run_file(argument: str, path: str) -> None:
    """Check that a file to write is none of a run's.

    Raises:
        InputError: names the argument and the run.
    """
    file = Path(path).resolve()
    of_run = file.name in RUN_FILES and (file.parent / RUN_FILES[0]).is_file()
    check(not of_run, argument, f"{path}, a file of the run {file.parent}", "a file of its own")
