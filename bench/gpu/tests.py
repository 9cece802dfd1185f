"""Stage 3: `pytest -m gpu`, against the package that stage 2 installed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter

from bench import CHECKOUT
from bench.gpu.report import stage_options

_OUTCOME = re.compile(r"^(\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b")


def main() -> None:
    """Run the tests, counting each outcome as it is printed."""
    options, findings = stage_options("tests")
    # the working folder is first on the path of `python -m`, where the source folder would hide the package
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *pytest_arguments(dry_run=options.dry_run)],
        cwd=options.output,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    counts: Counter[str] = Counter()
    table = findings.table("Tests that failed", ["test"])
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        found = _OUTCOME.match(line)
        if found:
            counts[found[2].lower()] += 1
            if found[2] in ("FAILED", "ERROR"):
                table["rows"].append([found[1]])
            findings.write(summary(counts))
    if not table["rows"]:
        findings.tables.clear()
    code = process.wait()
    none = code == 5  # what pytest returns when no test was chosen
    findings.write("no tests ran" if not counts else summary(counts))
    sys.exit(0 if none and options.dry_run else code)


def pytest_arguments(*, dry_run: bool) -> list[str]:
    """All tests that need a GPU; in a dry run, those of the ops, which are skipped."""
    tests = CHECKOUT / "python_tests"
    where = (
        [str(tests / "ops" / "test_gpu.py")] if dry_run else [str(tests), "--continue-on-collection-errors"]
    )
    return [
        *where,
        "-m",
        "gpu",
        "-v",
        "--color=no",
        "-p",
        "no:cacheprovider",
        "-c",
        str(CHECKOUT / "pyproject.toml"),
    ]


def summary(counts: Counter[str]) -> str:
    """`12 passed, 1 failed`."""
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items())


if __name__ == "__main__":
    main()
