"""The benchmark of the whole step: its competitors do the same work, and its file tells where the time goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

CHECKOUT = Path(__file__).resolve().parents[2]


def run(*arguments, **changes):
    return subprocess.run(
        [sys.executable, "-m", "bench.step", "--quick", "--no-memory", *arguments],
        cwd=CHECKOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", **changes},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "step.json"
    result = run("--json", str(path))
    assert result.returncode == 0, result.stderr
    return {"printed": result.stdout, **json.loads(path.read_text())}


def test_the_file_holds_both_variants_with_all_competitors(found):
    live, stored = found["benches"][0]["cases"]
    assert live["variant"] == "live teacher" and stored["variant"] == "stored teacher"
    assert {"cdkd_ext", "eager"} <= live["samples"].keys()
    assert stored["samples"].keys() == {"cdkd_ext", "cdkd_ext, bfloat16 student", "eager"}
    assert live["floor"].keys() == {"teacher forward", "student forward and backward"}
    assert stored["floor"].keys() == {"student forward and backward"}
    for case in (live, stored):
        assert case["context"].keys() == {"plain training"}
        lengths = {len(values) for part in ("samples", "floor", "context") for values in case[part].values()}
        assert len(lengths) == 1


def test_float32_losses_agree_to_rounding_and_bfloat16_to_a_few_percent(found):
    live, stored = found["benches"][0]["cases"]
    # half floats hold the stored outputs
    assert stored["differences"]["cdkd_ext"] < 0.02
    assert 0 < stored["differences"]["cdkd_ext, bfloat16 student"] < 0.05
    if "cdkd_ext, float32 teacher" in live["differences"]:
        assert live["differences"]["cdkd_ext, float32 teacher"] < 1e-4
    assert live["differences"]["cdkd_ext"] < 0.02


def test_the_profile_s_parts_make_up_the_step_and_are_printed(found):
    live, stored = found["benches"][0]["cases"]
    parts = {"student forward", "losses, forward and backward", "student backward", "optimiser"}
    assert live["profile"]["part"].keys() == {"teacher", *parts}
    assert stored["profile"]["part"].keys() == parts
    for case in (live, stored):
        assert sum(case["profile"]["part"].values()) == pytest.approx(1)
        assert min(case["profile"]["part"].values()) > 0
        assert "aten::convolution_backward" in case["profile"]["operator"]
        assert sum(case["profile"]["operator"].values()) < 1.01
    assert "share of cdkd_ext's time by part" in found["printed"]


def test_a_loss_that_differs_is_not_timed(tmp_path):
    """The reference of one op is planted with an error, which a sitecustomize of the child process does."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Plant:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'bench.step':\n"
        "            sys.meta_path.remove(self)\n"
        "            from cdkd_ext.ops import reference\n"
        "            right = reference.cca_kl\n"
        "            reference.cca_kl = lambda *a, **k: 1.2 * right(*a, **k)\n"
        "sys.meta_path.insert(0, Plant())\n"
    )
    result = run(PYTHONPATH=str(tmp_path))
    assert result.returncode != 0
    assert "DisagreementError: step, live teacher" in result.stderr
