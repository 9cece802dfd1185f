"""Networks in ONNX files, for one crop and for many: `python -m bench.inference.networks student.onnx adapted.onnx`.

Any file that `Predictor.load` takes: those of `cdkd export`, adapted ones, others that a preset knows. A call is from uint8
crops to keypoints in pixels of an image, without the cropping. A round has each network once, and the median of the rounds
counts.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from bench.harness.table import print_rows
from bench.inference.frames import CLOCKS
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
    networks: dict[str, CropNetwork], crops: int, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Seconds of a call with so many crops, by the network's name."""
    rng = np.random.default_rng(0)
    to_image = np.tile(np.eye(2, 3, dtype=np.float32), (crops, 1, 1))
    images = {
        name: rng.integers(0, 256, (crops, *network.input_size, 3), dtype=np.uint8)
        for name, network in networks.items()
    }
    times: dict[str, list[float]] = {name: [] for name in networks}
    # the first round takes what only a first call does
    for round_ in range(rounds + 1):
        for name, network in networks.items():
            started = clock()
            network(images[name], to_image)
            seconds = clock() - started
            if round_:
                times[name].append(seconds)
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    main()
