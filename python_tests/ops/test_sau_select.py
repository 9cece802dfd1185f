"""sau_select against its float64 twin and torch's BatchNorm2d, in training and evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cdkd_ext import ops
from cdkd_ext.errors import InputError
from cdkd_ext.ops import reference

FIXED = ("running_mean", "running_var")


def draw(
    samples: int = 3,
    channels: int = 4,
    size: tuple[int, int] = (5, 6),
    *,
    kernels: tuple[int, ...] = (3, 5),
    hidden: int = 3,
    projectors: int = 2,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype)

    def positive(*shape: int) -> Tensor:
        return (0.5 + torch.rand(*shape, generator=generator, dtype=torch.float64)).to(dtype)

    branches = len(kernels)
    return {
        "feature": normal(samples, channels, *size),
        "conv_weights": [normal(channels, channels, k, k, scale=1 / (k * channels**0.5)) for k in kernels],
        "norm_weight": positive(branches, channels),
        "norm_bias": normal(branches, channels, scale=0.3),
        "running_mean": normal(branches, channels, scale=0.1),
        "running_var": positive(branches, channels),
        "squeeze_weight": normal(hidden, channels),
        "squeeze_bias": normal(hidden, scale=0.1),
        "select_weight": normal(projectors, channels, hidden),
        "select_bias": normal(projectors, channels),
    }


def convert(inputs: dict[str, Any], to: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    return {
        name: [to(x) for x in value] if isinstance(value, list) else to(value)
        for name, value in inputs.items()
    }


def run(
    function: Callable[..., Tensor], inputs: dict[str, Any], *, training: bool, **options: Any
) -> dict[str, Tensor]:
    """Selection, gradients by input (of a selection weighted unequally), and the running statistics afterwards."""
    inputs = convert(inputs, lambda x: x.detach().clone())
    leaves = {name: value for name, value in inputs.items() if name not in ("conv_weights", *FIXED)}
    leaves |= {f"conv_weights[{m}]": weight for m, weight in enumerate(inputs["conv_weights"])}
    for leaf in leaves.values():
        leaf.requires_grad_()
    selection = function(**inputs, training=training, **options)
    weights = torch.linspace(-1, 2, selection.numel(), dtype=torch.float64).sin().reshape(selection.shape)
    gradients = torch.autograd.grad((selection * weights.to(selection.dtype)).sum(), list(leaves.values()))
    return {
        "selection": selection.detach(),
        **dict(zip(leaves, gradients, strict=True)),
        **{name: inputs[name] for name in FIXED},
    }


def assert_near(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert actual.keys() == expected.keys()
    largest = max(e.abs().max().item() for name, e in expected.items() if name not in (*FIXED, "selection"))
    for name, e in expected.items():
        error = (actual[name].double() - e.double()).abs().max().item()
        scale = e.abs().max().item()
        # a gradient may vanish by cancellation: what rounding leaves of it is measured by the others
        assert error <= tolerance * (scale + 0.01 * largest), f"{name}: {error} of {scale}"


@settings(max_examples=30)
@given(
    samples=st.sampled_from([2, 7, 8, 9, 17]),
    channels=st.sampled_from([1, 2, 5, 6, 7, 13, 33]),
    height=st.sampled_from([1, 2, 5, 8]),
    width=st.sampled_from([1, 3, 8, 9]),
    kernels=st.lists(st.sampled_from([1, 3, 5, 7]), min_size=1, max_size=4),
    projectors=st.integers(1, 4),
    training=st.booleans(),
    seed=st.integers(0, 99),
)
def test_matches_the_twin(
    samples: int,
    channels: int,
    height: int,
    width: int,
    kernels: list[int],
    projectors: int,
    training: bool,
    seed: int,
) -> None:
    inputs = draw(
        samples, channels, (height, width), kernels=tuple(kernels), projectors=projectors, seed=seed
    )
    expected = run(reference.sau_select, inputs, training=training, eps=1e-3)
    assert_near(run(ops.sau_select, inputs, training=training, eps=1e-3), expected, 1e-8)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("samples", [15, 33])
def test_narrow_types_are_summed_in_float32(dtype: torch.dtype, training: bool, samples: int) -> None:
    inputs = draw(samples, 17, (6, 5), kernels=(3, 7), dtype=dtype)
    inputs |= {name: inputs[name].float() for name in FIXED}
    expected = run(reference.sau_select, convert(inputs, Tensor.double), training=training)
    actual = run(ops.sau_select, inputs, training=training)
    assert actual["selection"].dtype == torch.float32
    assert actual["feature"].dtype == actual["conv_weights[0]"].dtype == actual["select_bias"].dtype == dtype
    assert (actual["selection"].double() - expected["selection"]).abs().max() < 1e-5
    # one response on the other side of the ReLU changes a gradient visibly, hence not tighter for float32
    assert_near(actual, expected, {torch.float32: 1e-3, torch.bfloat16: 2e-2, torch.float16: 4e-3}[dtype])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("samples", "size"),
    [(1, (8, 5)), (1, (7, 3)), (2, (16, 4)), (3, (10, 6)), (5, (9, 2)), (1, (17, 4)), (8, (4, 4))],
)
def test_samples_that_are_cut_into_strips(
    samples: int, size: tuple[int, int], dtype: torch.dtype, training: bool
) -> None:
    """Fewer samples than vector lanes: each is cut where its height allows, and the strips overlap."""
    inputs = draw(samples, 3, size, kernels=(1, 3, 7), dtype=dtype)
    expected = run(reference.sau_select, convert(inputs, Tensor.double), training=training)
    actual = run(ops.sau_select, inputs, training=training)
    assert_near(actual, expected, 1e-11 if dtype == torch.float64 else 2e-4)


@pytest.mark.parametrize("training", [True, False])
def test_gradcheck(training: bool) -> None:
    inputs = draw(2, 3, (3, 4), kernels=(3, 5))
    names = [name for name in inputs if name not in ("conv_weights", *FIXED)]
    leaves = [inputs[name].requires_grad_() for name in names]
    convolutions = [weight.requires_grad_() for weight in inputs["conv_weights"]]

    def function(*tensors: Tensor) -> Tensor:
        given = dict(zip(names, tensors, strict=False))
        running = {name: inputs[name].clone() for name in FIXED}
        return ops.sau_select(**given, **running, conv_weights=list(tensors[len(names) :]), training=training)

    assert torch.autograd.gradcheck(function, [*leaves, *convolutions])


def test_each_gradient_alone() -> None:
    inputs = draw()
    expected = run(ops.sau_select, inputs, training=True)
    weights = torch.linspace(-1, 2, 24, dtype=torch.float64).sin().reshape(3, 2, 4)
    for name in ("feature", "norm_bias", "select_weight"):
        chosen = convert(inputs, torch.clone)
        chosen[name].requires_grad_()
        (ops.sau_select(**chosen, training=True) * weights).sum().backward()
        assert torch.equal(chosen[name].grad, expected[name]), name


@pytest.mark.parametrize("momentum", [0.1, 0.5])
def test_running_statistics_are_those_of_batch_norm(momentum: float) -> None:
    inputs = draw(5, 6, (4, 7), dtype=torch.float32)
    norms = [nn.BatchNorm2d(6, momentum=momentum) for _ in inputs["conv_weights"]]
    for m, norm in enumerate(norms):
        norm.running_mean.copy_(inputs["running_mean"][m])
        norm.running_var.copy_(inputs["running_var"][m])
    for step in range(3):
        inputs["feature"] = torch.randn(5, 6, 4, 7, generator=torch.Generator().manual_seed(step))
        ops.sau_select(**inputs, training=True, momentum=momentum)
        for m, (norm, weight) in enumerate(zip(norms, inputs["conv_weights"], strict=True)):
            norm(F.conv2d(inputs["feature"], weight, padding=weight.shape[-1] // 2))
            torch.testing.assert_close(inputs["running_mean"][m], norm.running_mean)
            torch.testing.assert_close(inputs["running_var"][m], norm.running_var)


def test_evaluation_uses_the_running_statistics_and_leaves_them() -> None:
    inputs = draw()
    before = convert(inputs, torch.clone)
    together = ops.sau_select(**inputs, training=False)
    alone = ops.sau_select(**{**inputs, "feature": inputs["feature"][1:2]}, training=False)
    # alone, the sample is cut into strips and its pixels are added in another order
    torch.testing.assert_close(together[1:2], alone, rtol=1e-13, atol=0)
    assert all(torch.equal(inputs[name], before[name]) for name in FIXED)


def test_registration() -> None:
    inputs = draw()
    tensors = [value for name, value in inputs.items() if name != "conv_weights"]
    for tensor in (tensors[0], *inputs["conv_weights"], *tensors[1:3]):
        tensor.requires_grad_()
    args = (tensors[0], inputs["conv_weights"], *tensors[1:])
    torch.library.opcheck(torch.ops.cdkd.sau_select.default, args, {"training": True})
    torch.library.opcheck(
        torch.ops.cdkd.sau_select_forward.default, (*args, False, 1e-5), test_utils="test_faketensor"
    )


def test_compiles_into_one_graph_and_moves_the_running_statistics() -> None:
    inputs = draw(dtype=torch.float32)
    torch._dynamo.reset()
    compiled = torch.compile(ops.sau_select, fullgraph=True, backend="aot_eager")
    expected = run(ops.sau_select, inputs, training=True)
    actual = run(compiled, inputs, training=True)
    assert not torch.equal(actual["running_mean"], inputs["running_mean"])
    assert_near(actual, expected, 1e-6)


def test_nothing_is_recorded_without_need() -> None:
    assert ops.sau_select(**draw(), training=True).grad_fn is None
    inputs = draw()
    inputs["conv_weights"][1].requires_grad_()
    assert ops.sau_select(**inputs, training=False).grad_fn is not None
    with torch.no_grad():
        assert ops.sau_select(**inputs, training=False).grad_fn is None


def test_strided_inputs() -> None:
    inputs = draw()
    strided = convert(inputs, lambda x: x.mT.contiguous().mT if x.dim() > 1 else x)
    assert not strided["feature"].is_contiguous()
    expected = run(ops.sau_select, inputs, training=True)
    for name, actual in run(ops.sau_select, strided, training=True).items():
        assert torch.equal(actual, expected[name]), name


@pytest.mark.parametrize("training", [True, False])
def test_empty_batch(training: bool) -> None:
    inputs = draw(0)
    result = run(ops.sau_select, inputs, training=training)
    assert result["selection"].shape == (0, 2, 4)
    assert result["feature"].shape == (0, 4, 5, 6)
    assert not result["conv_weights[1]"].any()
    assert torch.equal(result["running_var"], inputs["running_var"])


def test_nan_stays_in_its_sample_unless_the_batch_is_mixed() -> None:
    inputs = draw(4)
    clean = ops.sau_select(**inputs, training=False)
    inputs["feature"][2, 1, 0, 0] = torch.nan
    selection = ops.sau_select(**inputs, training=False)
    assert selection[2].isnan().all()
    assert torch.equal(selection[[0, 1, 3]], clean[[0, 1, 3]])
    assert ops.sau_select(**inputs, training=True).isnan().all()


def test_bits_do_not_depend_on_threads() -> None:
    inputs = draw(19, 17, (9, 8), kernels=(3, 5, 7, 7), dtype=torch.float32)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            results.append(run(ops.sau_select, inputs, training=True))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(result[name], results[0][name]) for name in result)


@pytest.mark.parametrize(
    ("name", "change", "error"),
    [
        ("feature", lambda x: x[0], InputError),
        ("feature", lambda x: x[..., :0], InputError),
        ("conv_weights", lambda x: [], InputError),
        ("conv_weights", lambda x: x[0], TypeError),
        ("conv_weights", lambda x: [x[0], x[1][..., :4, :4]], InputError),
        ("conv_weights", lambda x: [x[0], x[1][..., :3]], InputError),
        ("norm_weight", lambda x: x[:1], InputError),
        ("running_var", lambda x: x.long(), TypeError),
        ("squeeze_weight", lambda x: x[:, :1], InputError),
        ("squeeze_bias", lambda x: x[:1], InputError),
        ("select_weight", lambda x: x[:, :1], InputError),
        ("select_bias", lambda x: x.to("meta"), InputError),
    ],
)
def test_bad_tensors_are_named(name: str, change: Callable[[Any], Any], error: type[Exception]) -> None:
    inputs = draw()
    inputs[name] = change(inputs[name])
    with pytest.raises(error, match=rf"^{name}(\[\d\])?: expected .*, got "):
        ops.sau_select(**inputs, training=False)


@pytest.mark.parametrize("options", [{"momentum": 1.5}, {"eps": 0.0}])
def test_bad_options_are_named(options: dict[str, float]) -> None:
    (name,) = options
    with pytest.raises(InputError, match=f"^{name}: expected .*, got "):
        ops.sau_select(**draw(), training=False, **options)


def test_one_value_has_no_variance() -> None:
    inputs = draw(1, 4, (1, 1))
    with pytest.raises(InputError, match="several values per channel"):
        ops.sau_select(**inputs, training=True)
    assert ops.sau_select(**inputs, training=False).isfinite().all()


def test_the_raw_op_names_what_is_wrong() -> None:
    inputs = draw()
    inputs["select_bias"] = inputs["select_bias"][:1]
    with pytest.raises(RuntimeError, match="select_bias: expected shape"):
        torch.ops.cdkd.sau_select(*inputs.values(), training=False)
