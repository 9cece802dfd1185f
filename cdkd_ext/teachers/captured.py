"""A function of one tensor, replayed from CUDA graphs: a GPU then waits for no launches."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

Function = Callable[[Tensor], tuple[Tensor, ...]]
_WARM_UPS = 3  # before a capture: libraries choose their algorithms and allocate what they keep
_logger = logging.getLogger(__name__)


class Replay(Protocol):
    """A captured call."""

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """The outputs for an input of the captured shape, in tensors of their own."""
        ...


class CapturedFunction:
    """Calls a function through a CUDA graph for each shape of its input.

    The first call of a shape is a plain one, so that the smaller last batch of an epoch costs no capture; the second
    one captures. Off a GPU, where something is being captured already, beyond `most_shapes`, and after a capture that
    failed, calls are plain ones.

    Args:
        function: computes without gradients, reads no value on the host, and depends on nothing but its input and
            on weights that stay where they are.
        most_shapes: graphs to keep; each holds the memory of one call.
        capture: makes a replay of the function for inputs like one.
        on_gpu: whether an input's device has graphs.

    Example:
        >>> import torch
        >>> from cdkd_ext.teachers.captured import CapturedFunction
        >>> CapturedFunction(lambda x: (x + 1,))(torch.zeros(2))
        (tensor([1., 1.]),)
    """

    def __init__(
        self,
        function: Function,
        *,
        most_shapes: int = 2,
        capture: Callable[[Function, Tensor], Replay] | None = None,
        on_gpu: Callable[[Tensor], bool] | None = None,
    ) -> None:
        self._function = function
        self._most_shapes = most_shapes
        self._capture = capture or CapturedCall
        self._on_gpu = on_gpu or _can_capture
        self._replays: dict[object, Replay] = {}
        self._seen: set[object] = set()
        self._failed = False

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """The function's outputs, in tensors of their own."""
        replay = None if self._failed or not self._on_gpu(x) else self._replay_for(x)
        if replay is None:
            return self._function(x)
        return replay(x)

    def _replay_for(self, x: Tensor) -> Replay | None:
        key = (x.shape, x.stride(), x.dtype, x.device)
        if key not in self._replays:
            if key not in self._seen or len(self._replays) >= self._most_shapes:
                self._seen.add(key)
                return None
            try:
                self._replays[key] = self._capture(self._function, x)
            except RuntimeError as error:
                self._failed = True
                _logger.warning("no CUDA graph, plain calls instead: %s", error)
                return None
        return self._replays[key]


class CapturedCall:
    """A function as a CUDA graph for inputs like one, in buffers that stay where they are.

    Args:
        function: see `CapturedFunction`.
        example: an input on a GPU.

    Raises:
        RuntimeError: the function does something that cannot be captured.
    """

    def __init__(self, function: Function, example: Tensor) -> None:
        self._device = example.device
        with torch.cuda.device(self._device):
            # keeps the memory format: the graph reads exactly these addresses
            self._input = example.clone()
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UPS):
                    function(self._input)
            torch.cuda.current_stream().wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            # a loader's thread may pin memory meanwhile, which a capture in the default mode would not survive
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._outputs = function(self._input)
            self._done = torch.cuda.Event()
            self._done.record()

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """Copy the input, replay, and return copies of the outputs."""
        with torch.cuda.device(self._device):
            # a call from another stream must not overwrite buffers that the last one still reads
            torch.cuda.current_stream().wait_event(self._done)
            self._input.copy_(x)
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
