"""projector_cosine against its float64 twin, and what the twin cannot tell: memory, threads, bad input."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from cdkd_ext import ops
from cdkd_ext.errors import InputError
from cdkd_ext.ops import reference

NAMES = ("feature", "weight", "bias", "select", "teacher")


def draw(
    samples: int = 3,
    channels: int = 4,
    positions: int = 6,
    targets: int = 10,
    projectors: int = 2,
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> list[Tensor]:
    """feature, weight, bias, select, teacher."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return [
        normal(samples, channels, positions).to(dtype),
        (normal(projectors, targets, positions) / positions**0.5).to(dtype),
        normal(projectors, targets).to(dtype),
        torch.softmax(normal(samples, projectors, channels), 1).to(dtype),
        normal(samples, channels, targets).to(dtype),
    ]


def value_and_gradients(
    function: Callable[..., Tensor], inputs: list[Tensor], **options: object
) -> list[Tensor]:
    """The cosines, then the gradients of all inputs but the teacher, of cosines weighted unequally."""
    leaves = [x.detach().requires_grad_() for x in inputs[:4]]
    cosine = function(*leaves, inputs[4], **options)
    weights = torch.linspace(1, 2, len(cosine)).to(cosine.dtype)
    return [cosine.detach(), *torch.autograd.grad((cosine * weights).sum(), leaves)]


def assert_near(actual: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for name, a, e in zip(("cosine", *NAMES), actual, expected, strict=False):
        error = (a.double() - e.double()).abs().max().item()
        scale = e.abs().max().item()
        assert error <= tolerance * (scale + 1e-3), f"{name}: {error} of {scale}"


# around the sizes of the kernel's tiles, chunks, slices and blocks
SIZES = st.sampled_from([1, 2, 5, 15, 16, 17, 31, 33, 47, 49, 63, 64, 65, 97, 130])


@settings(max_examples=40)
@given(
    samples=st.integers(1, 7),
    channels=st.integers(1, 7),
    positions=SIZES,
    targets=SIZES,
    projectors=st.sampled_from([1, 2, 3, 8, 9]),
    activation=st.sampled_from(["relu", "none"]),
    recompute=st.booleans(),
    seed=st.integers(0, 99),
)
def test_matches_the_twin(
    samples: int,
    channels: int,
    positions: int,
    targets: int,
    projectors: int,
    activation: str,
    recompute: bool,
    seed: int,
) -> None:
    inputs = draw(samples, channels, positions, targets, projectors, seed=seed)
    expected = value_and_gradients(reference.projector_cosine, inputs, activation=activation)
    options = {"activation": activation, "recompute": recompute}
    assert_near(value_and_gradients(ops.projector_cosine, inputs, **options), expected, 1e-10)
    # rounding in float32 moves products across the ReLU's kink, and few numbers are nearly parallel: no gradient is left
    if activation == "none" and channels * targets >= 8:
        narrow = value_and_gradients(ops.projector_cosine, [x.float() for x in inputs], **options)
        assert_near(narrow, expected, 1e-3)


@pytest.mark.parametrize(("rows", "positions", "targets"), [(600, 20, 70), (20, 530, 300)])
def test_sums_deeper_than_one_block(rows: int, positions: int, targets: int) -> None:
    inputs = draw(rows // 5, 5, positions, targets, 2)
    expected = value_and_gradients(reference.projector_cosine, inputs)
    assert_near(value_and_gradients(ops.projector_cosine, inputs), expected, 1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("recompute", [False, True])
def test_narrow_types_are_summed_in_float32(dtype: torch.dtype, recompute: bool) -> None:
    inputs = draw(4, 5, 40, 70, 3, dtype=dtype)
    expected = value_and_gradients(reference.projector_cosine, [x.double() for x in inputs])
    actual = value_and_gradients(ops.projector_cosine, inputs, recompute=recompute)
    assert actual[0].dtype == torch.float32
    assert [x.dtype for x in actual[1:]] == [dtype] * 4
    assert (actual[0].double() - expected[0]).abs().max() < 1e-6
    assert_near(actual, expected, {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}[dtype])


def test_mixed_types_become_the_widest() -> None:
    feature, weight, bias, select, teacher = draw(dtype=torch.float32)
    mixed = ops.projector_cosine(feature.half(), weight, bias, select, teacher.bfloat16())
    exact = ops.projector_cosine(feature.half().float(), weight, bias, select, teacher.bfloat16().float())
    assert torch.equal(mixed, exact)
    assert ops.projector_cosine(feature, weight, bias, select.double(), teacher).dtype == torch.float64


@pytest.mark.parametrize("activation", ["relu", "none"])
@pytest.mark.parametrize("recompute", [False, True])
def test_gradcheck(activation: str, recompute: bool) -> None:
    inputs = [x.requires_grad_(i < 4) for i, x in enumerate(draw(2, 3, 4, 5, 3))]

    def function(*tensors: Tensor) -> Tensor:
        return ops.projector_cosine(*tensors, activation=activation, recompute=recompute)

    assert torch.autograd.gradcheck(function, inputs)


def test_each_gradient_alone() -> None:
    inputs = draw()
    expected = value_and_gradients(ops.projector_cosine, inputs)[1:]
    for i in range(4):
        chosen = [x.detach().requires_grad_(i == j) for j, x in enumerate(inputs)]
        cosine = ops.projector_cosine(*chosen)
        weights = torch.linspace(1, 2, len(cosine), dtype=torch.float64)
        (gradient,) = torch.autograd.grad((cosine * weights).sum(), [chosen[i]])
        assert torch.equal(gradient, expected[i]), NAMES[i]


def test_registration() -> None:
    inputs = [x.requires_grad_(i < 4) for i, x in enumerate(draw())]
    torch.library.opcheck(torch.ops.cdkd.projector_cosine.default, tuple(inputs), {"activation": "none"})
    torch.library.opcheck(
        torch.ops.cdkd.projector_cosine_forward.default, (*draw(), "relu", 1e-8, True), raise_exception=True
    )


def test_compiles_into_one_graph() -> None:
    inputs = draw(dtype=torch.float32)
    torch._dynamo.reset()
    compiled = torch.compile(ops.projector_cosine, fullgraph=True, backend="aot_eager")
    eager = value_and_gradients(ops.projector_cosine, inputs, recompute=True)
    for a, e in zip(value_and_gradients(compiled, inputs, recompute=True), eager, strict=True):
        assert torch.equal(a, e)


def test_nothing_is_recorded_without_need() -> None:
    inputs = draw()
    assert ops.projector_cosine(*inputs).grad_fn is None
    with torch.no_grad():
        assert ops.projector_cosine(inputs[0].requires_grad_(), *inputs[1:]).grad_fn is None
    teacher = draw()[4].requires_grad_()
    assert ops.projector_cosine(*draw()[:4], teacher).grad_fn is None


def test_strided_inputs() -> None:
    inputs = draw(3, 4, 18, 20, 2)
    strided = [
        x.transpose(0, 2).contiguous().transpose(0, 2) if x.dim() == 3 else x.mT.contiguous().mT
        for x in inputs
    ]
    assert not strided[0].is_contiguous()
    for a, e in zip(
        value_and_gradients(ops.projector_cosine, strided),
        value_and_gradients(ops.projector_cosine, inputs),
        strict=True,
    ):
        assert torch.equal(a, e)


@pytest.mark.parametrize("recompute", [False, True])
def test_empty_batch(recompute: bool) -> None:
    cosine, feature, weight, bias, select = value_and_gradients(
        ops.projector_cosine, draw(0), recompute=recompute
    )
    assert cosine.shape == (0,)
    assert feature.shape == (0, 4, 6)
    assert select.shape == (0, 2, 4)
    assert not weight.any()
    assert not bias.any()


@pytest.mark.parametrize("where", [0, 3, 4])
@pytest.mark.parametrize("activation", ["relu", "none"])
def test_nan_stays_in_its_sample(where: int, activation: str) -> None:
    inputs = draw(4, dtype=torch.float32)
    clean = value_and_gradients(ops.projector_cosine, inputs, activation=activation)
    inputs[where][2, 0, 0] = torch.nan
    cosine, feature, *_ = value_and_gradients(ops.projector_cosine, inputs, activation=activation)
    others = [0, 1, 3]
    assert cosine[2].isnan()
    assert feature[2].isnan().any()
    assert torch.equal(cosine[others], clean[0][others])
    assert torch.equal(feature[others], clean[1][others])


def test_norms_are_clamped() -> None:
    feature, weight, bias, select, teacher = draw()
    nothing = [feature * 0, weight, bias * 0, select, teacher]
    cosine, to_feature, *_ = value_and_gradients(ops.projector_cosine, nothing, activation="none", eps=0.5)
    expected = value_and_gradients(reference.projector_cosine, nothing, activation="none", eps=0.5)
    assert torch.equal(cosine, torch.zeros(3, dtype=torch.float64))
    assert_near([cosine, to_feature], expected, 1e-10)
    tiny = [feature * 1e-3, weight, bias * 1e-3, select, teacher * 1e-3]
    expected = value_and_gradients(reference.projector_cosine, tiny, eps=0.5)
    assert_near(value_and_gradients(ops.projector_cosine, tiny, eps=0.5), expected, 1e-10)


@pytest.mark.parametrize("recompute", [False, True])
def test_bits_do_not_depend_on_threads(recompute: bool) -> None:
    inputs = draw(13, 17, 65, 300, 3, dtype=torch.float32)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            results.append(value_and_gradients(ops.projector_cosine, inputs, recompute=recompute))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        for a, e in zip(result, results[0], strict=True):
            assert torch.equal(a, e)


def peak_bytes(function: Callable[[], object]) -> int:
    """Most bytes that torch's allocator held for `function` beyond what it held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        kept = function()
    del kept
    assert recorded.profiler is not None
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@pytest.mark.parametrize(("recompute", "share"), [(False, 1 / 4), (True, 1 / 8)])
def test_the_projected_maps_are_never_in_memory(recompute: bool, share: float) -> None:
    inputs = draw(16, 17, 64, 1024, 3, dtype=torch.float32)
    gradients = sum(x.numel() * 4 for x in inputs[:4])
    ours = peak_bytes(lambda: value_and_gradients(ops.projector_cosine, inputs, recompute=recompute))
    twin = peak_bytes(lambda: value_and_gradients(reference.projector_cosine, inputs))
    maps = 16 * 17 * 1024 * 3 * 4
    assert twin - gradients > maps
    assert ours - gradients < share * (twin - gradients)


@pytest.mark.parametrize(
    ("name", "change", "error"),
    [
        ("feature", lambda x: x[0], InputError),
        ("feature", lambda x: x[:, :0], InputError),
        ("feature", lambda x: x.long(), TypeError),
        ("weight", lambda x: x[:, :, :-1], InputError),
        ("weight", lambda x: x.tolist(), TypeError),
        ("bias", lambda x: x[:, :-1], InputError),
        ("select", lambda x: x[:, :-1], InputError),
        ("select", lambda x: x.to("meta"), InputError),
        ("teacher", lambda x: x[:-1], InputError),
    ],
)
def test_bad_tensors_are_named(name: str, change: Callable[[Tensor], object], error: type[Exception]) -> None:
    inputs = draw()
    inputs[NAMES.index(name)] = change(inputs[NAMES.index(name)])
    with pytest.raises(error, match=rf"^{name}: expected .*, got "):
        ops.projector_cosine(*inputs)


@pytest.mark.parametrize("options", [{"activation": "gelu"}, {"eps": -1.0}])
def test_bad_options_are_named(options: dict[str, object]) -> None:
    (name,) = options
    with pytest.raises(InputError, match=f"^{name}: expected .*, got "):
        ops.projector_cosine(*draw(), **options)


def test_the_raw_op_names_what_is_wrong() -> None:
    feature, weight, bias, select, teacher = draw()
    with pytest.raises(RuntimeError, match="teacher: expected shape"):
        torch.ops.cdkd.projector_cosine(feature, weight, bias, select, teacher[:, :1])
    with pytest.raises(RuntimeError, match="weight: expected dtype float64, got float32"):
        torch.ops.cdkd.projector_cosine(feature, weight.float(), bias, select, teacher)
