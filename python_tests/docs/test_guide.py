"""The guide's snippets run, and the options that the pages name exist."""

from __future__ import annotations

import re

import pytest

# options of programs that are not ours
OTHERS = {"multi_gpu", "no_python", "num_processes"}


@pytest.fixture(scope="module")
def pages(checkout):
    files = [checkout / "README.md", *(checkout / "docs").rglob("*.md")]
    return {path.relative_to(checkout).as_posix(): path.read_text() for path in files}


def test_snippets_of_distillation(pages):
    torch = pytest.importorskip("torch")
    import cdkd_ext
    from cdkd_ext.distillation import TeacherOutput
    from cdkd_ext.training import DistillationTask

    student, teacher = (
        cdkd_ext.create_model("hrnet_w8_small", input_size=(side, side), num_joints=4) for side in (32, 64)
    )
    scope = {
        "cdkd_ext": cdkd_ext,
        "student": student,
        "teacher": teacher,
        "my_network": lambda crops: (crops, torch.zeros(2, 4, 192), torch.zeros(2, 4, 192)),
    }
    snippets = re.findall(r"^```python\n(.*?)^```", pages["docs/guide/distil.md"], re.M | re.S)
    assert len(snippets) == 2
    for snippet in snippets:
        exec(snippet, scope)
        assert isinstance(scope["task"], DistillationTask)
    assert isinstance(scope["foreign"](torch.zeros(2, 3, 64, 64, dtype=torch.uint8)), TeacherOutput)
    small, large = (torch.zeros(2, 3, side, side, dtype=torch.uint8) for side in (32, 64))
    losses = scope["task"](small, large, torch.rand(2, 4, 2) * 31, torch.ones(2, 4))
    assert "cca" in losses and "sape" not in losses


def test_the_snippet_of_ones_own_teacher(pages):
    torch = pytest.importorskip("torch")
    import cdkd_ext
    from cdkd_ext.joints import MPII_JOINTS

    student = cdkd_ext.create_model("hrnet_w8_small", input_size=(32, 32), num_joints=16, joints=MPII_JOINTS)
    scope = {"cdkd_ext": cdkd_ext, "student": student, "my_network": torch.nn.Conv2d(3, 17, 4, 4)}
    (snippet,) = re.findall(r"^```python\n(.*?)^```", pages["docs/guide/own-teacher.md"], re.M | re.S)
    exec(snippet, scope)
    small, large = (torch.zeros(2, 3, side, side, dtype=torch.uint8) for side in (32, 256))
    losses = scope["task"](small, large, torch.zeros(2, 16, 2), torch.zeros(2, 16))
    assert losses["cca"] > 0


def test_the_description_in_the_guide_is_one(pages):
    yaml = pytest.importorskip("yaml")
    from cdkd_ext.teachers import TeacherDescription

    (shown,) = re.findall(r"^```yaml\n(.*?)^```", pages["docs/guide/own-teacher.md"], re.M | re.S)
    fields = yaml.safe_load(shown)
    assert fields.pop("file") == "thunder.onnx"
    assert TeacherDescription.from_dict(fields, "guide").offset_order == "yx"


def test_options_of_the_command_line_exist(pages, capsys):
    from cdkd_ext.cli import main

    known = set()
    for command in (
        "distill",
        "adapt",
        "teacher",
        "eval",
        "predict",
        "export",
        "report",
        "convert",
        "info",
        "cache plan",
        "study lsp",
    ):
        with pytest.raises(SystemExit, match=r"^0$"):
            main([*command.split(), "--help"])
        known |= set(re.findall(r"--([\w.]+)", capsys.readouterr().out))
    for name, page in pages.items():
        named = set(re.findall(r"(?<![\w-])--([a-z]+[._][a-z_.0-9]*[a-z0-9])(?![\w-])", page))
        assert named - known - OTHERS == set(), name
