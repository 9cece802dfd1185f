"""The numeric tests once more, each in a library that a sanitizer watches."""

from __future__ import annotations

from pathlib import Path

import kernel_build
import pytest

# halves that take about as long
OPS = [["sau_select"], ["cca_kl", "scale_rows", "simcc_kl", "simcc_decode", "projector_cosine"]]


@pytest.mark.long
@pytest.mark.parametrize("variant", ["address", "thread"])
@pytest.mark.parametrize("ops", OPS, ids="-".join)
def test_clean(builds: Path, variant: str, ops: list[str]) -> None:
    library = kernel_build.build(variant, builds)
    files = [f"test_{op}.py" for op in ops]
    arguments = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--import-mode=importlib", *files]
    # in one order of threads: neither sanitizer needs a bug to happen in order to see it
    done = kernel_build.run_python(variant, library, arguments, schedules=1)
    if "unexpected memory mapping" in done.stderr or "failed to set personality" in done.stderr:
        pytest.skip(f"the sanitizer does not start here: {done.stderr.strip()[:200]}")
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout
