"""Stage 2: the package, compiled for the GPU that is here and no other, into runs/gpu/site."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

from bench import CHECKOUT
from bench.gpu.report import Findings, stage_options


def main() -> None:
    """Build, and say what the build has; a dry run looks at the build that is there."""
    options, findings = stage_options("build")
    if not options.dry_run:
        import torch

        major, minor = torch.cuda.get_device_capability()
        site = options.output / "site"
        shutil.rmtree(site, ignore_errors=True)
        started = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "pip", *pip_arguments(str(site))],
            cwd=CHECKOUT,
            env={
                **os.environ,
                "CMAKE_ARGS": cmake_arguments(major, minor),
                "CMAKE_BUILD_PARALLEL_LEVEL": _cores(),
            },
            check=True,
        )
        findings.notes.append(f"Built for {major}.{minor} in {time.monotonic() - started:.0f} s.")
    describe(findings)


def cmake_arguments(major: int, minor: int) -> str:
    """Options of the build for one architecture."""
    return f"-DCDKD_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES={major}{minor}-real"


def pip_arguments(site: str) -> list[str]:
    """An installation beside everything else, from what is here alone."""
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    return ["install", "--quiet", *offline, "--target", site, str(CHECKOUT)]


def describe(findings: Findings) -> None:
    """Ask the build, in a process that sees it first."""
    code = "import json; from cdkd_ext._C import build_info; print(json.dumps(build_info()))"
    site = str(findings.file.parent / "site")
    paths = os.pathsep.join(filter(None, [site, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=findings.file.parent,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        findings.write(done.stderr.strip().splitlines()[-1])
        sys.exit(1)
    findings.write(done.stdout.strip())


def _cores() -> str:
    return str(os.cpu_count() or 2)


if __name__ == "__main__":
    main()
