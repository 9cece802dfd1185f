"""Stage 6: time of each op, from a batch of one to 1024, against what people run and against the floor."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from bench.gpu import clock
from bench.gpu.cases import OPS, SIZES, TINY, Inputs, Op, inputs, least_bytes, run, widened
from bench.gpu.report import Table, stage_options
from bench.harness.agreement import difference
from bench.harness.case import EAGER, OURS

COMPILED = "torch.compile"
AUTOTUNED = "max-autotune-no-cudagraphs"
TRITON = "Triton, as one writes it"
GRAPH = " (graph)"
ROUNDS = 9
MOST_SETS = 16
MOST_BYTES = 4 << 30  # of all input sets together
LAUNCH_BOUND = 1024  # the largest batch whose calls are captured as well
COMPILING = 90  # seconds that a case with compilers takes
COLUMNS = (
    "case",
    OURS,
    "÷ floor",
    EAGER,
    COMPILED,
    AUTOTUNED,
    TRITON,
    "floor",
    "worst difference",
    "of eager",
)
NOTE = (
    "Medians of interleaved rounds. Times are of one call, forward and backward (simcc_decode: forward), over so many "
    "input sets that together they exceed the second-level cache twice (at most 16), so that small cases can still find "
    "their inputs there. With “(graph)”, the same calls were captured and replayed: the device's time without the "
    "host's. Others are in multiples of our time of the same kind. The floor: bytes of inputs, results and gradients, "
    "each once, over the measured copy bandwidth, or the matrix products over the measured rate of torch.mm in the "
    "type (float32: without TF32), whichever is longer. The differences are from the eager results in float64; eager "
    "float32 convolutions take TF32, as torch does unless told otherwise."
)


@dataclass(frozen=True)
class Rates:
    """What the device reaches: bytes per second copied, multiply-adds per second of each type."""

    copy: float
    products: dict[torch.dtype, float]


@dataclass(frozen=True)
class Plan:
    """A case: an op, a batch, a type, and whether compilers take part."""

    op: Op
    batch: int
    dtype: torch.dtype
    compiled: bool = False

    @property
    def title(self) -> str:
        """In words."""
        compiled = ", with compilers" if self.compiled else ""
        return f"{self.op.name}, B {self.batch}, {str(self.dtype).removeprefix('torch.')}{compiled}"


@dataclass
class Measured:
    """A case's numbers: seconds per call in each round by competitor."""

    samples: dict[str, list[float]]
    floor: float
    differences: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def main() -> None:
    """Measure case after case until the time is over."""
    options, findings = stage_options("ops")
    device = torch.device("cpu" if options.dry_run else "cuda")
    ends = time.monotonic() + options.limit - 5
    sizes = TINY if options.dry_run else SIZES
    rates = measure_rates(device, tiny=options.dry_run)
    findings.notes += [NOTE, describe_rates(rates)]
    table = findings.table("Ops", COLUMNS)
    if not options.dry_run:
        add_kernels(
            findings.table("Kernels of one call, float32", ("op", "batch", "kernel", "launches", "µs")),
            device,
        )
        findings.write()
    plans = list(tiny_plans() if options.dry_run else all_plans())
    wrong = 0
    for done, plan in enumerate(plans):
        if time.monotonic() > ends - COMPILING * plan.compiled:
            findings.notes.append(f"Not reached: {', '.join(plan.title for plan in plans[done:])}.")
            findings.write()
            break
        try:
            measured = measure(plan, sizes, device, rates, rounds=3 if options.dry_run else ROUNDS)
        except Exception as error:  # the other cases are measured nevertheless
            findings.notes.append(f"{plan.title}: {described(error)}")
            # eager needs a large GPU at the largest batches
            wrong += not isinstance(error, torch.OutOfMemoryError)
        else:
            findings.samples.append({"case": plan.title, **vars(measured)})
            wrong += add_rows(table, plan, measured)
            findings.notes += [f"{plan.title}: {name}: {text}" for name, text in measured.failures.items()]
        findings.write(f"{done + 1} of {len(plans)} cases, {wrong} wrong or failed")
    sys.exit(wrong > 0)


def all_plans() -> Iterator[Plan]:
    """The middle sizes of all first, then the compilers at one size, then the rest."""
    types = (torch.float32, torch.bfloat16)
    for batches in ((64,), (1, 1024)):
        for op in OPS:
            yield from (Plan(op, batch, dtype) for batch in batches for dtype in types)
    yield from (Plan(op, 64, torch.float32, compiled=True) for op in OPS)
    for batch in (8, 256):
        yield from (Plan(op, batch, dtype) for op in OPS for dtype in types)
    yield from (Plan(op, 64, torch.bfloat16, compiled=True) for op in OPS)
    yield from (Plan(op, batch, torch.float32, compiled=True) for batch in (1, 1024) for op in OPS)


def tiny_plans() -> Iterator[Plan]:
    """Every op, without compilers, which take seconds each."""
    yield from (Plan(op, batch, torch.float32) for op in OPS for batch in (1, 3))


def measure_rates(device: torch.device, *, tiny: bool) -> Rates:
    """The two ceilings of this device."""
    size, side = (1 << 20, 64) if tiny else (1 << 30, 8192)
    types = (torch.float32, torch.bfloat16)
    return Rates(
        clock.copy_bandwidth(device, size),
        {dtype: clock.product_rate(device, dtype, side) for dtype in types},
    )


def describe_rates(rates: Rates) -> str:
    """The ceilings in words."""
    products = ", ".join(
        f"{2e-12 * rate:.3g} TFLOP/s in {str(dtype).removeprefix('torch.')}"
        for dtype, rate in rates.products.items()
    )
    return (
        f"Measured ceilings: {rates.copy * 1e-9:.4g} GB/s copied (read and written), {products} multiplied."
    )


def measure(plan: Plan, sizes: dict[str, int], device: torch.device, rates: Rates, rounds: int) -> Measured:
    """Check that all competitors agree, then time them side by side."""
    op, sizes = plan.op, {**sizes, "batch": plan.batch}
    first = inputs(op, sizes, plan.dtype, device, seed=0)
    expected = run(op.eager, widened(first))
    moved = least_bytes(first, run(op.ours, first))
    sets = [
        first,
        *(inputs(op, sizes, plan.dtype, device, seed) for seed in range(1, set_count(moved, device))),
    ]
    multiply_adds = op.multiply_adds(sizes) * (3 if op.learns else 1)
    floor = max(moved / rates.copy, multiply_adds / rates.products[plan.dtype])
    measured = Measured({}, floor)
    passes: dict[str, clock.Pass] = {}
    for name, function in competitors(plan, device).items():
        try:
            measured.differences[name] = difference(run(function, first), expected)
            passes[name] = ready(function, sets)
        except Exception as error:
            if name == OURS:
                raise
            measured.failures[name] = described(error)
    if device.type == "cuda" and plan.batch <= LAUNCH_BOUND:
        for name in list(passes):
            try:
                passes[name + GRAPH] = clock.captured(passes[name])
            except RuntimeError as error:
                measured.failures[name + GRAPH] = described(error)
    found = clock.interleave(passes, device, rounds)
    measured.samples = {name: [value / len(sets) for value in values] for name, values in found.items()}
    return measured


def described(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def set_count(size: int, device: torch.device) -> int:
    """How many input sets of so many bytes exceed the second-level cache twice."""
    if device.type != "cuda":
        return 2
    cache = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0) or 64 << 20
    return max(min(-(-2 * cache // size) + 1, MOST_SETS, MOST_BYTES // size), 2)


def competitors(plan: Plan, device: torch.device) -> dict[str, Callable[..., Any]]:
    """What takes part in a case."""
    op = plan.op
    found: dict[str, Callable[..., Any]] = {OURS: op.ours, EAGER: op.eager}
    if op.name == "cca_kl" and device.type == "cuda":
        from bench.gpu import triton_cca_kl

        if triton_cca_kl.missing() is None:
            found[TRITON] = triton_cca_kl.cca_kl
    if plan.compiled:
        torch._dynamo.reset()
        found[COMPILED] = torch.compile(op.eager, dynamic=False, fullgraph=True)
        found[AUTOTUNED] = torch.compile(op.eager, dynamic=False, fullgraph=True, mode=AUTOTUNED)
    return found


def ready(function: Callable[..., Any], sets: list[Inputs]) -> clock.Pass:
    """The competitor's pass, warmed up."""

    def call(drawn: Inputs) -> Callable[[], object]:
        return lambda: run(function, drawn)

    plain = clock.over([call(drawn) for drawn in sets])
    for _ in range(2):
        plain()
    return plain


def add_kernels(table: Table, device: torch.device) -> None:
    """What one call of ours launches: the floor's other half, which is latency, is in here."""
    for op in OPS:
        for batch in (1, 64):
            drawn = inputs(op, {**SIZES, "batch": batch}, torch.float32, device, seed=0)
            run(op.ours, drawn)
            with profile(activities=[ProfilerActivity.CUDA]) as profiler:
                run(op.ours, drawn)
                torch.cuda.synchronize()
            for event in profiler.key_averages():
                if event.device_type == torch.autograd.DeviceType.CUDA:
                    name = event.key.removeprefix("void ").removeprefix("cdkd::cuda::").split("(")[0][:70]
                    time_of_all = f"{event.self_device_time_total:.1f}"
                    table["rows"].append([op.name, str(batch), name, str(event.count), time_of_all])


def add_rows(table: Table, plan: Plan, measured: Measured) -> bool:
    """A row of plain calls and one of captured ones; returns whether a result of ours was wrong."""
    tolerance = plan.op.tolerance[plan.dtype != torch.float32]
    worst = measured.differences[OURS]
    wrong = not worst <= tolerance
    for suffix in ("", GRAPH):
        if OURS + suffix not in measured.samples:
            continue
        ours = statistics.median(measured.samples[OURS + suffix])
        others = [relative(measured.samples, name + suffix, OURS + suffix) for name in COLUMNS[3:7]]
        verdict = f"{worst:.1e}{' WRONG' if wrong else ''}"
        cells = [plan.title + suffix, microseconds(ours), f"{ours / measured.floor:.2f}", *others]
        of_eager = f"{measured.differences[EAGER]:.1e}" if EAGER in measured.differences else ""
        table["rows"].append([*cells, microseconds(measured.floor), verdict, of_eager])
    return wrong


def relative(samples: dict[str, list[float]], name: str, ours: str) -> str:
    """Median over the rounds of a competitor's time in ours."""
    if name not in samples:
        return ""
    ratios = [other / own for other, own in zip(samples[name], samples[ours], strict=True)]
    return f"{statistics.median(ratios):.2f}"


def microseconds(value: float) -> str:
    """A time in µs."""
    return f"{value * 1e6:.1f} µs"


if __name__ == "__main__":
    main()
