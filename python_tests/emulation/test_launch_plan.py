from __future__ import annotations

from pathlib import Path

import kernel_build
import pytest

from cdkd_ext.emulation.launch_plan import LaunchSizes, plan_launches, plan_table
from cdkd_ext.emulation.library import Emulation
from cdkd_ext.errors import InputError

SIZES = [
    LaunchSizes(),
    LaunchSizes(batch=2, student_bins=512, teacher_bins=2048, dtype="float16"),
    LaunchSizes(batch=3, joints=133, student_bins=135, teacher_bins=361, dtype="bfloat16"),
    LaunchSizes(batch=5, joints=3, student_bins=129, teacher_bins=1031),
]


@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: f"{sizes.dtype}-{sizes.student_bins}")
def test_hardly_more_bytes_than_must_move(emulation: Emulation, sizes: LaunchSizes) -> None:
    passes = plan_launches(sizes, emulation)
    assert {done.name.split()[0] for done in passes} >= {"cca_kl", "simcc_kl", "simcc_decode"}
    for done in passes:
        if done.name.split()[0] in ("cca_kl", "simcc_kl", "simcc_decode"):
            assert 1 <= done.ratio <= 1.1, done
            assert len(done.launches) <= (2 if "backward" in done.name else 1)


def test_most_bytes_move_in_wide_accesses(emulation: Emulation) -> None:
    for done in plan_launches(LaunchSizes(batch=2), emulation)[:8]:
        for launch in done.launches:
            if launch.kernel != "sum_partials":
                assert launch.read_by_width[16] / launch.read > 0.95, launch


def test_a_kernel_that_reads_twice_is_seen(emulation: Emulation, builds: Path, tmp_path: Path) -> None:
    loop = "row < call.rows; row += gridDim.x"
    library = kernel_build.build_planted(
        "plain",
        builds,
        tmp_path,
        "ops/simcc_kl/kernels.cu",
        loop,
        "row < call.rows; row += 1",
        "simcc_kl/kernels.cu",
    )
    plans = [plan_launches(LaunchSizes(batch=2), chosen) for chosen in (emulation, Emulation(library))]
    ratios = [{done.name: done.ratio for done in passes} for passes in plans]
    assert ratios[0]["simcc_kl"] < 1.1 < ratios[1]["simcc_kl"]


def test_the_table_names_every_kernel(emulation: Emulation) -> None:
    table = plan_table(plan_launches(LaunchSizes(batch=1, joints=2), emulation))
    for name in ("cca_kl backward", "scale_rows", "sum_partials", "simcc_decode with flip test"):
        assert name in table


@pytest.mark.parametrize(
    ("sizes", "message"),
    [({"batch": 0}, "batch"), ({"teacher_bins": 5}, "teacher_bins"), ({"dtype": "int8"}, "dtype")],
)
def test_sizes_are_checked(sizes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LaunchSizes(**sizes)


def test_dense_ops_in_few_launches_and_wide_accesses(emulation: Emulation) -> None:
    sizes = LaunchSizes(batch=2, student_side=8, teacher_side=32, dtype="float16")
    passes = {done.name: done for done in plan_launches(sizes, emulation)}
    counts = {
        "projector_cosine": 2,
        "projector_cosine, kept for backward": 2,
        "projector_cosine backward": 3,
        "sau_select, evaluation": 1,
        "sau_select, training": 3,
        "sau_select backward": 5,
    }
    assert {name: len(passes[name].launches) for name in counts} == counts
    for name in ("projector_cosine", "projector_cosine backward"):
        main = passes[name].launches[0]
        assert main.read_by_width[16] / main.read > 0.5, main
    written = sum(launch.written for launch in passes["projector_cosine"].launches)
    maps = sizes.projectors * sizes.batch * sizes.joints * sizes.teacher_side**2 * 2
    assert written < maps / 8  # no projected map leaves a block
