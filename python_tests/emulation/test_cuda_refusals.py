"""What CUDA cannot do is refused by the argument checks, which need no device: before the first launch."""

from __future__ import annotations

import subprocess
from pathlib import Path

import kernel_build
import pytest

CALL = """
#include "ops/sau_select/arguments.h"
#include <cstdio>
#include <cstdlib>
using namespace cdkd;
int main(int, char** words) {
  const int64_t C = 2, hidden = std::atoll(words[2]);
  const Format format = words[3][0] == 'w' ? Format::kFloat64 : Format::kFloat32;
  const Place place{words[1][1] == 'u' ? Place::kCuda : Place::kCpu, 0};
  const auto tensor = [&](const char* name, const Sizes& sizes) {
    return Argument{name, -1, name_of(format), true, format, place, sizes, nullptr, false};
  };
  const int64_t maps[] = {1, C, 4, 4}, kernel[] = {C, C, 3, 3}, norm[] = {1, C}, squeeze[] = {hidden, C};
  const int64_t units[] = {hidden}, select[] = {1, C, hidden};
  const Argument weight = tensor("conv_weights", Sizes(kernel, 4));
  try {
    check_sau_select(tensor("feature", Sizes(maps, 4)), {&weight}, tensor("norm_weight", Sizes(norm, 2)),
                     tensor("norm_bias", Sizes(norm, 2)), tensor("squeeze_weight", Sizes(squeeze, 2)),
                     tensor("squeeze_bias", Sizes(units, 1)), tensor("select_weight", Sizes(select, 3)),
                     tensor("select_bias", Sizes(norm, 2)), false, 1e-5);
    std::puts("taken");
  } catch (const std::runtime_error& error) {
    std::puts(error.what());
  }
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checks the arguments of a call: where, how many hidden units, wide or narrow."""
    if kernel_build.compiler() is None:
        pytest.skip("needs g++")
    folder = tmp_path_factory.mktemp("refusals")
    (folder / "call.cpp").write_text(CALL)
    flags = ["-std=c++17", f"-I{kernel_build.SOURCES}"]
    subprocess.run([kernel_build.compiler(), *flags, folder / "call.cpp", "-o", folder / "call"], check=True)
    return folder / "call"


@pytest.mark.parametrize(
    ("place", "hidden", "width", "said"),
    [
        ("cuda", 10238, "narrow", "taken"),
        (
            "cuda",
            12000,
            "narrow",
            "squeeze_weight: expected shape (d, C) with d + C up to 10240 on CUDA in float32, got (12000, 2)",
        ),
        ("cuda", 4094, "wide", "taken"),
        (
            "cuda",
            4095,
            "wide",
            "squeeze_weight: expected shape (d, C) with d + C up to 4096 on CUDA in float64, got (4095, 2)",
        ),
        ("cpu", 12000, "wide", "taken"),
    ],
)
def test_hidden_units(program: Path, place: str, hidden: int, width: str, said: str) -> None:
    done = subprocess.run([program, place, str(hidden), width], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == said
