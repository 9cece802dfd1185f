"""What is shown of a table, with made-up measurements: text, Markdown, JSON and the picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cdkd_ext.images import read_image
from cdkd_ext.studies import Estimate
from cdkd_ext.tables import Measured, PaperTable, Plan, load_table, row_costs
from cdkd_ext.tables.measured import _columns, verdict
from cdkd_ext.tables.page import Sheet, as_json, format_table, markdown, write_table


def estimate(value: float, low: float, high: float, seeds: tuple[int, ...] = (0, 1)) -> Estimate:
    return Estimate(value, low, high, 0.5, seeds, 12, (value,) * max(len(seeds), 1))


def measured(*values: float, against: Estimate | None = None) -> Measured:
    return Measured(
        seeds=tuple(range(len(values))),
        values={"head": tuple(10 + value for value in values), "mean": values},
        boxes="ground truth",
        reference="neck to head top",
        people=12,
        epochs=3,
        seconds=7.5,
        rate=0.0015,
        parameters=700_000,
        macs=5_000_000,
        against=against,
    )


def sheet(table: PaperTable, found: dict[str, Measured], scale: str = "small") -> Sheet:
    plan = Plan(root="/lsp", scale=scale, seeds=(0, 1))  # type: ignore[arg-type]
    return Sheet(table, table.rows, plan, row_costs(table.rows, scale=plan.scale), found)


@pytest.fixture
def shown() -> Sheet:
    found = {
        "simcc_32": measured(20.0, 22.0),
        "cdkd_32": measured(23.0, 24.0, against=estimate(2.5, 1.0, 4.0)),
        "hrnet_64": measured(30.0),
    }
    return sheet(load_table(1), found)


def test_the_text_has_paper_and_measured_side_by_side(shown: Sheet) -> None:
    lines = format_table(shown).splitlines()
    assert lines[0] == "Table I: MPII, PCKh@0.5 (small scale)"
    columns = [line.split("  ") for line in lines]
    rows = {cells[0]: [cell.strip() for cell in cells if cell.strip()] for cells in columns}
    assert rows["row"][4:8] == [
        "paper's PCKh",
        "measured PCKh@0.5",
        "paper's difference",
        "measured difference",
    ]
    assert rows["simcc_32"][:7] == ["simcc_32", "SimCC", "32", "HRNet-W32", "59.560", "21.00 ± 1.41 (2)", "–"]
    assert rows["cdkd_32"][4:8] == [
        "61.442", "23.50 ± 0.71 (2)", "+1.882 to simcc_32", "+2.50 [+1.00, +4.00]: holds"
    ]  # fmt: skip
    assert rows["cdkd_32"][8:] == ["28.5, 0.7", "0.148, 0.004", "5.0", "3"]
    assert rows["hrnet_64"][5] == "30.00 (1)"
    assert rows["dark_64"][5] == "–"
    notes = "\n".join(lines)
    for note in (
        "boxes: ground truth",
        "measured on 12 people of ",
        "head length: neck to head top",
        "simcc_32 0.0015",
    ):
        assert note in notes
    assert "not at this scale: simplebaseline_r152_32" in notes


def test_a_list_without_measurements_has_no_columns_for_them() -> None:
    text = format_table(sheet(load_table(2), {}, "full"))
    assert "measured" not in text
    (line,) = (line for line in text.splitlines() if line.startswith("cal_64 "))
    assert line.split()[4:] == ["60.6", "–", "110.3,", "110.3", "1.797,", "1.767", "1897.0", "210"]
    assert "ground-truth boxes" in text and "rle_32: the paper repeats" in text


def test_markdown_has_every_column(shown: Sheet) -> None:
    text = markdown(shown)
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in tables}) == 2
    assert "| simcc_32 | paper | 81.1 | 72.7 | 54.2 | 37.9 | 63.8 | 51.4 | 46.6 | 59.6 |" in tables
    assert "| simcc_32 | measured | 31.0 | – | – | – | – | – | – | 21.0 |" in tables
    assert "| dark_64 | measured |" not in text


def test_the_files(shown: Sheet, tmp_path: Path) -> None:
    paths = write_table(shown, tmp_path)
    assert [path.name for path in paths] == ["table_I.md", "table_I.json", "table_I.png"]
    assert paths[0].read_text(encoding="utf-8") == markdown(shown)
    content = json.loads(paths[1].read_text())
    assert content == json.loads(json.dumps(as_json(shown)))
    rows = {row["name"]: row for row in content["rows"]}
    assert rows["cdkd_32"]["measured"]["verdict"] == "holds"
    assert rows["cdkd_32"]["measured"]["mean"] == 23.5 and rows["cdkd_32"]["run"] == "cdkd_32"
    assert rows["dark_64"]["measured"] is None and rows["simplebaseline_r152_64"]["costs"] is None
    assert content["protocol"] == "equalised"
    height, width, _ = read_image(paths[2]).shape
    assert width > 1.8 * height > 1000
    (one,) = (
        path for path in write_table(sheet(load_table(3), {}, "full"), tmp_path) if path.suffix == ".png"
    )
    height, width, _ = read_image(one).shape
    assert width < 1.2 * height


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (estimate(2.0, 0.1, 4.0), "holds"),
        (estimate(-2.0, -4.0, -0.1), "does not hold"),
        (estimate(2.0, -0.1, 4.0), "cannot be told"),
        (estimate(2.0, 0.1, 4.0, (0,)), "cannot be told"),
        (None, None),
    ],
)
def test_what_the_paper_claims_is_told_by_the_interval(found: Estimate | None, expected: str | None) -> None:
    table = load_table(1)
    assert verdict(table, table.row("cdkd_32"), measured(1.0, 2.0, against=found)) == expected
    assert verdict(table, table.row("simcc_32"), measured(1.0, 2.0, against=found)) is None
    # the paper has no figure of this row
    assert verdict(table, table.row("cdkd_measured_32"), measured(1.0, against=found)) is None


def test_a_claim_of_a_loss_holds_below_zero() -> None:
    table = load_table(6)
    row = table.row("k4")
    assert verdict(table, row, measured(1.0, 2.0, against=estimate(-2.0, -3.0, -1.0))) == "holds"


def test_a_column_of_nobody_is_left_out() -> None:
    """Files have null for what was not measured, such as COCO's large people or joints without a label."""
    assert _columns({"AP": 0.25, "AP_M": 0.5, "AP_L": None}) == {"AP": 25.0, "AP_M": 50.0}
    assert _columns({"pckh": 30.0, "pckh_per_joint": {"hip": None, "knee": 20.0}}) == {
        "knee": 20.0,
        "mean": 30.0,
    }
