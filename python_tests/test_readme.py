"""The README's snippets, run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cdkd_ext.cli import main

README = Path(__file__).resolve().parents[1] / "README.md"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
# the commands as printed take minutes; these make them small without changing what they do
SMALLER = [
    "--epochs=1",
    "--batch_size=8",
    "--model.name=hrnet_w8_small",
    "--data.workers=1",
    "--data.synthetic_people=16",
]


def snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.M | re.S)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return tmp_path_factory.mktemp("readme")


def run(command, folder):
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def commands():
    """Arguments of the printed `cdkd` commands: those that need nothing but each other, and the rest."""
    lines = [line for snippet in snippets("sh") for line in snippet.splitlines() if line.startswith("cdkd ")]
    parsed = [[part.strip('"') for part in re.findall(r'"[^"]*"|\S+', line)][1:] for line in lines]
    own = [arguments for arguments in parsed if any("runs/teacher" in argument for argument in arguments)]
    return own, [arguments for arguments in parsed if arguments not in own]


def test_commands_and_then_snippets(workplace):
    own, _ = commands()
    assert len(own) == 3
    for arguments in own:
        smaller = [] if arguments[0] == "eval" else SMALLER
        run([sys.executable, "-m", "cdkd_ext.cli", *arguments, *smaller], workplace)
    python = snippets("python")
    assert len(python) == 3
    for snippet in python:
        run([sys.executable, "-c", snippet], workplace)
    assert (workplace / "pose.png").stat().st_size > 1000


def test_commands_that_need_other_files_have_options_that_exist(workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    _, others = commands()
    assert len(others) == 4
    for arguments in others:
        if arguments[0] == "convert":
            assert main(arguments) == 2
            assert capsys.readouterr().err.startswith(f"cdkd: {arguments[1]}: ")
        else:
            with pytest.raises(SystemExit, match=r"^0$"):
                main([*arguments, "--print_config"])


def test_make_targets_that_it_names_exist():
    makefile = (README.parent / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", "\n".join(snippets("sh")), re.M):
        assert re.search(rf"^{target}:", makefile, re.M)


def test_pictures_that_it_shows_exist():
    shown = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README.read_text())
    assert shown
    for path in shown:
        assert (README.parent / path).is_file(), path


def test_pages_that_it_links_to_exist():
    for path in re.findall(r"\]\(([^):]+)\)", README.read_text()):
        assert (README.parent / path).exists(), path
