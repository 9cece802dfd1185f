"""Somebody else's network as a function from crops to named tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from cdkd_ext.errors import check, check_type, fail
from cdkd_ext.onnx_file import OnnxFile, TensorInfo
from cdkd_ext.teachers.description import ROLES, TeacherDescription

Outputs = dict[str, Tensor]
_LEVELS = 100  # that an input of integers tells apart, at least


class CropNetwork(Protocol):
    """What a `ForeignTeacher` asks.

    Attributes:
        description: of the outputs, with everything about the input filled in.
    """

    description: TeacherDescription

    def __call__(self, crops: Tensor) -> Outputs:
        """Named outputs for RGB crops (B, 3, H, W) uint8, each with B rows."""
        ...


class OnnxNetwork:
    """A network in an ONNX file.

    A graph whose batch has a fixed size is run for as many crops at once.

    Args:
        file: the graph.
        description: how crops go in; what it leaves open is read from the graph.

    Attributes:
        description: with everything about the input filled in.

    Raises:
        InputError: the graph takes no images, or others than those described.
    """

    def __init__(self, file: OnnxFile, description: TeacherDescription) -> None:
        self._file = file
        self._input = _image_input(file, description.input)
        self.description = _with_input(file, self._input, description)
        _check_values(file, self._input, description)

    def __call__(self, crops: Tensor) -> Outputs:
        """Run the graph; see `CropNetwork`."""
        images = preprocessed(crops.cpu(), self.description).numpy()
        if np.issubdtype(self._input.dtype, np.integer):
            images = images.round()
        images = np.ascontiguousarray(images.astype(self._input.dtype, copy=False))
        return {name: torch.from_numpy(value) for name, value in self._file.for_each(images).items()}


class CalledNetwork:
    """A PyTorch module or another callable.

    Args:
        function: takes crops (B, 3, H, W) float32, or (B, H, W, 3) for the layout "NHWC", prepared as described, and
            returns a tensor, several in the order of the description's `outputs`, or a mapping by name. A module is
            switched to evaluation mode and its parameters are frozen.
        description: how crops go in; `input_size` is needed.

    Attributes:
        description: with everything about the input filled in.

    Raises:
        InputError: the description has no size.
    """

    def __init__(self, function: Callable[[Tensor], Any], description: TeacherDescription) -> None:
        check(description.input_size is not None, "input_size", None, "the (height, width) of the crops")
        self.description = replace(description, layout=description.layout or "NCHW")
        self._function = (
            function.eval().requires_grad_(False) if isinstance(function, nn.Module) else function
        )
        self._parameter = next(function.parameters(), None) if isinstance(function, nn.Module) else None

    @torch.no_grad()
    def __call__(self, crops: Tensor) -> Outputs:
        """Call the function; see `CropNetwork`."""
        if self._parameter is not None:
            crops = crops.to(self._parameter.device, non_blocking=True)
        returned = self._function(preprocessed(crops, self.description))
        return {name: value.detach() for name, value in named_outputs(returned, self.description).items()}


def named_outputs(returned: Any, description: TeacherDescription) -> Outputs:
    """Name what a module or another callable returned.

    Args:
        returned: a tensor, several in the order of the description's `outputs`, or a mapping by name.
        description: of the outputs.

    Raises:
        TypeError: it is none of these.
        InputError: there are fewer tensors than names.
    """
    if isinstance(returned, Mapping):
        return dict(returned)
    tensors: Sequence[Any] = (returned,) if isinstance(returned, Tensor) else returned
    check_type("teacher", tensors, (tuple, list), "a callable that returns tensors, or a mapping of them")
    names = list(dict.fromkeys((description.outputs or {}).values())) or list(ROLES[description.kind][0])
    check(len(tensors) >= len(names), "outputs", names, f"names of the {len(tensors)} tensors returned")
    for tensor in tensors:
        check_type("teacher", tensor, Tensor, "a callable that returns tensors")
    return dict(zip(names, tensors, strict=False))


def preprocessed(crops: Tensor, description: TeacherDescription) -> Tensor:
    """Turn RGB crops (B, 3, H, W) uint8 into what a described network takes, float32."""
    if description.color_order == "bgr":
        crops = crops.flip(1)
    low, high = description.range
    mean, std = (torch.tensor(values).to(crops.device) for values in (description.mean, description.std))
    # one multiplication and one addition per value
    scale = (high - low) / 255 / std
    shift = (low - mean) / std
    images = crops.float() * scale[:, None, None] + shift[:, None, None]
    return images.permute(0, 2, 3, 1).contiguous() if description.layout == "NHWC" else images.contiguous()


def _image_input(file: OnnxFile, name: str | None) -> TensorInfo:
    """The graph's input of images."""
    shown = ", ".join(map(str, file.inputs.values()))
    if name is not None:
        check(name in file.inputs, f"input of {file.path}", repr(name), f"one of {shown}")
    check(
        len(file.inputs) == 1,
        f"teacher {file.path}",
        f"the inputs {shown}",
        "a graph with one input, of images",
    )
    (info,) = file.inputs.values()
    check(len(info.shape) == 4, f"teacher {file.path}", str(info), "an input of images with four dimensions")
    return info


def _with_input(file: OnnxFile, info: TensorInfo, description: TeacherDescription) -> TeacherDescription:
    source = f"of {file.path}"
    layout = description.layout or _layout(info, source)
    channels = info.shape[1 if layout == "NCHW" else 3]
    check(channels in (3, None), f"layout {source}", f"{layout} for {info}", "the one with 3 channels")
    height, width = info.shape[2:] if layout == "NCHW" else info.shape[1:3]
    size = description.input_size
    if size is None:
        if height is None or width is None:
            fail(
                f"input_size {source}", f"nothing for {info}", "[height, width], which the graph leaves open"
            )
        size = (height, width)
    fits = height in (size[0], None) and width in (size[1], None)
    check(fits, f"input_size {source}", list(size), f"the graph's {[height, width]}")
    return replace(description, input=info.name, layout=layout, input_size=size)


def _check_values(file: OnnxFile, info: TensorInfo, description: TeacherDescription) -> None:
    """Check that pixels fit into an input of integers, and do not all become the same few numbers."""
    if not np.issubdtype(info.dtype, np.integer):
        return
    ends = [
        (end - mean) / std
        for end in description.range
        for mean, std in zip(description.mean, description.std, strict=True)
    ]
    limits = np.iinfo(info.dtype)
    fits = min(ends) >= limits.min and max(ends) <= limits.max and max(ends) - min(ends) >= _LEVELS
    got = f"{list(description.range)} with mean {list(description.mean)} and std {list(description.std)}"
    check(
        fits,
        f"range of {file.path}",
        got,
        f"what fits {np.dtype(info.dtype).name}, such as [0, 255] for uint8",
    )


def _layout(info: TensorInfo, source: str) -> Any:
    possible = [name for name, axis in (("NCHW", 1), ("NHWC", 3)) if info.shape[axis] == 3]
    if len(possible) != 1:
        fail(f"layout {source}", f"nothing for {info}", "NCHW or NHWC, which the graph leaves open")
    return possible[0]
