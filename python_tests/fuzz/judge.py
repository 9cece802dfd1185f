"""Makes a random call and says what is wrong with its outcome."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from typing import Any

import torch
from op_calls import Call
from random_tensors import MODERATE, is_moderate
from torch import Tensor

from cdkd_ext import ops
from cdkd_ext.errors import InputError
from cdkd_ext.ops import reference

_FORM = re.compile(r"\w+(\[\d+\])?: expected .+, got .+", re.DOTALL)

_MOST_MERGED = 1_000_000  # elements of the matrix by which the reference merges bins


class FindingError(AssertionError):
    """An outcome that no call may have."""


def judge(call: Call, compares: bool, counts: Counter[str]) -> list[Tensor]:
    """Make the call, forward and backward; return its results and gradients.

    Args:
        call: what to call.
        compares: whether to compare with the reference too.
        counts: counts the outcome, by op and kind.

    Raises:
        FindingError: a refusal that does not name the argument, a shape or type that is wrong, a NaN from ordinary
            inputs, a value that is not the reference's.
    """
    try:
        results = _results(getattr(ops, call.op)(**call.arguments))
    except (InputError, TypeError, RuntimeError) as error:
        _check_refusal(call, error)
        counts[f"{call.op} refused"] += 1
        return []
    if call.must_fail:
        raise FindingError(
            f"{call.spoiled} was accepted: {call.arguments[call.spoiled.split('[')[0]]!r:.200}"
        )
    counts[f"{call.op} answered"] += 1
    if call.spoiled:  # another legal call, or one without data
        return []
    _check_shapes(call, results)
    upstream = [_upstream(result) for result in results]
    gradients = _gradients(call, results, upstream)
    ordinary = _has_ordinary_options(call)
    if ordinary:
        _check_no_nan(call, results, gradients)
    if compares and ordinary and _is_comparable(call):
        _compare(call, results, gradients, upstream)
        counts[f"{call.op} compared"] += 1
    return [*results, *gradients]


def _results(value: Any) -> list[Tensor]:
    return list(value) if isinstance(value, tuple) else [value]


def _check_refusal(call: Call, error: Exception) -> None:
    if call.spoiled is None:
        raise FindingError(f"a legal call was refused: {type(error).__name__}: {error}") from error
    if isinstance(error, NotImplementedError):  # torch's dispatcher: no kernel for such a layout
        return
    if not _FORM.match(str(error)):
        raise FindingError(
            f"{call.spoiled}: refused without its name: {type(error).__name__}: {error}"
        ) from error


def _wide(call: Call) -> bool:
    deciding = {
        "cca_kl": ("student_logits", "teacher_logits"),
        "simcc_kl": ("logits",),
        "simcc_decode": ("logits_x", "logits_y"),
    }.get(call.op)
    return any(
        tensor.dtype == torch.float64
        for name, tensor in call.tensors().items()
        if deciding is None or name in deciding
    )


def _check_shapes(call: Call, results: list[Tensor]) -> None:
    a = call.arguments
    shapes = {
        "cca_kl": lambda: [a["student_logits"].shape[:-1]],
        "simcc_kl": lambda: [a["logits"].shape[:-1]],
        "simcc_decode": lambda: [(*a["logits_x"].shape[:2], 2), a["logits_x"].shape[:2]],
        "projector_cosine": lambda: [a["feature"].shape[:1]],
        "sau_select": lambda: [(len(a["feature"]), *a["select_bias"].shape)],
    }[call.op]()
    dtype = torch.float64 if _wide(call) else torch.float32
    for result, shape in zip(results, shapes, strict=True):
        if tuple(result.shape) != tuple(shape) or result.dtype != dtype:
            raise FindingError(
                f"result {tuple(result.shape)} {result.dtype}, expected {tuple(shape)} {dtype}"
            )


def _upstream(result: Tensor) -> Tensor:
    """Gradient of a result: mostly a mean's, one number expanded."""
    if result.numel() % 3 == 0:
        return torch.linspace(-1, 1.5, result.numel(), dtype=result.dtype).view(result.shape)
    return torch.full((), 0.7, dtype=result.dtype).expand(result.shape)


def _gradients(call: Call, results: list[Tensor], upstream: list[Tensor]) -> list[Tensor]:
    if not call.differentiated or not results[0].requires_grad:
        return []
    tensors = call.tensors()
    wanted = [tensors[name] for name in call.differentiated]
    found = torch.autograd.grad(results, wanted, upstream)
    for name, tensor, gradient in zip(call.differentiated, wanted, found, strict=True):
        if gradient.shape != tensor.shape or gradient.dtype != tensor.dtype:
            raise FindingError(f"gradient of {name}: {tuple(gradient.shape)} {gradient.dtype}")
    return list(found)


def _has_ordinary_options(call: Call) -> bool:
    """Whether all numbers among the options are such that no step overflows or divides by zero."""
    a = call.arguments
    tau = a.get("tau", 1.0)
    tau = float(tau) if not isinstance(tau, Tensor) else tau.item()
    eps = a.get("eps", 1e-5)
    numbers = (tau, a.get("sigma") or 1.0, a["split_ratio"] if call.op == "simcc_decode" else 1.0)
    return all(1e-3 <= number <= 1e6 for number in numbers) and eps >= 1e-8


def _moderate_rows(values: Tensor, keep: int) -> Tensor:
    """For each index of the first `keep` axes, whether all values below are moderate."""
    good = values.detach().double().abs() <= MODERATE
    return good.flatten(keep).all(-1) if good.dim() > keep else good


def _ordinary_rows(call: Call) -> Tensor:
    """Which rows, joints or samples have only ordinary inputs: they must not be touched by the others."""
    a = call.arguments
    if call.op == "cca_kl":
        return _ordinary_pairs(a)
    if call.op == "simcc_kl":
        rows = a["logits"].dim() - 1
        return _moderate_rows(a["logits"], rows) & (a["target"].double().abs() <= 1e6)
    if call.op == "simcc_decode":
        return _ordinary_joints(a)
    if call.op == "projector_cosine":
        shared = is_moderate(a["weight"], a["bias"])
        samples = [_moderate_rows(a[name], 1) for name in ("feature", "select", "teacher")]
        return samples[0] & samples[1] & samples[2] & shared
    own = [tensor for name, tensor in call.tensors().items() if name != "feature"]
    samples_ = _moderate_rows(a["feature"], 1) & is_moderate(*own)
    return samples_ & bool(samples_.all()) if a["training"] else samples_


def _ordinary_pairs(a: dict[str, Any]) -> Tensor:
    teacher, rows = a["teacher_logits"], a["student_logits"].dim() - 1
    good = _moderate_rows(a["student_logits"], rows) & _moderate_rows(teacher, rows)
    if a.get("weights") is not None:
        good = good & _moderate_rows(a["weights"], rows)
    if a.get("probabilities"):
        good = good & (teacher >= 0).all(-1) & (teacher > 0).any(-1)
    return good


def _ordinary_joints(a: dict[str, Any]) -> Tensor:
    good = _moderate_rows(a["logits_x"], 2) & _moderate_rows(a["logits_y"], 2)
    if "flipped" in a:
        mirrored_x, mirrored_y, permutation = a["flipped"]
        good = good & (_moderate_rows(mirrored_x, 2) & _moderate_rows(mirrored_y, 2))[:, permutation]
    if "to_image" in a:
        good = good & _moderate_rows(a["to_image"], 1)[:, None]
    return good


def _check_no_nan(call: Call, results: list[Tensor], gradients: list[Tensor]) -> None:
    rows = _ordinary_rows(call)
    for result in results:
        if result.detach()[rows].isnan().any():
            raise FindingError("a NaN from a row of ordinary numbers")
    if bool(rows.all()):
        for name, gradient in zip(call.differentiated, gradients, strict=False):
            if gradient.isnan().any():
                raise FindingError(f"a NaN in the gradient of {name} from ordinary numbers")


def _largest(*tensors: Tensor) -> float:
    return max(
        (tensor.detach().double().abs().max().item() for tensor in tensors if tensor.numel()), default=0.0
    )


def _is_comparable(call: Call) -> bool:
    """Whether rounding leaves digits to compare; how exact the ops are is another test's question."""
    floating = [tensor for tensor in call.tensors().values() if tensor.is_floating_point()]
    if not is_moderate(*floating):
        return False
    largest = _largest(*floating)
    a = call.arguments
    if call.op == "cca_kl":
        merged = a["student_logits"].shape[-1] * a["teacher_logits"].shape[-1]
        return merged <= _MOST_MERGED and bool(_ordinary_pairs(a).all())
    if call.op == "sau_select":
        exact = _wide(call)
        degenerate = call.arguments["training"] and not exact
        return largest <= (20 if exact else 6) and not degenerate and call.arguments["eps"] >= 1e-5
    sigma = call.arguments.get("sigma") or 1.0
    return sigma >= 0.1


def _compare(call: Call, results: list[Tensor], gradients: list[Tensor], upstream: list[Tensor]) -> None:
    arguments, leaves = _exact_arguments(call)
    expected = _results(getattr(reference, call.op)(**arguments))
    rounding = 1e-10 if _wide(call) else 2e-5
    for i, (result, exact) in enumerate(zip(results, expected, strict=True)):
        if call.op == "simcc_decode" and i == 0 and "flipped" in call.arguments:
            continue  # the mean of two softmaxes has near ties, which rounding decides
        tolerance = rounding * _scale(call, exact)
        difference = _largest(result.detach().double() - exact.detach().double())
        if not difference <= tolerance:
            raise FindingError(
                f"result {i} differs from the reference by {difference}, more than {tolerance}"
            )
    if gradients and _wide(call) and not _has_kinks(call):
        exact_gradients = torch.autograd.grad(expected, leaves, [g.double() for g in upstream])
        for name, gradient, exact in zip(call.differentiated, gradients, exact_gradients, strict=True):
            coarse = {torch.float64: 1e-7, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
            tolerance = coarse[gradient.dtype] * (_largest(exact) + _scale(call, exact))
            # the gradient of a half-precision tensor can be larger than its type holds
            limit = torch.finfo(gradient.dtype).max
            difference = _largest(gradient.double().clamp(-limit, limit) - exact.clamp(-limit, limit))
            if not difference <= tolerance:
                raise FindingError(f"gradient of {name}: off by {difference}, more than {tolerance}")


def _has_kinks(call: Call) -> bool:
    """Whether exact zeros before a ReLU are likely, where the rounding of the sum decides about the slope."""
    return call.op == "sau_select"


def _exact_arguments(call: Call) -> tuple[dict[str, Any], list[Tensor]]:
    """Arguments in float64, and those of them that get gradients."""
    leaves: dict[str, Tensor] = {}

    def exact(name: str, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [exact(f"{name}[{i}]", part) for i, part in enumerate(value)]
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        # kernels read coordinates and temperatures in the type that they compute in
        narrow = value.detach().to(torch.float64 if _wide(call) else torch.float32)
        leaves[name] = narrow.double().clone().requires_grad_(name in call.differentiated)
        return leaves[name]

    arguments = {name: exact(name, value) for name, value in call.arguments.items() if name != "recompute"}
    return arguments, [leaves[name] for name in call.differentiated]


def _scale(call: Call, exact: Tensor) -> float:
    """Size of the numbers whose rounding a result shows."""
    a = call.arguments
    if call.op == "cca_kl":
        tau = a["tau"].item() if isinstance(a["tau"], Tensor) else a["tau"]
        teacher = a["teacher_logits"]
        if a.get("probabilities"):
            teacher = torch.where(teacher > 0, teacher, 1).double().log()
        weight = _largest(a["weights"]) if a.get("weights") is not None else 1.0
        return (1 + weight) * (1 + tau + tau**2) * (1 + _largest(a["student_logits"], teacher))
    if call.op == "simcc_kl":
        return (
            (1 + 1 / (a.get("sigma") or 1.0))
            * (1 + _largest(a["logits"]))
            * (1 + math.log(a["logits"].shape[-1]))
        )
    if call.op == "simcc_decode":
        affine = _largest(a["to_image"]) if "to_image" in a else 1.0
        bins = max(a["logits_x"].shape[-1], a["logits_y"].shape[-1])
        return (1 + affine) * (1 + bins / a["split_ratio"])
    return 10.0 if call.op == "projector_cosine" else 500.0


def raw_steps(call: Call, rng: random.Random, counts: Counter[str]) -> None:
    """Make the raw calls beneath a public one, each perhaps with one tensor that does not fit.

    They have to be refused or answered; what a sanitizer or the system stops is the finding.
    """
    operators = torch.ops.cdkd
    given = {name: value for name, value in call.arguments.items() if name not in ("momentum", "recompute")}
    if isinstance(given.get("tau"), (int, float)):
        given["tau"] = torch.tensor(given["tau"], dtype=torch.float64)
    if isinstance(given.get("flipped"), tuple):
        given["flipped"] = list(given["flipped"])
    with torch.no_grad():
        _raw(getattr(operators, call.op), given, rng, counts)
        if call.op == "simcc_decode":
            return
        backward = getattr(operators, f"{call.op}_backward")
        if call.op in ("cca_kl", "simcc_kl"):
            _raw_rows(call.op, given, backward, rng, counts)
        else:
            _raw_dense(call.op, given, backward, rng, counts)


def _raw_rows(
    op: str, given: dict[str, Any], backward: Any, rng: random.Random, counts: Counter[str]
) -> None:
    options: dict[str, Any] = {"label_smoothing": 0.0, "sigma": None}
    if op == "cca_kl":
        options = {"weights": None, "phase": "paper", "offset": None, "probabilities": False}
        options["wants_tau"] = rng.random() < 0.7
    kept = _raw(getattr(torch.ops.cdkd, f"{op}_gradients"), {**options, **given}, rng, counts)
    if kept:
        loss, *rest = kept
        names = ("student_gradient", "tau_gradient") if op == "cca_kl" else ("logits_gradient",)
        _raw(
            backward, {"gradient": torch.ones_like(loss), **dict(zip(names, rest, strict=True))}, rng, counts
        )


def _raw_dense(
    op: str, given: dict[str, Any], backward: Any, rng: random.Random, counts: Counter[str]
) -> None:
    if op == "projector_cosine":
        kept = _raw(
            torch.ops.cdkd.projector_cosine_forward, {**given, "keep": rng.random() < 0.5}, rng, counts
        )
        names: tuple[str, ...] = ("projected", "active", "inner", "products")
        wants = {"wants_feature": rng.random() < 0.7, "wants_weight": rng.random() < 0.7}
        dropped: tuple[str, ...] = ()
    else:
        kept = _raw(torch.ops.cdkd.sau_select_forward, given, rng, counts)
        names = ("selection", "mean", "variance", "responses", "pooled", "passed")
        wants = {"wants_feature": rng.random() < 0.7}
        dropped = ("running_mean", "running_var")
    if not kept:
        return
    results = kept if op == "sau_select" else kept[1:]
    arguments = {name: value for name, value in given.items() if name not in dropped}
    gradient = torch.ones_like(kept[0])
    _raw(
        backward,
        {"gradient": gradient, **arguments, **dict(zip(names, results, strict=True)), **wants},
        rng,
        counts,
    )


def _raw(
    operator: Any, arguments: dict[str, Any], rng: random.Random, counts: Counter[str]
) -> list[Tensor] | None:
    arguments = dict(arguments)
    names = [
        name
        for name, value in arguments.items()
        if isinstance(value, Tensor) and value.layout == torch.strided
    ]
    if names and rng.random() < 0.4:
        name = rng.choice(names)
        arguments[name] = _misfit(arguments[name], rng)
    counts["raw called"] += 1
    try:
        return _results(operator(**arguments))
    except (RuntimeError, TypeError, ValueError):
        counts["raw refused"] += 1
        return None


def _misfit(tensor: Tensor, rng: random.Random) -> Tensor | None:
    """A tensor that probably does not fit in another's place, or None."""
    kind = rng.choice(("empty", "shorter", "longer", "rank", "type", "scalar", "expanded", "meta", "none"))
    if kind == "none":
        return None
    if kind == "type":
        return tensor.to(rng.choice((torch.float64, torch.float32, torch.float16, torch.int64, torch.uint8)))
    if kind == "meta":
        return tensor.to("meta")
    if kind == "scalar" or not tensor.dim():
        return torch.ones((), dtype=tensor.dtype)
    if kind == "rank":
        return tensor[None]
    axis = rng.randrange(tensor.dim())
    if kind == "empty":
        return tensor.narrow(axis, 0, 0)
    if kind == "shorter":
        return tensor.narrow(axis, 0, tensor.shape[axis] // 2)
    if kind == "longer":
        return torch.cat((tensor, tensor), axis)
    return torch.ones((), dtype=tensor.dtype).expand(tensor.shape)
