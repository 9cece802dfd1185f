"""Forward and backward of a training step, on a GPU replayed from a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from cdkd_ext.captured import CapturedCall, CapturedFunction, Function, Replay

_PLAIN_CALLS = 3  # before a capture: libraries choose their algorithms and allocate what they keep


class CapturedStep:
    """Computes the losses of a batch and leaves their gradients in the parameters, in place of what was there.

    Launching the kernels of a step takes the host several times as long as a small network's step takes a GPU. The
    fourth step of a shape is captured, and it and those after it are replayed: one launch each. Every step is a step
    of the training, in plain calls and in replays alike.

    Args:
        compute: losses by name, scalars, from tensors or None, having called backward for the gradients. It reads no value on
            the host, and depends on nothing but its inputs and on what stays where it is: parameters and buffers.
        parameters: that get gradients.
        capture: makes a replay of a function for inputs like these; it is made of CUDA graphs unless given.
        on_gpu: whether an input's device has graphs.

    Example:
        >>> import torch
        >>> from cdkd_ext.training.captured_step import CapturedStep
        >>> layer = torch.nn.Linear(3, 1)
        >>> def compute(x):
        ...     loss = layer(x).square().mean()
        ...     loss.backward()
        ...     return {"total": loss}
        >>> step = CapturedStep(compute, layer.parameters())
        >>> list(step(torch.ones(2, 3))), layer.weight.grad.shape
        (['total'], torch.Size([1, 3]))
    """

    def __init__(
        self,
        compute: Callable[..., dict[str, Tensor]],
        parameters: Iterable[nn.Parameter],
        *,
        capture: Callable[..., Replay] | None = None,
        on_gpu: Callable[[Tensor], bool] | None = None,
    ) -> None:
        self._compute = compute
        self._parameters = list(parameters)
        self._make_replay = capture or _capture_once
        self._names: list[str] = []
        self._call = CapturedFunction(
            self._plain, plain_calls=_PLAIN_CALLS, capture=self._captured, on_gpu=on_gpu
        )

    def __call__(self, *inputs: Tensor | None) -> dict[str, Tensor]:
        """The losses, without gradients of their own."""
        (values,) = self._call(*inputs)
        return dict(zip(self._names, values.unbind(), strict=True))

    def _plain(self, *inputs: Tensor | None) -> tuple[Tensor]:
        for parameter in self._parameters:
            parameter.grad = None
        losses = self._compute(*inputs)
        self._names = list(losses)
        return (torch.stack([value.detach() for value in losses.values()]),)

    def _captured(self, function: Function, *inputs: Tensor | None) -> Replay:
        replay = self._make_replay(function, *inputs)
        # of this graph: steps in between, plain or of another graph, leave others
        names, gradients = self._names, [parameter.grad for parameter in self._parameters]

        def run(*given: Tensor | None) -> tuple[Tensor, ...]:
            outputs = replay(*given)
            self._names = names
            for parameter, gradient in zip(self._parameters, gradients, strict=True):
                parameter.grad = gradient
            return outputs

        return run


def _capture_once(function: Function, *inputs: Tensor | None) -> Replay:
    return CapturedCall(function, *inputs, warm_ups=0)
