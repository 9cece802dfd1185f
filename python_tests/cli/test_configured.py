"""Files and options of trainings, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cdkd_ext.cli import main
from cdkd_ext.cli.configured import gives_output, parse_configuration, training_parser
from cdkd_ext.data.loading import prepare_synthetic
from cdkd_ext.errors import InputError
from cdkd_ext.training import TrainingConfig
from cdkd_ext.training.shared import save_students


def test_options_in_words_may_be_longer_than_a_name_of_a_file() -> None:
    given = {"epochs": 7, "data": {"joints": "j" * 300}}
    words = ["--config", json.dumps(given)]
    config, _ = parse_configuration(training_parser("train"), TrainingConfig, words)
    assert config.epochs == 7 and config.data.joints == "j" * 300


def test_a_network_without_its_size_is_told_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.pth").touch()
    for words in (
        ["eval", "a.pth", "--data.root=people"],
        ["convert", "a.pth", "b.safetensors", "--joints=coco"],
    ):
        assert main([*words, "--model.name=hrnet_w16_small"]) == 2
        expected = "cdkd: model.input_size: expected a value beside the other options of model, got nothing\n"
        assert capsys.readouterr().err == expected


def test_where_a_run_is_may_stand_in_a_file(tmp_path: Path) -> None:
    own, other = tmp_path / "own.yaml", tmp_path / "other.yaml"
    own.write_text("output: elsewhere\n")
    other.write_text("epochs: 3\n")
    assert gives_output(["--epochs", "2", f"--config={own}"]) and gives_output(["--config", str(own)])
    assert gives_output(["--output=there"]) and gives_output(["--output", "there"])
    assert not gives_output(["--config", str(other), "--recipe", "lsp_student"])


@pytest.mark.parametrize(
    ("words", "content", "message"),
    [
        (["train", "--config", "FILE"], "epoch: 3", "train, got epoch; perhaps --epochs is meant"),
        (["train", "--config=FILE"], "data: {rot: a}", "train, got data.rot; perhaps --data.root is meant"),
        (["adapt", "--config", "FILE"], "step: 3", "adapt, got step; perhaps --steps is meant"),
        (["distill", "--students", "GOOD", "FILE"], "extra: 3", "distill, got extra"),
        (["eval", "run", "--config", "FILE"], "model: {nam: a}", "eval, got model.nam"),
    ],
)
def test_an_unknown_option_of_a_file_is_told_with_the_file_and_what_is_like_it(
    words: list[str], content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, file = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("epochs: 3\n")
    file.write_text(f"{content}\n")
    arguments = [word.replace("FILE", str(file)).replace("GOOD", str(good)) for word in words]
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"cdkd: {file}: expected options of cdkd {message}")
    assert error.endswith(message)


def test_an_unknown_option_in_words_is_told_with_what_is_like_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", '{"epoch": 3}']) == 2
    expected = "cdkd: options: expected options of cdkd train, got epoch; perhaps --epochs is meant\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_generator_takes_is_named(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--seed", str(seed), "--output", str(tmp_path / "run")]) == 2
    assert f"seed: expected an integer from 0 to 4294967295, got {seed}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_several_students_go_on_where_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("teacher: none.safetensors\n")
    save_students(tmp_path, 3, [str(tmp_path / "one"), str(tmp_path / "two")])
    assert main(["distill", "--resume", str(tmp_path), "--output", str(tmp_path / "other")]) == 2
    assert "output: expected nothing beside --resume" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_other_people_are_not_taken_for_those_that_are_drawn(tmp_path: Path) -> None:
    folder = prepare_synthetic(tmp_path, 3)
    assert prepare_synthetic(tmp_path, 3) == folder
    for options in ({"count": 4}, {"count": 3, "validation": 2}, {"count": 3, "seed": 1}):
        with pytest.raises(InputError, match=r"data.synthetic_people: expected as many of the same seed"):
            prepare_synthetic(tmp_path, **options)


def test_a_run_with_a_teacher_goes_on_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("teacher: none.safetensors\nteacher_options: {preset: hrnet}\n")
    assert main(["train", "--resume", str(tmp_path)]) == 2
    expected = (
        f"cdkd: resume: expected the folder of a `cdkd train` run, or `cdkd distill --resume {tmp_path}`"
    )
    assert capsys.readouterr().err.startswith(expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["models", "--input_size", "foo"], "expected height and width, such as [64,64], got foo"),
        (["info", "--sizes", "{"], "expected sizes by name as JSON, got {"),
        (["info", "--sizes", "3"], "expected sizes by name as JSON, got 3"),
    ],
)
def test_a_value_that_is_no_json_is_told(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err
