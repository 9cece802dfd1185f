"""What is read of finished runs: only of those that were made as planned."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cdkd_ext.checkpoints import save_model
from cdkd_ext.errors import InputError
from cdkd_ext.joints import MPII_JOINTS
from cdkd_ext.models import create_model
from cdkd_ext.studies.runs import REQUEST, check_request
from cdkd_ext.tables import Plan, load_table, made_otherwise, measure_rows
from cdkd_ext.tables.plan import row_runs

TABLE = load_table(3)
PLAN = Plan(root="/lsp", scale="small", seeds=(0,))


@pytest.fixture
def finished(tmp_path: Path) -> Callable[[str, Plan], None]:
    """Leaves the files of a row's finished run."""
    network = create_model("hrnet_w8_small", input_size=(64, 64), num_joints=16, joints=MPII_JOINTS)

    def leave(row: str, plan: Plan) -> None:
        (run,) = row_runs(TABLE.row(row), plan)
        own = tmp_path / run.name
        own.mkdir()
        later = ["--optimizer.learning_rate=0.002"] if run.later else []
        (own / REQUEST).write_text(json.dumps({"command": list(run.command), "later": later}))
        save_model(network, own / "last.safetensors")
        (own / "config.yaml").write_text(
            "epochs: 1\noptimizer: {learning_rate: 0.002}\nmodel: {name: hrnet_w8_small}\n"
        )
        record = {"epoch": 1, "step": 1, "seconds": 2.0, "AP": 0.25, "people": 12, "boxes": "ground truth"}
        (own / "metrics.json").write_text(json.dumps({"epochs": [record]}))

    return leave


@pytest.mark.parametrize("changes", [{"root": "/other"}, {"options": ("--epochs=1",)}, {"search": True}])
def test_runs_of_other_people_or_options_are_left_out(
    tmp_path: Path, finished: Callable[[str, Plan], None], changes: dict[str, Any]
) -> None:
    finished("simcc", PLAN)
    other = replace(PLAN, **changes)
    finished("projector", other)
    assert made_otherwise(TABLE, PLAN, tmp_path) == ["projector"]
    assert made_otherwise(TABLE, other, tmp_path) == ["simcc"]
    assert list(measure_rows(TABLE, PLAN, tmp_path)) == ["simcc"]
    assert list(measure_rows(TABLE, other, tmp_path)) == ["projector"]
    assert list(measure_rows(TABLE, PLAN, tmp_path, planned=False)) == ["simcc", "projector"]
    (run,) = row_runs(TABLE.row("projector"), PLAN)
    with pytest.raises(InputError, match=r"projector_64_seed0: expected .* or another folder for the study"):
        check_request(run, tmp_path)
