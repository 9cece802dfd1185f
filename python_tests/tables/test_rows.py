"""The rows: the paper's figures, and that each has a training that can be."""

from __future__ import annotations

import pytest

from cdkd_ext.errors import InputError
from cdkd_ext.tables import list_tables, load_runs, load_table, row_costs
from cdkd_ext.tables.costs import count_costs


@pytest.mark.parametrize(
    ("number", "row", "column", "value"),
    [
        (1, "simplebaseline_r50_32", "wrist", 22.393),
        (1, "cal_32", "mean", 55.353),
        (1, "prtr_32", "head", 0.341),
        (1, "okdhp_64", "ankle", 54.393),
        (1, "cdkd_64", "mean", 79.362),
        (1, "cdkd_measured_64", "mean", None),
        (2, "simcc_32", "AP75", 22.5),
        (2, "cdkd_64", "AR", 65.0),
        (2, "cdkd_64_k4", "AP_L", 62.9),
        (2, "pct_64", "AP", 13.8),
        (2, "distilpose_32", "AP", 9.5),
        (2, "distilpose_32", "AR", None),
        (3, "necm", None, 78.772),
        (4, "sau", None, 30.6),
        (5, "same_classes", None, 75.173),
        (5, "connected_classes", None, 77.973),
        (6, "k4", None, 76.937),
        (7, "3110", None, 78.519),
        (8, "tau_alpha", None, 79.053),
        (9, "cca", "AR", 47.6),
        (10, "hrnet_sape_64", None, 76.248),
    ],
)
def test_the_papers_figures(number: int, row: str, column: str | None, value: float | None) -> None:
    table = load_table(number)
    assert table.figure(table.row(row), column) == value


def test_the_tables_are_whole() -> None:
    sizes = {number: len([row for row in load_table(number).rows if row.paper]) for number in list_tables()}
    assert sizes == {
        "I": 18, "II": 22, "III": 7, "IV": 7, "V": 8, "VI": 5, "VII": 6, "VIII": 4, "IX": 2, "X": 4
    }  # fmt: skip


@pytest.mark.parametrize("number", list_tables())
def test_every_row_has_runs_and_something_to_be_compared_with(number: str) -> None:
    table = load_table(number)
    assert len({row.name for row in table.rows}) == len(table.rows)
    full, small = load_runs("full"), load_runs("small")
    for row in table.rows:
        assert row.full in full and (row.small is None or row.small in small)
        assert len(row.paper) in (0, 1, len(table.columns))
        if row.against is not None:
            assert table.row(row.against).input == row.input
        spec = full[row.full].spec(table.num_joints)
        assert spec.input_size == (row.input, row.input)
        expected = {"HRNet-W32": "hrnet_w32", "HRNet-W48": "hrnet_w48", "ResNet-50": "resnet50"}
        assert spec.name == expected.get(row.backbone, spec.name)
        if row.small is not None:
            assert small[row.small].spec(14).input_size == (row.input, row.input)


def test_what_is_missing_at_small_scale() -> None:
    missing = {row.name for number in list_tables() for row in load_table(number).rows if row.small is None}
    assert missing == {
        "simplebaseline_r152_32", "simplebaseline_r50_32", "simplebaseline_r152_64", "simplebaseline_32",
        "simplebaseline_64", "simcc_64_k4", "cdkd_64_k4", "prtr_32",
    }  # fmt: skip


# what the paper prints, where it is not what the network has
_DIFFERENT = {
    ("I", "prtr_32"): {"gflops"},  # of 64x64
    ("II", "rle_32"): {"parameters", "gflops"},  # of 64x64
    ("II", "cal_64"): {"gflops"},
    ("II", "distilpose_32"): {"gflops"},  # the program prints two digits
    ("II", "distilpose_64"): {"gflops"},
    ("II", "pct_32"): {"parameters"},  # of the backbone
    ("II", "pct_64"): {"parameters"},
}


@pytest.mark.parametrize("number", ["I", "II"])
def test_sizes_and_costs_are_the_papers(number: str) -> None:
    table = load_table(number)
    costs = row_costs(table.rows)
    for row in table.rows:
        if row.parameters is None or row.gflops is None:
            continue
        own = costs[row.name]
        differs = set()
        if round(own.parameters / 1e6, 1) != row.parameters:
            differs.add("parameters")
        if abs(own.gflops - row.gflops) > 0.00051:
            differs.add("gflops")
        assert differs == _DIFFERENT.get((number, row.name), set()), row.name


@pytest.mark.parametrize(
    ("number", "row", "parameters"),
    [
        (1, "cal_32", 49_314_032),
        (1, "tokenpose_32", 30_898_176),
        (1, "tokenpose_64", 31_011_264),
        (1, "prtr_64", 57_233_747),
        (1, "okdhp_64", 30_915_696),
        (2, "cal_32", 49_314_131),
        (2, "cal_64", 110_322_435),
        (2, "rle_64", 29_146_460),
        (2, "rle_32", 28_728_668),
        (2, "tokenpose_32", 33_095_232),
        (2, "tokenpose_64", 68_243_104),
        (2, "distilpose_32", 33_012_421),
        (2, "distilpose_64", 33_086_149),
    ],
)
def test_parameters_to_the_unit(number: int, row: str, parameters: int) -> None:
    assert row_costs([load_table(number).row(row)])[row].parameters == parameters


def test_the_stored_costs_are_those_that_are_counted() -> None:
    """None is missing, and a small one counted anew is the same; `python -m cdkd_ext.tables.costs` writes them."""
    for number in list_tables():
        rows = load_table(number).rows
        assert row_costs(rows).keys() == {row.name for row in rows}
        small = row_costs(rows, scale="small")
        assert small.keys() == {row.name for row in rows if row.small is not None}
    table = load_table(2)
    own = row_costs([table.row("rle_32")], scale="small")["rle_32"]
    counted = count_costs(load_runs("small")["rle_32"], 16)
    assert counted == {"parameters": own.parameters, "macs": own.macs, "gflops": own.gflops}


def test_numbers_and_names_that_there_are_not() -> None:
    assert load_table("iv") == load_table(4)
    for number in ("0", "11", "XI", "", "²"):
        with pytest.raises(InputError, match="number: expected a table of the paper, 1 to 10 or I to X"):
            load_table(number)
    with pytest.raises(InputError, match="rows: expected one of 'simcc', 'projector'"):
        load_table(3).chosen(["simc"])
    assert [row.name for row in load_table(3).chosen(["all", "simcc"])] == ["simcc", "all"]


def test_rows_are_compared_with_what_is_asked_for() -> None:
    table = load_table(1)
    against = {row.name: row.against for row in table.compared_with(["hrnet_32"]).rows}
    at_32 = {row.name for row in table.rows if row.input == 32}
    assert against.pop("hrnet_32") is None
    assert {against.pop(name) for name in at_32 - {"hrnet_32"}} == {"hrnet_32"}
    assert against == {row.name: row.against for row in table.rows if row.input == 64}
    both = table.compared_with(["simcc_32", "simcc_64"])
    assert {row.against for row in both.rows} == {"simcc_32", "simcc_64", None}
    with pytest.raises(InputError, match="against: expected one of"):
        table.compared_with(["simc_32"])
    with pytest.raises(
        InputError, match="against: expected one row for each size of crops, got hrnet_32 simcc_32"
    ):
        table.compared_with(["hrnet_32", "simcc_32"])
