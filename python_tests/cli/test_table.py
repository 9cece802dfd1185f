"""`cdkd table`, as a person runs it: lists, a small study on drawn people, and what goes wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cdkd_ext.cli import main
from cdkd_ext.tables import list_tables


@pytest.mark.parametrize("number", list_tables())
def test_it_lists_every_table(number: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", number, "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"Table {number}: ") and "boxes: ground truth" in printed
    assert not list(tmp_path.iterdir())


def test_it_prints_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["table", "10", "--list", "--rows", "cal_sape_32", "--seeds", "4", "--output", "OUT"]
    assert main(words) == 0
    teacher, student = capsys.readouterr().out.splitlines()
    assert teacher.startswith("cdkd train --recipe=mpii_w32_256_teacher --recipe=cal_mpii --data.root=DATA")
    assert student == (
        "cdkd distill --recipe=mpii_w32_32 --recipe=cal_mpii --recipe=only_sape --batch_size=256 "
        "--teacher=OUT/mpii_cal_256/last.safetensors --data.root=DATA --seed=4 --output OUT/mpii_cal_sape_32_seed4"
    )


def test_it_trains_what_is_missing_and_shows_it(
    drawn_people: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["table", "1", "--scale", "small", "--rows", "simcc_32", "cdkd_32", "--seeds", "0"]
    tiny = ["--model.name=hrnet_w8_small", "--epochs=1", "--data.views=1", "--data.workers=0", "--cpu=true"]
    output = ["--output", str(tmp_path)]
    assert main([*words, "--data.root", str(drawn_people), *output, *tiny]) == 0
    printed = capfd.readouterr().out
    assert "cdkd_32_seed0: finished" in printed and "3 of 3" in printed
    content = json.loads((tmp_path / "table_I.json").read_text())
    assert [row["name"] for row in content["rows"]] == ["simcc_32", "cdkd_32"]
    for row in content["rows"]:
        trained = json.loads((tmp_path / f"{row['run']}_seed0/metrics.json").read_text())["epochs"][-1]
        assert row["measured"]["mean"] == trained["pckh"]
        assert row["measured"]["interval"]["value"] == pytest.approx(trained["pckh"])
        assert row["measured"]["people"] == 12
    against = content["rows"][1]["measured"]["against"]
    means = [row["measured"]["mean"] for row in content["rows"]]
    assert against["value"] == pytest.approx(means[1] - means[0])
    assert (tmp_path / "table_I.png").is_file()
    assert main([*words, *output, "--data.root", str(drawn_people), "--against", "cdkd_32", *tiny]) == 0
    content = json.loads((tmp_path / "table_I.json").read_text())
    assert content["rows"][0]["measured"]["against"]["value"] == pytest.approx(means[0] - means[1])
    assert "-1.882 to cdkd_32" in capfd.readouterr().out
    # a part of the rows leaves the others in the files
    alone = [*words[:5], "simcc_32", *words[7:]]
    assert main([*alone, *output, "--data.root", str(drawn_people), *tiny]) == 0
    assert "cdkd_32 " not in capfd.readouterr().out
    content = json.loads((tmp_path / "table_I.json").read_text())
    assert [row["name"] for row in content["rows"]] == ["simcc_32", "cdkd_32"]
    assert content["root"] == str(drawn_people) and "--epochs=1" in " ".join(content["options"]).replace(
        " 1", "=1"
    )
    # finished runs are shown without their people, too
    assert main([*words, *output]) == 0
    shown = capfd.readouterr().out
    assert f"{means[0]:.2f} (1)" in shown and "starts" not in shown


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["11"], "number: expected a table of the paper"),
        (["1", "--rows", "simc_32"], "rows: expected one of"),
        (["1", "--against", "simcc_32", "hrnet_32"], "against: expected one row for each size"),
        (["1", "--data.root", "/d", "--epoch", "3"], "--epoch"),
        (["1", "--report_only", "--data.root", "/d"], "unrecognized arguments: --report_only"),
        (["1", "--data.root", "/d", "--report_only"], "unrecognized arguments: --report_only"),
        (["1", "--epochs", "--data.root", "/d"], "--epochs: expected one argument"),
        (["1", "--data.root", "/d", "--epochs", "many"], "epochs"),
        (["1", "--data.root", "/d", "--epochs", "0"], "epochs: expected a positive number, got 0"),
        (["1", "--data.root", "/none"], "data.root: expected an existing folder, got /none"),
        (["1", "--scale", "small", "--protocol", "equalised"], "protocol: expected"),
    ):
        assert main(["table", *words, "--output", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert message in error and len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()
    assert (
        main(["table", "1", "--data.root", str(tmp_path), "--rows", "simcc_32", "--output", "/proc/x"]) == 2
    )
    error = capsys.readouterr().err
    assert "output: expected a folder that can be written, got /proc/x: " in error
    assert len(error.splitlines()) == 1


def test_the_value_of_a_training_s_option_is_no_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text(
        "batch_size: 4\nmodel: {weights: own.yaml}\ndata: {cache: seen, detector: none.onnx}\n"
    )
    words = ["table", "--epochs", "2", "10", "--list", "--rows", "cal_sape_32", "--config", "own.yaml"]
    assert main([*words, "--data.joints=mpii"]) == 0
    printed = capsys.readouterr().out.splitlines()
    # what a run is begun with stays, in whatever folder it runs
    given = {
        "batch_size": 4,
        "model": {"weights": f"{tmp_path}/own.yaml"},
        "data": {"cache": f"{tmp_path}/seen", "detector": "none.onnx"},
    }
    assert all(
        f"--epochs 2 --config '{json.dumps(given)}' --data.joints mpii" in line for line in printed[:2]
    )
    assert printed[1].startswith("cdkd distill --recipe=mpii_w32_32 --recipe=cal_mpii --recipe=only_sape")
    # each run has a folder of its own, all have one cache
    assert main([*words, "--data.cache", "new"]) == 0
    assert f"--data.cache {tmp_path}/new" in capsys.readouterr().out
