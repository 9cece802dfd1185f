from __future__ import annotations

import re

import pytest

from bench.__main__ import main
from bench.harness.benchmark import FOLDER, load, names


def test_unknown_name_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bench", "cca_kll"])
    with pytest.raises(SystemExit):
        main()
    assert re.search("name some of cca_kl, .*, or --all", capsys.readouterr().err)


def test_every_module_of_the_folder_is_a_benchmark_of_its_name():
    assert {"cca_kl", "simcc_kl", "simcc_decode", "sau_select", "projector_cosine", "step"} <= set(names())
    assert set(names()) == {path.stem for path in FOLDER.glob("*.py")} - {"__init__", "__main__"}
    for name in names():
        assert load(name).name == name
