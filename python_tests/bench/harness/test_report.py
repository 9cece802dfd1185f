from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest

from bench.harness import goals, report
from bench.harness.benchmark import load, names
from bench.harness.table import print_bench
from cdkd_ext.errors import InputError


def case(group, batch, ours, eager, **changed):
    sizes = {"batch": batch, "joints": 17, "bins": 192}
    return {
        "group": group,
        "sizes": sizes,
        "variant": "",
        "dtype": "float32",
        "backward": False,
        "threads": 1,
        "title": f"batch {batch}",
        "input_bytes": 1000,
        "samples": {"cdkd_ext": ours, "eager": eager},
        "floor": {"read": [1.0, 1.0, 1.0], "exponentials": [3.0, 3.0, 3.0]},
        "context": {},
        **changed,
    }


RUN = {
    "machine": {"processor": "abacus", "cores": "2"},
    "benches": [
        {
            "name": "simcc_decode",
            "title": "keypoints",
            "cases": [
                case(
                    "paper",
                    256,
                    [8.0, 4.0, 6.0],
                    [80.0, 40.0, 30.0],
                    extra_bytes={"cdkd_ext": 10, "eager": 2500},
                    context={"a loop": [4.0, 2.0, 3.0]},
                    profile={"part": {"sum": 0.75, "peak": 0.25}},
                ),
                case("paper", 256, [5.0, 5.0, 5.0], [5.0, 5.0, 5.0], threads=2, floor={}),
                case("batch", 1, [2.0, 2.0, 2.0], [3.0, 3.0, 3.0]),
                case("batch", 256, [5.0, 5.0, 5.0], [50.0, 50.0, 50.0]),
            ],
        }
    ],
}

EXPECTED = """\
## Machine

|  |  |
|---|---|
| processor | abacus |
| cores | 2 |

## Goals

| goal | wanted | measured |  | the case's distance from its floor |
|---|---|---|---|---|
| simcc_decode, 8704 rows of 192 bins: against eager | ≥ 8 | 10.0 | reached | 1.50 floors (read 25%, exponentials 75%) |
| simcc_decode, 8704 rows of 192 bins: against numpy | ≥ 10 | not measured |  |  |
| simcc_decode: paper's sizes, float32, one and two threads, in floors | ≤ 1.4 | 1.50 | **not reached** | 1.50 \
floors (read 25%, exponentials 75%) |

## Growth

![Time against each size](page.png)

## `simcc_decode`: keypoints

Floor: read + exponentials.

### The paper's students

| case | threads | cdkd_ext ÷ floor | eager | a loop | memory: cdkd_ext | memory: eager |
|---|---|---|---|---|---|---|
| batch 256 | 1 | 1.50 (1.25 to 1.75) | 10.0 (7.50 to 10.0) | 0.50 (0.50 to 0.50) | 0.01 | 2.50 |
| batch 256 | 2 |  | 1.00 (1.00 to 1.00) |  |  |  |

### Growing batch

| case | cdkd_ext, the first = 1 | cdkd_ext ÷ floor | eager |
|---|---|---|---|
| batch 1 | 1.00 | 0.50 (0.50 to 0.50) | 1.50 (1.50 to 1.50) |
| batch 256 | 2.50 | 1.25 (1.25 to 1.25) | 10.0 (10.0 to 10.0) |

### Share of cdkd_ext's time by part

| part | batch 256 |
|---|---|
| sum | 75.0% |
| peak | 25.0% |

## Tried

- Luck.
"""


def test_page(tmp_path):
    near = goals.Goal(
        "simcc_decode: paper's sizes, float32, one and two threads, in floors",
        lambda row: row["group"] == "paper",
        goals.in_floors,
        1.4,
        at_least=False,
    )
    bench = load("simcc_decode")
    chosen = [goal for goal in bench.goals if goal.what.startswith("simcc_decode, 8704")]
    benches = [replace(bench, goals=[*chosen, near])]
    report.write_report(RUN, tmp_path / "page.md", "\n## Tried\n\n- Luck.\n\n", benches)
    text = (tmp_path / "page.md").read_text()
    assert text.startswith("# Performance\n\nMade by `make bench`")
    assert text[text.index("## Machine") :] == EXPECTED
    assert (tmp_path / "page.png").stat().st_size > 5000


def test_command_merges_files_and_names_its_notes(python, tmp_path):
    older = copy.deepcopy(RUN)
    older["benches"][0]["title"] = "old"
    older["benches"].append({**copy.deepcopy(RUN["benches"][0]), "name": "cca_kl", "title": "kept"})
    (tmp_path / "older.json").write_text(json.dumps(older))
    (tmp_path / "newer.json").write_text(json.dumps(RUN))
    python(
        *("-m", "bench.harness.report", tmp_path / "older.json", tmp_path / "newer.json"),
        *("--output", tmp_path / "page.md"),
    )
    text = (tmp_path / "page.md").read_text()
    assert "`simcc_decode`: keypoints" in text
    assert "`cca_kl`: kept" in text
    assert text.endswith(report.NOTES.read_text())


def test_runs_of_different_machines_do_not_mix():
    with pytest.raises(InputError, match=r"samples: expected all from .*abacus.*, got .*slide rule"):
        report.merge([RUN, {**RUN, "machine": {"processor": "slide rule"}}])


def test_goals_take_the_worst_case_and_find_each_competitor():
    slow, quick = case("one sample", 1, [2.0], [1.0]), case("one sample", 1, [2.0], [9.0])
    quick["samples"]["numpy"] = [4.0]
    (goal,) = (goal for goal in load("simcc_decode").goals if "a batch of one" in goal.what)
    assert goal.worst([quick, slow]) == (0.5, slow)
    assert not goal.reached(0.5)
    assert goal.reached(1.0)
    assert goal.worst([quick]) == (2.0, quick)
    assert goal.worst([]) is None
    memory = goals.memory_of("cdkd_ext", "eager", "torch.compile")
    assert memory(slow) is None
    assert memory({"extra_bytes": {"cdkd_ext": 3, "eager": 12, "torch.compile": 6}}) == 0.5


def test_every_goal_is_about_a_case_that_is_measured():
    for bench in map(load, names()):
        assert bench.goals, bench.name
        for goal in bench.goals:
            assert any(goal.where(row.describe()) for row in bench.cases), goal.what


def test_terminal(capsys):
    print_bench(RUN["benches"][0])
    text = capsys.readouterr().out
    assert "batch 256        2  5000.00 ms                       1.00 (1.00 to 1.00)" in text
    assert "most extra memory, results included, in sizes of the inputs\ncase       cdkd_ext  eager\n" in text
