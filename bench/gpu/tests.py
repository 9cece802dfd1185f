"""Stage 3: `pytest -m gpu`, against the package that stage 2 installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter

from bench import CHECKOUT
from bench.gpu.report import stage_options

_PLUGIN = CHECKOUT / "bench" / "gpu" / "pytest_plugin"
_OUTCOME = re.compile(r"^(\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b")


def main() -> None:
    """Run the tests, counting each outcome as it is printed."""
    options, findings = stage_options("tests")
    # the working folder is first on the path of `python -m`, where the source folder would hide the package
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *pytest_arguments()],
        cwd=options.output,
        # the plugin lies apart: what lies beside it would hide other modules
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(_PLUGIN)])},
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
    findings.write(summary(counts) or "no tests ran")
    sys.exit(code)


def pytest_arguments() -> list[str]:
    """The files that hold tests for a GPU: others might need packages that are not here."""
    tests = sorted((CHECKOUT / "python_tests").rglob("test_*.py"))
    where = [str(path) for path in tests if "mark.gpu" in path.read_text()]
    settings = [
        "-c",
        str(CHECKOUT / "pyproject.toml"),
        "-p",
        "no:cacheprovider",
        "-p",
        "tell_failures",
        "--continue-on-collection-errors",
    ]
    return [*where, "-m", "gpu", "-v", "--color=no", *settings]


def summary(counts: Counter[str]) -> str:
    """`12 passed, 1 failed`."""
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items())


if __name__ == "__main__":
    main()
