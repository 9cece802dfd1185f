"""Random calls of the five ops: legal ones, and ones with an argument spoiled."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from random_tensors import VALUES, Maker, length, random_type, small
from torch import Tensor

Arguments = dict[str, Any]


@dataclass
class Call:
    """An op with its arguments by name.

    `spoiled` names the argument that was made unfit. `must_fail` says that no value of the others makes such an
    argument legal.
    """

    op: str
    arguments: Arguments
    spoiled: str | None = None
    must_fail: bool = False
    differentiated: list[str] = field(default_factory=list)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors, those of lists as name[i]."""
        found: dict[str, Tensor] = {}
        for name, value in self.arguments.items():
            parts = value if isinstance(value, (list, tuple)) else [value]
            for i, part in enumerate(parts):
                if isinstance(part, Tensor):
                    found[f"{name}[{i}]" if parts is value else name] = part
        return found


def _cca_kl(rng: random.Random, make: Maker) -> Arguments:
    rows = [small(rng, 0, 5) for _ in range(rng.randint(0, 3))]
    classes = length(rng)
    bins = classes * rng.choice((1, 2, 3, 4, 6)) if rng.random() < 0.6 else length(rng)
    values, scale = rng.choice(VALUES), rng.choice((1, 3))
    student = make.tensor(*rows, classes, dtype=random_type(rng), values=values, scale=scale)
    teacher = make.tensor(*rows, bins, dtype=random_type(rng), values=rng.choice(VALUES), scale=scale)
    number = rng.choice((1.0, 1, 0.05, 4.5, 21.0, rng.uniform(0.5, 20)))
    if rng.random() < 0.1:
        number = rng.choice((1e-30, 1e-300, 1e30, 1e300, 5e-324))
    tau: Any = number
    if rng.random() < 0.5:
        exact = torch.full((1,) * rng.randint(0, 2), number, dtype=torch.float64)
        rounded = exact.to(random_type(rng))
        tau = rounded if 0 < rounded.item() < math.inf else exact
    options: Arguments = {}
    if rng.random() < 0.5:
        options["phase"] = rng.choice(("paper", "centered"))
    elif rng.random() < 0.8:
        near = (0, 0.5, -1, -1.5, 3, rng.uniform(-4, 4), rng.uniform(-bins, bins))
        options["offset"] = rng.choice((*near, 1e300, -1e30, 1e-300, 2.0**31))
    if rng.random() < 0.4:
        weights = make.tensor(*rows, dtype=random_type(rng), values=rng.choice(VALUES))
        options["weights"] = weights.clamp(min=0) if rng.random() < 0.5 else weights  # half of them 0
    if rng.random() < 0.3:
        options["probabilities"] = True
        if rng.random() < 0.8:
            teacher = teacher.abs() if rng.random() < 0.5 else teacher.clamp(min=0)
    return {"student_logits": student, "teacher_logits": teacher, "tau": tau, **options}


def _simcc_kl(rng: random.Random, make: Maker) -> Arguments:
    rows = [small(rng, 0, 5) for _ in range(rng.randint(0, 3))]
    bins = length(rng)
    logits = make.tensor(
        *rows, bins, dtype=random_type(rng), values=rng.choice(VALUES), scale=rng.choice((1, 3))
    )
    kind = rng.choice(("normal", "normal", "normal", "huge", "special", "ties"))
    target = make.tensor(*rows, dtype=random_type(rng), values=kind, scale=bins / 3) + bins / 2
    options: Arguments = {}
    choice = rng.random()
    if choice < 0.3:
        options["label_smoothing"] = rng.choice((0, 0.1, 0.5, 0.999999, 1e-300, rng.random()))
    elif choice < 0.7:
        options["sigma"] = rng.choice((0.5, 1.5, 6, 100.0, 1e6, 1e-3, rng.uniform(0.1, 20), None))
        if rng.random() < 0.1:
            options["sigma"] = rng.choice((1e-40, 1e-300, 1e30, 1e300, 5e-324))
    return {"logits": logits, "target": target, **options}


def _simcc_decode(rng: random.Random, make: Maker) -> Arguments:
    batch, joints = small(rng, 0, 5), small(rng, 0, 6)
    bins_x, bins_y = length(rng), length(rng)
    dtype, values = random_type(rng), rng.choice(VALUES)
    logits_x = make.tensor(batch, joints, bins_x, dtype=dtype, values=values)
    logits_y = make.tensor(batch, joints, bins_y, dtype=random_type(rng), values=values)
    ratio = rng.choice((1, 2, 2.0, 3, 4, 1.5, 2.5, 0.5, 0.01, 1000.0, rng.uniform(0.3, 5)))
    if rng.random() < 0.1:
        ratio = rng.choice((1e-30, 1e-300, 1e30, 1e300, 5e-324, 1e19))
    options: Arguments = {"score": rng.choice(("min", "max", "mean"))}
    if rng.random() < 0.5:
        permutation = torch.tensor(rng.sample(range(joints), joints), dtype=torch.int64)
        options["flipped"] = (
            make.tensor(batch, joints, bins_x, dtype=random_type(rng), values=values),
            make.tensor(batch, joints, bins_y, dtype=random_type(rng), values=rng.choice(VALUES)),
            permutation,
        )
    if rng.random() < 0.5:
        options["to_image"] = make.tensor(batch, 2, 3, dtype=random_type(rng), values=rng.choice(VALUES))
    return {"logits_x": logits_x, "logits_y": logits_y, "split_ratio": ratio, **options}


def _projector_cosine(rng: random.Random, make: Maker) -> Arguments:
    batch, channels, projectors = small(rng, 0, 6), small(rng), small(rng, 1, 10)
    positions, targets = length(rng) % 300 + 1, length(rng) % 300 + 1
    if batch * channels * projectors * positions * targets > 2_000_000:
        positions, targets = positions % 17 + 1, targets % 33 + 1
    types = [random_type(rng)] * 5 if rng.random() < 0.5 else [random_type(rng) for _ in range(5)]
    values = rng.choice(VALUES)
    shapes = {
        "feature": (batch, channels, positions),
        "weight": (projectors, targets, positions),
        "bias": (projectors, targets),
        "select": (batch, projectors, channels),
        "teacher": (batch, channels, targets),
    }
    tensors = {
        name: make.tensor(*shape, dtype=dtype, values=values if rng.random() < 0.6 else "normal")
        for (name, shape), dtype in zip(shapes.items(), types, strict=True)
    }
    return {
        **tensors,
        "activation": rng.choice(("relu", "none")),
        "eps": rng.choice((1e-8, 0, 0.1, 1e-300, 1e30)),
        "recompute": rng.random() < 0.5,
    }


def _sau_select(rng: random.Random, make: Maker) -> Arguments:
    batch, channels, branches = small(rng, 0, 9), small(rng, 1, 6), rng.randint(1, 3)
    height, width = small(rng, 1, 12), small(rng, 1, 20)
    hidden, projectors = small(rng, 1, 8), small(rng, 1, 4)
    kernels = [rng.choice((1, 3, 3, 5, 7, 11)) for _ in range(branches)]
    types = [random_type(rng)] * 10 if rng.random() < 0.6 else [random_type(rng) for _ in range(10)]
    values = rng.choice(VALUES)

    def tensor(index: int, *shape: int) -> Tensor:
        kind = values if rng.random() < 0.4 else "normal"
        return make.tensor(*shape, dtype=types[index], values=kind)

    training = rng.random() < 0.5 and batch * height * width != 1
    maps = (branches, channels)
    # torch writes into them in place, which it cannot do where elements share memory
    running_mean = tensor(4, *maps).contiguous().clone()
    running_var = (tensor(5, *maps).abs() + 0.1).contiguous()
    return {
        "feature": tensor(0, batch, channels, height, width),
        "conv_weights": [tensor(1, channels, channels, k, k) for k in kernels],
        "norm_weight": tensor(2, *maps),
        "norm_bias": tensor(3, *maps),
        "running_mean": running_mean,
        "running_var": running_var,
        "squeeze_weight": tensor(6, hidden, channels),
        "squeeze_bias": tensor(7, hidden),
        "select_weight": tensor(8, projectors, channels, hidden),
        "select_bias": tensor(9, projectors, channels),
        "training": training,
        "momentum": rng.choice((0.1, 0, 1, 0.5)),
        "eps": rng.choice((1e-5, 1e-3, 1.0, 1e-30)),
    }


_BUILDERS: dict[str, Callable[[random.Random, Maker], Arguments]] = {
    "cca_kl": _cca_kl,
    "simcc_kl": _simcc_kl,
    "simcc_decode": _simcc_decode,
    "projector_cosine": _projector_cosine,
    "sau_select": _sau_select,
}
OPS = tuple(_BUILDERS)
# the inputs that get gradients
_DIFFERENTIABLE = {
    "cca_kl": ("student_logits", "tau"),
    "simcc_kl": ("logits",),
    "simcc_decode": (),
    "projector_cosine": ("feature", "weight", "bias", "select"),
    "sau_select": (
        "feature",
        "conv_weights",
        "norm_weight",
        "norm_bias",
        "squeeze_weight",
        "squeeze_bias",
        "select_weight",
        "select_bias",
    ),
}
_WRONG_OPTIONS: dict[str, tuple[Any, ...]] = {
    "tau": (0, -1.0, float("nan"), float("inf"), "1", None),
    "phase": ("Paper", "", None, 3),
    "offset": (float("nan"), float("inf"), "1"),
    "probabilities": ("yes", None),
    "label_smoothing": (-0.1, 1.0, 1.5, float("nan"), float("inf"), "0", None),
    "sigma": (0.0, -1.0, float("nan"), float("inf"), "1"),
    "split_ratio": (0, -2.0, float("nan"), float("inf"), "2", None),
    "score": ("median", "", None, 0),
    "activation": ("gelu", "", None, 1),
    "eps": (-1.0, float("nan"), "1", None),
    "momentum": (-0.1, 1.1, float("nan"), "1", None),
}


def build(seed: int, index: int, ops: Sequence[str] = OPS) -> Call:
    """Build the call with this number in a seed's sequence; a quarter of them has a spoiled argument."""
    rng = random.Random(f"{seed}/{index}")
    make = Maker(rng)
    op = rng.choice(ops)
    call = Call(op, _BUILDERS[op](rng, make))
    if rng.random() < 0.25:
        _spoil(call, rng)
    if rng.random() < 0.7:
        _ask_for_gradients(call, rng)
    return call


def _ask_for_gradients(call: Call, rng: random.Random) -> None:
    for name, tensor in call.tensors().items():
        wanted = name.split("[")[0] in _DIFFERENTIABLE[call.op] and rng.random() < 0.8
        if wanted and tensor.is_floating_point() and tensor.is_leaf:
            tensor.requires_grad_()
            call.differentiated.append(name)


def _spoil(call: Call, rng: random.Random) -> None:
    """Make one argument unfit."""
    options = [name for name in call.arguments if name in _WRONG_OPTIONS]
    if options and rng.random() < 0.3:
        name = rng.choice(options)
        call.arguments[name], call.spoiled, call.must_fail = rng.choice(_WRONG_OPTIONS[name]), name, True
        return
    name = rng.choice(list(call.tensors()))
    spoiled, call.must_fail = _spoil_tensor(call.tensors()[name], rng)
    call.spoiled = name
    argument, _, position = name.partition("[")
    if position:
        parts = list(call.arguments[argument])
        parts[int(position[:-1])] = spoiled
        call.arguments[argument] = type(call.arguments[argument])(parts)
    else:
        call.arguments[argument] = spoiled


def _spoil_tensor(tensor: Tensor, rng: random.Random) -> tuple[Any, bool]:
    """Return what takes a tensor's place, and whether no op can take it."""
    kind = rng.choice(("type", "type", "device", "layout", "object", "rank", "rank", "size", "size", "empty"))
    if kind == "type":
        wrong = (torch.int32, torch.complex64, torch.bool, torch.uint8, torch.float8_e4m3fn)
        return tensor.to(rng.choice(wrong)), True
    if kind == "device":
        return tensor.to("meta"), False
    if kind == "layout":
        return tensor.to_sparse() if tensor.dim() else tensor, tensor.dim() > 0
    if kind == "object":
        return rng.choice((np.zeros(tensor.shape), "tensor", [1.0], {}, object())), True
    if kind == "rank":
        return (tensor[None] if rng.random() < 0.5 or not tensor.dim() else tensor.sum(-1)), False
    if not tensor.dim():
        return tensor.expand(2), False
    axis = rng.randrange(tensor.dim())
    if kind == "empty":
        return tensor.narrow(axis, 0, 0), False
    return torch.cat((tensor, tensor.narrow(axis, 0, min(1, tensor.shape[axis]))), axis), False
