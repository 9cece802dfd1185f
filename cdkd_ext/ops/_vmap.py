"""What `torch.vmap` does with a compiled op."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from cdkd_ext.ops._library import library

Rule = Callable[..., tuple[Any, Any]]


def register_vmap(name: str, rule: Rule | None = None) -> None:
    """Register a rule for `cdkd::name`; without one the op is called for each sample."""
    torch.library.register_vmap(f"cdkd::{name}", rule or one_by_one(getattr(torch.ops.cdkd, name).default))


def refuse_batched_gradients(name: str, sentence: str) -> None:
    """Say what is wrong where autograd maps an op over gradients and has no way of its own: it maps no lists.

    It does so for `is_grads_batched=True`, by an older mechanism than `torch.vmap`.
    """

    def refuse(*args: Any, **options: Any) -> NoReturn:
        raise RuntimeError(sentence)

    with contextlib.suppress(RuntimeError):  # where torch no longer has that mechanism
        library.impl(name, refuse, "Batched")


def one_by_one(op: Callable[..., Any]) -> Rule:
    """Rule that calls an op for each sample."""

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any, **options: Any) -> tuple[Any, Any]:
        if info.batch_size == 0:
            return _empty(op, in_dims, args, options)
        samples = [op(*_at(i, args, in_dims), **options) for i in range(info.batch_size)]
        return _map(lambda *x: torch.stack(x), *samples), _map(lambda _: 0, samples[0])

    return rule


def as_rows(op: Callable[..., Any], tensors: int = 2, *, also: Sequence[int] = ()) -> Rule:
    """Rule for an op of rows: the mapped axis becomes the first of those that lead to the rows of some arguments.

    These are the first ones, so many `tensors`, and those at the places `also`, which may be None.
    """
    places = (*range(tensors), *also)

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any, **options: Any) -> tuple[Any, Any]:
        rows = list(args)
        for place in places:
            if place < len(args) and args[place] is not None:
                rows[place] = _leading(args[place], in_dims[place], info.batch_size)
        result = op(*rows, **options)
        return result, _map(lambda x: 0 if x.shape[:1] == (info.batch_size,) else None, result)

    return rule


def _leading(x: Tensor, dim: int | None, size: int) -> Tensor:
    return x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)


def _at(index: int, values: Any, dims: Any) -> Any:
    """Sample `index` of nested arguments."""
    if isinstance(values, (list, tuple)):
        return type(values)(_at(index, x, dim) for x, dim in zip(values, dims, strict=True))
    return values if dims is None else values.select(dims, index)


def _empty(op: Callable[..., Any], in_dims: Any, args: Any, options: dict[str, Any]) -> tuple[Any, Any]:
    """Results for no samples, their shapes found with tensors that have no data."""

    def sample(x: Any, dim: int | None) -> Any:
        if not isinstance(x, Tensor):
            return x
        return x.to("meta") if dim is None else x.new_empty(x.movedim(dim, 0).shape[1:], device="meta")

    shapes = op(*_map(sample, args, in_dims), **options)
    device = next(x.device for x in args if isinstance(x, Tensor))
    return _map(lambda x: x.new_empty((0, *x.shape), device=device), shapes), _map(lambda _: 0, shapes)


def _map(function: Callable[..., Any], *trees: Any) -> Any:
    """Apply a function to the leaves of equally nested lists and tuples."""
    if isinstance(trees[0], (list, tuple)):
        return type(trees[0])(_map(function, *leaves) for leaves in zip(*trees, strict=True))
    return function(*trees)
