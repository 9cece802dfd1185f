"""Random calls of the ops in this process: `python python_tests/fuzz/ops.py --seed 0 --calls 1000`."""

from __future__ import annotations

import argparse
import json
import random
import sys
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from judge import FindingError, judge, raw_steps
from op_calls import OPS, Call, build
from torch import Tensor

_RAW = 0.15  # share of the calls that go to the operators beneath the public functions
_COMPARED = 0.1  # share of the calls that the reference repeats


def run(
    seed: int,
    first: int,
    calls: int,
    *,
    threads: int = 1,
    op: str | None = None,
    progress: Path | None = None,
) -> Counter[str]:
    """Make the calls `first` to `first + calls` of a seed's sequence.

    Args:
        seed: of the sequence.
        first: the first call's number.
        calls: how many are made; with several threads every built call counts once for each.
        threads: threads that make each call at the same time, on the same tensors.
        op: the one op that is called; all without.
        progress: file to which the number of the call in progress is written.

    Returns:
        How many calls had which outcome.

    Raises:
        FindingError: with the command that makes the call again.
    """
    warnings.simplefilter("ignore")  # the reference divides by zero where the ops know better
    counts: Counter[str] = Counter()
    ops = [op] if op else OPS
    with ThreadPoolExecutor(threads) as pool:
        for index in range(first, first + calls // threads):
            if progress:
                progress.write_text(str(index))
            try:
                _call(build(seed, index, ops), f"{seed}/{index}", threads, pool, counts)
            except Exception as error:
                again = f"python python_tests/fuzz/ops.py --seed {seed} --first {index} --calls {threads} --threads {threads}"
                raise FindingError(
                    f"{again}{f' --op {op}' if op else ''}: {type(error).__name__}: {error}"
                ) from error
    return counts


def _call(call: Call, name: str, threads: int, pool: ThreadPoolExecutor, counts: Counter[str]) -> None:
    choices = random.Random(f"outcome {name}")
    raw, compares = choices.random() < _RAW, choices.random() < _COMPARED
    if threads > 1:
        _call_together(call, threads, pool, counts)
    elif raw:
        counts["calls"] += 1
        raw_steps(call, choices, counts)
    else:
        counts["calls"] += 1
        judge(call, compares, counts)


def _call_together(call: Call, threads: int, pool: ThreadPoolExecutor, counts: Counter[str]) -> None:
    """Make a call in several threads, which must give the same bits."""
    tallies: list[Counter[str]] = [Counter() for _ in range(threads)]
    running = [pool.submit(judge, _own_statistics(call), False, tally) for tally in tallies]
    first, *others = [one.result() for one in running]
    for other in others:
        if [_bits(tensor) for tensor in other] != [_bits(tensor) for tensor in first]:
            raise FindingError(f"{call.op} gave other bits in another thread")
    for tally in tallies:
        counts.update(tally)
    counts["calls"] += threads


def _own_statistics(call: Call) -> Call:
    """The call with its own copy of the tensors that it changes."""
    changed = {
        name: value.clone()
        for name, value in call.arguments.items()
        if name.startswith("running_") and isinstance(value, Tensor)
    }
    return Call(call.op, {**call.arguments, **changed}, call.spoiled, call.must_fail, call.differentiated)


def _bits(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def main() -> None:
    """Parse the command line, make the calls and print their outcomes as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--op", choices=OPS)
    parser.add_argument("--progress", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        print(json.dumps(run(**vars(arguments))))
    except FindingError as finding:
        sys.exit(str(finding))


if __name__ == "__main__":
    main()
