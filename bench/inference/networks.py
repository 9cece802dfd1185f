"""Networks in ONNX files, for one crop and for many: `python -m bench.inference.networks student.onnx adapted.onnx`.

Any file that `Predictor.load` takes: those of `cdkd export`, adapted ones, others that a preset knows. A call is from uint8
crops to keypoints in pixels of an image, without the cropping. The networks take turns, and the median of their rounds counts.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime

from bench.harness.table import print_rows
from bench.inference.frames import CLOCKS, in_turns
from cdkd_ext.inference import CropNetwork
from cdkd_ext.inference.predictor import load_network


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.inference.networks", description=__doc__)
    parser.add_argument("files", nargs="+", help="ONNX files, or YAML files that describe one")
    parser.add_argument("--crops", type=int, nargs="+", default=[1, 64], help="in a call")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument(
        "--clock", choices=tuple(CLOCKS), default="wall", help="processor: of all threads, on a busy machine"
    )
    options = parser.parse_args(arguments)
    networks = {
        file: load_network(file, flip_test=False, threads=options.threads, device="cpu")
        for file in options.files
    }
    print(f"onnxruntime {onnxruntime.__version__}, threads {options.threads}")
    found = [measure(networks, crops, options.rounds, CLOCKS[options.clock]) for crops in options.crops]
    rows = [
        [
            Path(file).name,
            "x".join(map(str, network.input_size)),
            *(f"{1e3 * one[file]:.2f}" for one in found),
        ]
        for file, network in networks.items()
    ]
    print_rows([["network", "input", *(f"ms for {crops}" for crops in options.crops)], *rows])


def measure(
    networks: dict[str, CropNetwork], crops: int, rounds: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Seconds of a call with so many crops, by the network's name."""
    rng = np.random.default_rng(0)
    to_image = np.tile(np.eye(2, 3, dtype=np.float32), (crops, 1, 1))
    calls: dict[str, Callable[[], object]] = {
        name: partial(
            network, rng.integers(0, 256, (crops, *network.input_size, 3), dtype=np.uint8), to_image
        )
        for name, network in networks.items()
    }
    return in_turns(calls, rounds, clock)


if __name__ == "__main__":
    main()
