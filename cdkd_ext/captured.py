"""A function of tensors, replayed from CUDA graphs: a GPU then waits for no launches."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

Function = Callable[..., tuple[Tensor, ...]]
_WARM_UPS = 3  # before a capture: libraries choose their algorithms and allocate what they keep
_logger = logging.getLogger(__name__)


class Replay(Protocol):
    """A captured call."""

    def __call__(self, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        """The outputs for inputs of the captured shapes, in tensors of their own."""
        ...


class CapturedFunction:
    """Calls a function through a CUDA graph for each set of shapes of its inputs.

    The first calls of a shape are plain ones, so that the smaller last batch of an epoch costs no capture; the next
    one captures. Off a GPU, where something is being captured already, beyond `most_shapes`, and after a capture that
    failed, calls are plain ones.

    Args:
        function: reads no value on the host, and depends on nothing but its inputs, tensors or None, and on weights that
            stay where they are.
        most_shapes: graphs to keep; each holds the memory of one call.
        plain_calls: of a shape before it is captured.
        capture: makes a replay of the function for inputs like these.
        on_gpu: whether an input's device has graphs.

    Example:
        >>> import torch
        >>> from cdkd_ext.captured import CapturedFunction
        >>> CapturedFunction(lambda x: (x + 1,))(torch.zeros(2))
        (tensor([1., 1.]),)
    """

    def __init__(
        self,
        function: Function,
        *,
        most_shapes: int = 2,
        plain_calls: int = 1,
        capture: Callable[..., Replay] | None = None,
        on_gpu: Callable[[Tensor], bool] | None = None,
    ) -> None:
        self._function = function
        self._most_shapes = most_shapes
        self._plain_calls = plain_calls
        self._capture = capture or CapturedCall
        self._on_gpu = on_gpu or _can_capture
        self._replays: dict[object, Replay] = {}
        self._seen: Counter[object] = Counter()
        self._failed = False

    def __call__(self, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        """The function's outputs, in tensors of their own."""
        given = [x for x in inputs if x is not None]
        captures = not self._failed and all(self._on_gpu(x) for x in given)
        replay = self._replay_for(inputs) if captures else None
        if replay is None:
            return self._function(*inputs)
        return replay(*inputs)

    def _replay_for(self, inputs: tuple[Tensor | None, ...]) -> Replay | None:
        key = tuple(None if x is None else (x.shape, x.stride(), x.dtype, x.device) for x in inputs)
        if key not in self._replays:
            if self._seen[key] < self._plain_calls or len(self._replays) >= self._most_shapes:
                self._seen[key] += 1
                return None
            try:
                self._replays[key] = self._capture(self._function, *inputs)
            except RuntimeError as error:
                self._failed = True
                _logger.warning("no CUDA graph, plain calls instead: %s", error)
                return None
        return self._replays[key]


class CapturedCall:
    """A function as a CUDA graph for inputs like these, in buffers that stay where they are.

    Args:
        function: see `CapturedFunction`.
        inputs: on a GPU, or None.
        warm_ups: calls before the one that is captured; 0 of a function that may not be called more often than asked.

    Raises:
        RuntimeError: the function does something that cannot be captured.
    """

    def __init__(self, function: Function, *inputs: Tensor | None, warm_ups: int = _WARM_UPS) -> None:
        self._device = next(x.device for x in inputs if x is not None)
        with torch.cuda.device(self._device):
            # keeps the memory format: the graph reads exactly these addresses
            self._inputs = [None if x is None else x.clone() for x in inputs]
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(warm_ups):
                    function(*self._inputs)
            torch.cuda.current_stream().wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            # a loader's thread may pin memory meanwhile, which a capture in the default mode would not survive
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._outputs = function(*self._inputs)
            self._done = torch.cuda.Event()
            self._done.record()

    def __call__(self, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        """Copy the inputs, replay, and return copies of the outputs."""
        with torch.cuda.device(self._device):
            # a call from another stream must not overwrite buffers that the last one still reads
            torch.cuda.current_stream().wait_event(self._done)
            for buffer, x in zip(self._inputs, inputs, strict=True):
                if buffer is not None and x is not None:
                    buffer.copy_(x)
            self._graph.replay()
            outputs = tuple(output.clone() for output in self._outputs)
            self._done.record()
        return outputs


def _can_capture(x: Tensor) -> bool:
    return (
        x.is_cuda
        and x.numel() > 0
        and not torch.compiler.is_compiling()
        and not torch.cuda.is_current_stream_capturing()
    )
