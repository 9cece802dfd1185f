"""A person detector from an ONNX file."""

from __future__ import annotations

import ast
import os
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cdkd_ext.detectors.layouts import candidates, recognise
from cdkd_ext.detectors.letterbox import Letterbox
from cdkd_ext.detectors.options import DetectionOptions
from cdkd_ext.detectors.pieces import merged, pieces
from cdkd_ext.errors import check, fail
from cdkd_ext.images import Image
from cdkd_ext.onnx_file import OnnxFile, TensorInfo

_DEFAULT_SIZE = 640
_GREY = 114
# RGB, of values 0 to 255
_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
_DEVIATION = np.array([58.395, 57.12, 57.375], np.float32)


class Detector:
    """Finds people in images with a network from an ONNX file.

    Exports of ultralytics (v5, v7, v8, v10, v11, v26, with and without the suppression of overlapping boxes inside), YOLOX,
    RTMDet and torchvision are recognised by their outputs' shapes and types; what cannot be seen there is an option.

    Args:
        path: the file.
        options: layout, preparation of the image and thresholds.
        threads: of one operator on a CPU; None leaves the choice to onnxruntime.
        cpu: stay on the CPU where there is a GPU.

    Attributes:
        options: as given.
        size: (height, width) of the input.
        layout: of the outputs, as recognised.
        person: number of the class of people.

    Raises:
        InputError: there is no such file, or its inputs or outputs are none of a detector.
        ModuleNotFoundError: onnxruntime is not installed.

    Example:
        ```python
        detector = Detector("yolo11n.onnx", DetectionOptions(min_score=0.5))
        boxes, scores = detector(read_image("street.jpg"))
        ```
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        options: DetectionOptions | None = None,
        *,
        threads: int | None = None,
        cpu: bool = False,
    ) -> None:
        self.options = options or DetectionOptions()
        self.options.validate()
        self._file = OnnxFile(path, threads=threads, cpu=cpu)
        self._input = self._image_input()
        self._channels_last = self._input.shape[-1] == 3
        self.size = self._input_size()
        task = self._file.metadata.get("task", "detect")
        check(task == "detect", str(self._file.path), f"a network for the task {task!r}", "a detector")
        self._outputs = recognise(str(self._file.path), self._file.outputs, self.size, self.options.layout)
        self.person = self._person_class()

    @property
    def layout(self) -> str:
        """The outputs' layout, one of `DetectionOptions.layout`."""
        return self._outputs.layout

    def __call__(self, image: Image) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Find the people in an image.

        Args:
            image: RGB uint8 (H, W, 3).

        Returns:
            Boxes (N, 4) as (x, y, width, height) in pixels of the image, cut to it, and scores (N,), highest first.

        Raises:
            InputError: the image is none, or the network fails on it.
        """
        expected = "an RGB uint8 array (H, W, 3)"
        fits = image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8 and image.size
        check(fits, "image", f"{image.dtype} {image.shape}", expected)
        found = [self._best(*self._found(image))]
        if self.options.tiles == 1:
            return found[0]
        size = (image.shape[0], image.shape[1])
        for piece in pieces(size, self.options.tiles):
            top, left, height, width = piece
            corners, scores = self._found(image[top : top + height, left : left + width])
            whole = piece.whole(corners, size)
            shift = np.array([left, top] * 2, np.float32)
            found.append(self._best(corners[whole] + shift, scores[whole]))
        return merged(found, self.options.overlap)

    def _found(self, image: Image) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Corners (N, 4) in the image and scores (N,) of what the network finds with a score that counts."""
        box = Letterbox.fit((image.shape[0], image.shape[1]), self.size, centered=self._place() == "center")
        results = self._file({self._input.name: self._prepare(box.draw(image, self._border()))})
        corners, scores = candidates(self._outputs, results, self.size, self.person)
        kept = (scores >= self.options.min_score) & np.isfinite(corners).all(1)
        return box.to_image(corners[kept]), scores[kept]

    def _best(
        self, corners: npt.NDArray[np.float32], scores: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Boxes that are not empty, each the best of those that it overlaps."""
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        sized = (boxes[:, 2:] > 0).all(1)
        boxes, scores = boxes[sized], scores[sized]
        if self.options.overlap < 1:
            chosen = cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), 0.0, self.options.overlap)
            order = np.asarray(chosen, np.int64).reshape(-1)
        else:
            order = np.argsort(-scores, kind="stable")
        return boxes[order], scores[order]

    def _image_input(self) -> TensorInfo:
        inputs = list(self._file.inputs.values())
        expected = "one input for images, (1, 3, height, width), (1, height, width, 3) or (3, height, width)"
        got = ", ".join(map(str, inputs)) or "none"
        image = inputs[0] if len(inputs) == 1 else None
        if image is None or len(image.shape) not in (3, 4) or 3 not in (image.shape[-3], image.shape[-1]):
            fail(f"{self._file.path}: inputs", got, expected)
        batch = image.shape[0] if len(image.shape) == 4 else 1
        check(batch in (None, 1), f"{self._file.path}: inputs", got, "a batch of one, or an open one")
        return image

    def _input_size(self) -> tuple[int, int]:
        shape = self._input.shape
        height, width = shape[-3:-1] if self._channels_last else shape[-2:]
        if self.options.size is not None:
            chosen = tuple(self.options.size)
            agrees = all(own in (None, other) for own, other in zip((height, width), chosen, strict=True))
            check(agrees, "detection.size", chosen, f"the size of {self._file.path}'s input, {self._input}")
            return chosen[0], chosen[1]
        if height is not None and width is not None:
            return height, width
        written = _literal(self._file.metadata.get("imgsz"))
        if not isinstance(written, (list, tuple)) or len(written) != 2:
            return _DEFAULT_SIZE, _DEFAULT_SIZE
        sides = all(isinstance(side, int) and side > 0 for side in written)
        check(sides, f"{self._file.path}: imgsz", written, "a height and a width in its metadata")
        return written[0], written[1]

    def _person_class(self) -> int:
        names = _literal(self._file.metadata.get("names"))
        if self.options.person is not None:
            return self.options.person
        if isinstance(names, (list, tuple)):
            names = dict(enumerate(names))
        if isinstance(names, dict):
            found = [number for number, name in names.items() if str(name).lower() == "person"]
            expected = "a class called person, or its number (person)"
            numbered = len(found) == 1 and isinstance(found[0], int)
            check(numbered, f"{self._file.path}: names", names, expected)
            return int(found[0])
        return 0 if self._outputs.batched else 1

    @property
    def _like_mmdetection(self) -> bool:
        """RTMDet's way with images: BGR, in the corner."""
        return self._outputs.layout == "yolox" or self._outputs.scored

    def _place(self) -> str:
        if self.options.place != "auto":
            return self.options.place
        return "corner" if self._like_mmdetection or not self._outputs.batched else "center"

    def _border(self) -> int:
        if self.options.border is not None:
            return self.options.border
        return 0 if self._channels_last or not self._outputs.batched else _GREY

    def _range(self) -> str:
        if self.options.range != "auto":
            return self.options.range
        if self._outputs.scored:
            return "imagenet"
        return "0..255" if self._channels_last or self._outputs.layout == "yolox" else "0..1"

    def _prepare(self, canvas: Image) -> npt.NDArray[Any]:
        """The input of the graph from an RGB image of its size."""
        dtype = self._input.dtype
        values: npt.NDArray[Any] = canvas
        if np.issubdtype(dtype, np.floating):
            values = canvas.astype(np.float32)
            kind = self._range()
            if kind == "0..1":
                values = values / np.float32(255)
            elif kind == "imagenet":
                values = (values - _MEAN) / _DEVIATION
        colors = self.options.colors
        if colors == "bgr" or (colors == "auto" and self._like_mmdetection):
            values = values[..., ::-1]
        if not self._channels_last:
            values = values.transpose(2, 0, 1)
        if len(self._input.shape) == 4:
            values = values[None]
        return np.ascontiguousarray(values, dtype)


def _literal(text: str | None) -> Any:
    """What ultralytics writes into the metadata as Python's literals; None where it is something else."""
    try:
        return None if text is None else ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
