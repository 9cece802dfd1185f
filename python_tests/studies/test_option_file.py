"""Options that several runs share: paths are those of the folder in which somebody typed the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdkd_ext.errors import InputError
from cdkd_ext.studies.option_file import read_options


def test_paths_that_are_there_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("weights.pth", "street", "yard", "lowres_small"):
        Path(name).touch()
    Path("own.yaml").write_text(
        "model: {name: lowres_small, weights: weights.pth}\n"
        "data: {images: [street, yard, gone], cache: new, detector: gone.onnx, joints: coco}\nepochs: 2\n"
    )
    here = str(tmp_path)
    assert read_options("options", "own.yaml") == {
        "model": {"name": "lowres_small", "weights": f"{here}/weights.pth"},
        "data": {
            "images": [f"{here}/street", f"{here}/yard", "gone"],
            "cache": f"{here}/new",
            "detector": "gone.onnx",
            "joints": "coco",
        },
        "epochs": 2,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 3", "options: expected a YAML mapping of options, got own.yaml"),
        (
            "model: {weights: 2020-01-01}",
            "options: expected options as they are typed, got own.yaml with a value",
        ),
    ],
)
def test_what_is_no_mapping_of_options_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_options("options", "own.yaml")
