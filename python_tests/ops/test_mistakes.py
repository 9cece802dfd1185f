"""Bad arguments: the kernel and the fake, which takes its place without data, name the same argument alike."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._pytree import tree_map

from cdkd_ext import ops
from cdkd_ext.errors import InputError

Change = Callable[[Any], Any]
VARIANTS = {
    "cca_kl": "paper",
    "simcc_kl": "hard",
    "simcc_decode": "flipped",
    "projector_cosine": "relu",
    "sau_select": "training",
}


def rank(x: Tensor) -> Tensor:
    return x[None]


def flat(x: Tensor) -> Tensor:
    return x.flatten()


def narrow(x: Tensor) -> Tensor:
    return x[..., :-1]


def few(x: Tensor) -> Tensor:
    return x[:-1]


def no_bins(x: Tensor) -> Tensor:
    return x[..., :0]


def whole(x: Tensor) -> Tensor:
    return x.long()


def lone(_: None) -> Tensor:
    return torch.ones(2)


def wholes(_: None) -> Tensor:
    return torch.ones(2, 3, dtype=torch.int64)


def numbers(x: Tensor) -> Any:
    return x.tolist()


def changed(value: Any) -> Change:
    def replace(_: Any) -> Any:
        return value

    replace.__name__ = repr(value)
    return replace


def part(index: int, change: Change) -> Change:
    """Change one of several tensors."""

    def replace(values: Any) -> Any:
        return type(values)(change(x) if i == index else x for i, x in enumerate(values))

    replace.__name__ = f"{index}-{change.__name__}"
    return replace


TABLE: dict[str, list[tuple[str, str, Change]]] = {
    "cca_kl": [
        *(("student_logits", "", change) for change in (rank, few, no_bins, whole, numbers)),
        *(("teacher_logits", "", change) for change in (rank, few, no_bins, whole, numbers)),
        ("tau", "", lambda x: torch.ones(2)),
        ("tau", "", whole),
        *(("tau", "", changed(value)) for value in (0.0, -1, math.nan, math.inf, "warm")),
        ("tau", "", changed(None)),
        ("phase", "", changed("left")),
        ("phase", "", changed(3)),
        *(("offset", "", changed(value)) for value in (math.nan, math.inf, -math.inf, "far")),
        *(("weights", "", change) for change in (lone, wholes, changed([1.0]), changed(2.0))),
        *(("probabilities", "", changed(value)) for value in ("yes", None, np.True_)),
    ],
    "simcc_kl": [
        *(("logits", "", change) for change in (rank, few, no_bins, whole, numbers)),
        *(("target", "", change) for change in (rank, few, whole, numbers, flat)),
        *(("label_smoothing", "", changed(value)) for value in (1.0, -0.1, math.nan, "much")),
        *(("sigma", "", changed(value)) for value in (0.0, -1.0, math.inf, math.nan, "wide")),
    ],
    "simcc_decode": [
        *(("logits_x", "", change) for change in (rank, flat, no_bins, whole, numbers)),
        *(("logits_y", "", change) for change in (rank, few, no_bins, whole, numbers)),
        *(("split_ratio", "", changed(value)) for value in (0.0, -1.0, math.inf, math.nan, "two")),
        ("score", "", changed("sum")),
        ("flipped", "", lambda x: x[:2]),
        ("flipped", "", changed(1)),
        *(("flipped", "[0]", part(0, change)) for change in (few, narrow, whole, numbers)),
        *(("flipped", "[1]", part(1, change)) for change in (few, narrow, whole)),
        *(("flipped", "[2]", part(2, change)) for change in (few, rank, torch.Tensor.double)),
        *(("to_image", "", change) for change in (few, narrow, whole, numbers)),
    ],
    "projector_cosine": [
        *(("feature", "", change) for change in (rank, no_bins, whole, numbers)),
        ("feature", "", lambda x: x[:, :0]),
        *(("weight", "", change) for change in (rank, narrow, whole, numbers)),
        *(("bias", "", change) for change in (rank, few, narrow, whole, numbers)),
        *(("select", "", change) for change in (rank, few, narrow, whole, numbers)),
        *(("teacher", "", change) for change in (rank, few, narrow, whole, numbers)),
        ("activation", "", changed("gelu")),
        ("eps", "", changed(-1.0)),
        *(("eps", "", changed(value)) for value in (math.nan, math.inf)),
        *(("recompute", "", changed(value)) for value in ("yes", None)),
    ],
    "sau_select": [
        *(("feature", "", change) for change in (rank, flat, no_bins, whole, numbers)),
        ("feature", "", lambda x: x[:1, :, :1, :1]),
        ("conv_weights", "", changed([])),
        ("conv_weights", "", lambda x: x * 17),
        ("conv_weights", "[0]", part(0, lambda x: torch.zeros(3, 3, 129, 129))),
        ("conv_weights", "", lambda x: x[0]),
        *(("conv_weights", "[1]", part(1, change)) for change in (rank, narrow, few, whole, numbers)),
        ("conv_weights", "[0]", part(0, lambda x: x[..., :2, :2])),
        *(
            (name, "", change)
            for name in ("norm_weight", "norm_bias", "running_mean", "running_var")
            for change in (rank, few, narrow, whole, numbers)
        ),
        *(("squeeze_weight", "", change) for change in (rank, narrow, whole, numbers)),
        *(("squeeze_bias", "", change) for change in (rank, few, whole, numbers)),
        *(("select_weight", "", change) for change in (rank, narrow, whole, numbers)),
        *(("select_bias", "", change) for change in (rank, few, narrow, whole, numbers)),
        *(("eps", "", changed(value)) for value in (0.0, -1.0, math.nan, math.inf)),
        *(("momentum", "", changed(value)) for value in (1.5, -0.5, "some")),
        *(("training", "", changed(value)) for value in ("yes", None)),
    ],
}
MISTAKES = [(op, *mistake) for op, mistakes in TABLE.items() for mistake in mistakes]
WITHOUT_DATA = ["fake", "meta"]


@pytest.fixture
def arguments(find_case: Any) -> Callable[[str], dict[str, Any]]:
    """Good arguments of an op, by name."""

    def make(op: str) -> dict[str, Any]:
        args, options = find_case(op, VARIANTS[op]).inputs(torch.float32, 2)
        bound = inspect.signature(getattr(ops, op)).bind(*args, **options)
        bound.apply_defaults()
        return tree_map(lambda x: x.detach() if isinstance(x, Tensor) else x, bound.arguments)

    return make


def without_data(inputs: dict[str, Any], way: str) -> dict[str, Any]:
    mode = FakeTensorMode()

    def convert(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return mode.from_tensor(x) if way == "fake" else x.to("meta")

    return tree_map(convert, inputs)


def mistake(op: str, inputs: dict[str, Any]) -> Exception:
    with pytest.raises((ValueError, TypeError)) as caught:
        getattr(ops, op)(**inputs)
    return caught.value


@pytest.mark.parametrize(("op", "name", "place", "change"), MISTAKES)
def test_the_kernel_and_the_fake_say_the_same(
    op: str, name: str, place: str, change: Change, arguments: Callable[[str], dict[str, Any]]
) -> None:
    inputs = arguments(op)
    inputs[name] = change(inputs[name])
    from_kernel = mistake(op, inputs)
    assert type(from_kernel) in (InputError, TypeError)
    message = str(from_kernel)
    # where two arguments do not fit each other, either may be named
    named = re.match(r"(\w+)((?:\[\d\])?): expected .+, got .+$", message)
    assert named is not None, message
    if change not in (few, narrow) and not (change is rank and name in ("logits", "student_logits")):
        assert named[1] == name and named[2].startswith(place[: len(named[2])])
    for way in WITHOUT_DATA:
        from_fake = mistake(op, without_data(inputs, way))
        assert type(from_fake) is type(from_kernel)
        assert str(from_fake).replace("FakeTensor", "Tensor") == message


def tensors(inputs: dict[str, Any]) -> Iterator[tuple[str, int | None]]:
    for name, value in inputs.items():
        if isinstance(value, Tensor):
            yield name, None
        elif isinstance(value, (list, tuple)):
            yield from ((name, i) for i in range(len(value)))


@pytest.mark.parametrize(
    ("op", "changes", "message"),
    [
        (
            "sau_select",
            {"conv_weights": torch.nn.ParameterList, "squeeze_bias": few},
            "squeeze_bias: expected shape",
        ),
        ("simcc_kl", {"sigma": changed(torch.tensor(1.0)), "target": few}, "target: expected shape"),
        (
            "simcc_decode",
            {"split_ratio": changed(torch.tensor(2.0)), "score": changed("sum")},
            "score: expected one of",
        ),
    ],
)
def test_what_is_accepted_is_not_blamed_for_a_mistake_beside_it(
    op: str, changes: dict[str, Change], message: str, arguments: Callable[[str], dict[str, Any]]
) -> None:
    inputs = arguments(op)
    caught = mistake(op, inputs | {name: change(inputs[name]) for name, change in changes.items()})
    assert type(caught) is InputError and str(caught).startswith(message)


def test_what_a_type_is_called() -> None:
    student, teacher = torch.zeros(2, 6), torch.zeros(2, 24)
    with pytest.raises(TypeError, match=r"probabilities: expected a bool, got numpy\.bool"):
        ops.cca_kl(student, teacher, 1.0, probabilities=np.True_)  # type: ignore[arg-type]
    for odd in (teacher.to_sparse(), teacher.to_mkldnn()):
        with pytest.raises(
            TypeError, match=r"teacher_logits: expected a torch\.Tensor, got one of another layout"
        ):
            ops.cca_kl(student, odd, 1.0)


@pytest.mark.parametrize("tau", [10**30, Fraction(3, 2)])
def test_any_number_is_a_number(tau: Any) -> None:
    student, teacher = torch.randn(2, 6, dtype=torch.float64), torch.randn(2, 24, dtype=torch.float64)
    torch.testing.assert_close(
        ops.cca_kl(student, teacher, tau), ops.cca_kl(student, teacher, float(tau)), equal_nan=True
    )


@pytest.mark.parametrize("op", TABLE)
def test_a_tensor_on_another_device_is_named(op: str, arguments: Callable[[str], dict[str, Any]]) -> None:
    for name, index in list(tensors(arguments(op)))[1:]:
        inputs = arguments(op)
        value = inputs[name]
        moved = value.to("meta") if index is None else part(index, lambda x: x.to("meta"))(value)
        caught = mistake(op, {**inputs, name: moved})
        label = name if index is None else f"{name}[{index}]"
        assert type(caught) is InputError
        # the dispatcher does not look into optional lists: there the kernel meets the tensor, and not the fake
        place = "another device" if name == "flipped" else "meta"
        assert str(caught) == f"{label}: expected a tensor on cpu, got one on {place}"


@pytest.mark.parametrize("op", TABLE)
def test_what_torch_says_of_calls_is_left_alone(op: str, arguments: Callable[[str], dict[str, Any]]) -> None:
    with pytest.raises(TypeError, match=r"missing \d+ required"):
        getattr(ops, op)()
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        getattr(ops, op)(**arguments(op), colour=1)


@pytest.mark.parametrize("op", TABLE)
def test_a_failure_that_is_no_mistake_passes_unchanged(
    op: str, arguments: Callable[[str], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cdkd_ext.ops import _fast_path

    def broken(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(_fast_path, "is_plain", broken)
    with pytest.raises(RuntimeError, match=r"^out of memory$"):
        getattr(ops, op)(**arguments(op))


@pytest.mark.parametrize("op", TABLE)
def test_compilers_show_the_message(op: str, arguments: Callable[[str], dict[str, Any]]) -> None:
    inputs = arguments(op)
    first = next(iter(inputs))
    torch._dynamo.reset()
    compiled = torch.compile(getattr(ops, op), backend="eager", fullgraph=True)
    with pytest.raises(Exception, match=f"{first}: expected dtype .*, got int64"):
        compiled(**{**inputs, first: inputs[first].long()})


UNSEEN = {
    "cca_kl": [
        ("phase", changed("centred")),
        ("weights", lone),
        ("teacher_logits", few),
        ("student_logits", whole),
    ],
    "simcc_kl": [("label_smoothing", changed(2.0)), ("target", few)],
    "projector_cosine": [("activation", changed("gelu")), ("eps", changed(-1.0)), ("bias", few)],
    "sau_select": [("eps", changed(-1.0)), ("squeeze_bias", few)],
}


@pytest.mark.parametrize("fullgraph", [True, False])
@pytest.mark.parametrize(
    ("op", "name", "change"), [(op, *unseen) for op, changes in UNSEEN.items() for unseen in changes]
)
def test_compiled_transforms_refuse_what_the_op_refuses(
    op: str, name: str, change: Change, fullgraph: bool, arguments: Callable[[str], dict[str, Any]]
) -> None:
    inputs = arguments(op)
    inputs[name] = change(inputs[name])
    mapped = next(iter(inputs))
    if op == "sau_select":
        inputs["momentum"] = 0.0

    def call(x: Tensor) -> Any:
        return torch.func.vmap(lambda sample: getattr(ops, op)(**{**inputs, mapped: sample}))(x)

    torch._dynamo.reset()
    with pytest.raises(Exception, match=rf"\b{name}: expected "):
        torch.compile(call, backend="eager", fullgraph=fullgraph)(inputs[mapped][None])


@pytest.mark.parametrize(
    ("name", "value"),
    [("tau", -1.0), ("tau", "warm"), ("probabilities", 1), ("phase", "left"), ("offset", math.nan)],
)
def test_compilers_show_what_is_wrong_with_a_number(
    name: str, value: Any, arguments: Callable[[str], dict[str, Any]]
) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(ops.cca_kl, backend="eager")
    with pytest.raises(Exception, match=f"{name}: expected "):
        compiled(**{**arguments("cca_kl"), name: value})
    if value != "warm":  # of which torch speaks in words of its own
        torch._dynamo.reset()
        with pytest.raises(Exception, match=f"{name}: expected "):
            torch.compile(ops.cca_kl, backend="eager", fullgraph=True)(**{**arguments("cca_kl"), name: value})
