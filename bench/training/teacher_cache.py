"""Samples per second from a compact teacher cache, and what its coding loses: `python -m bench.training.teacher_cache`.

Rows are read at random from shards that many batches fill. Times are of the processor (user and system), not of the
clock: other work on the machine does not count. On a GPU the decoding is done there, and the core reads alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.harness.table import print_rows
from cdkd_ext.data import Manifest, write_shards
from cdkd_ext.data.batches import Key
from cdkd_ext.data.shard_writing import Chunk
from cdkd_ext.distillation import TeacherOutput
from cdkd_ext.teachers import CompactOutputs
from cdkd_ext.teachers.coding import decode, encode
from cdkd_ext.teachers.compact import compact_columns

_CHUNK = 64


def main() -> None:
    """Store drawn distributions, read them, and compare."""
    parser = argparse.ArgumentParser(prog="python -m bench.training.teacher_cache", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="stored views")
    parser.add_argument("--joints", type=int, default=17)
    parser.add_argument("--bins", type=int, default=768, help="of each axis")
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 64, 128, 256])
    options = parser.parse_args()
    torch.set_num_threads(1)
    given = distributions(options.joints, options.bins)
    print(f"divergence of decoded rows: {divergence(given):.1e} nats on average")
    with tempfile.TemporaryDirectory() as name:
        outputs, size = stored(given, options.rows, Path(name) / "rows")
        print(f"{size:.0f} bytes a view")
        rows = [["batch", "read, samples/s", "read and decoded, samples/s"]]
        for batch in options.batches:
            rates = measure(outputs, options.rows, batch)
            rows.append([str(batch), *(f"{rate:.0f}" for rate in rates)])
    print_rows(rows)


def distributions(joints: int, bins: int) -> Tensor:
    """(B, 2 J, N) logits: a peak of 2 to 22 bins' width, another one of up to a third of its mass, and some clutter."""
    generator = torch.Generator().manual_seed(0)

    def peaks(shape: tuple[int, ...]) -> Tensor:
        centers = bins * torch.rand(*shape, 1, generator=generator)
        widths = 2 + 20 * torch.rand(*shape, 1, generator=generator)
        return (-((torch.arange(bins) - centers) / widths).square() / 2).softmax(-1)

    shape = (_CHUNK, 2 * joints)
    second = 0.33 * torch.rand(*shape, 1, generator=generator)
    return (0.97 * ((1 - second) * peaks(shape) + second * peaks(shape)) + 0.03 / bins).log()


def divergence(logits: Tensor) -> float:
    """Mean Kullback-Leibler divergence of the decoded rows from the given ones."""
    p = logits.double().softmax(-1)
    q = decode(encode(logits)).double().log_softmax(-1)
    return float((p * (p.log() - q)).sum(-1).mean())


def stored(logits: Tensor, rows: int, folder: Path) -> tuple[CompactOutputs, float]:
    """Shards with the same distributions again and again, and the bytes of a row."""
    output = TeacherOutput(None, *logits.chunk(2, 1))
    columns = {name: value.numpy() for name, value in compact_columns(output, features=False).items()}

    def produce(start: int, stop: int) -> Iterator[Chunk]:
        for first in range(start, stop, _CHUNK):
            yield {name: value[: stop - first] for name, value in columns.items()}

    write_shards(folder, Manifest.of({"views": 1}, rows), produce)
    return CompactOutputs(folder), sum(path.stat().st_size for path in folder.iterdir()) / rows


def measure(outputs: CompactOutputs, rows: int, batch: int) -> tuple[float, float]:
    """Samples per second of reading, and of reading and decoding."""
    generator = np.random.default_rng(0)
    keys = [[(int(row), 0) for row in generator.integers(rows, size=batch)] for _ in range(4000 // batch)]
    return _rate(outputs, keys), _rate(lambda chosen: outputs(chosen).widened(), keys)


def _rate(read: Callable[[list[Key]], object], batches: list[list[Key]]) -> float:
    """Samples per second of processor time; the first batches are not counted."""
    for keys in batches[:4]:
        read(keys)
    started = time.process_time()
    for keys in batches:
        read(keys)
    return sum(map(len, batches)) / (time.process_time() - started)


if __name__ == "__main__":
    main()
