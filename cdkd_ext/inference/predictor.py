"""Poses of people in images, from boxes."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from cdkd_ext.data.crops import crops_of_boxes
from cdkd_ext.detectors import Detector
from cdkd_ext.errors import check
from cdkd_ext.images import Image, read_image
from cdkd_ext.inference.boxes import boxes_and_scores
from cdkd_ext.inference.crop_network import Array, CropNetwork
from cdkd_ext.inference.exported_network import ExportedNetwork, is_exported
from cdkd_ext.inference.following import FramePoses, Tracking, follow
from cdkd_ext.inference.person_boxes import WHOLE, find_people
from cdkd_ext.inference.poses import Poses
from cdkd_ext.joints import JointSet
from cdkd_ext.onnx_file import OnnxFile, is_cpu

if TYPE_CHECKING:
    import torch

    from cdkd_ext.models import PoseNetwork
    from cdkd_ext.resampling import Resample

_NO_BOXES = object()
_TOGETHER = 64  # crops

_DEVICES = ("cpu", "cuda", "mps", "xpu")


class Predictor:
    """Crops, predicts and maps back.

    Args:
        model: a pose network of this package, or a `CropNetwork` of any origin, which `load` makes of files; how it is
            decoded, its joints and the padding of its crops are its own.
        joints: other joints than the network's, or those that it does not know.
        flip_test: average with the prediction for the mirrored crop; None does so, except where a `CropNetwork` has its
            own way.
        padding: how much larger than the box the crop is; None takes what the network was trained with.
        resample: how a crop is made of a larger region, "area" or "linear"; None takes what the network was trained with.
        device: where a network of this package runs.

    Attributes:
        network: what is asked about crops.
        joints: names and edges of the keypoints.
        padding: how much larger than the box the crop is.
        resample: how a crop is made of a larger region.

    Raises:
        InputError: the joints are unknown, or are not as many as the network predicts.

    Example:
        ```python
        predictor = Predictor.load("runs/student")
        poses = predictor(read_image("street.jpg"), boxes=[(10, 5, 100, 120)])
        ```
    """

    def __init__(
        self,
        model: PoseNetwork | CropNetwork,
        joints: JointSet | None = None,
        *,
        flip_test: bool | None = None,
        padding: float | None = None,
        resample: Resample | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if isinstance(model, CropNetwork):
            expected = "nothing for a network that has its own way"
            check(flip_test is None, "flip_test", flip_test, expected)
            self.network = model
        else:
            from cdkd_ext.inference.torch_network import TorchNetwork

            self.network = TorchNetwork(model, joints, flip_test=flip_test is not False, device=device)
        self.joints = joints or self.network.joints
        count = len(self.network.joints)
        check(len(self.joints) == count, "joints", len(self.joints), f"the model's {count} joints")
        self.padding = self.network.padding if padding is None else padding
        good = isinstance(self.padding, (int, float)) and 0 < self.padding < math.inf
        check(good, "padding", self.padding, "a positive number")
        self.resample = resample or self.network.resample

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        joints: JointSet | None = None,
        *,
        flip_test: bool | None = None,
        padding: float | None = None,
        resample: Resample | None = None,
        device: torch.device | str = "cpu",
        precision: str | None = None,
        threads: int | None = None,
    ) -> Predictor:
        """Predict with a network from a file.

        Args:
            path: the folder of a run (its best checkpoint), a checkpoint of this package, an ONNX file that `cdkd export`
                wrote, for which torch is not needed, or an ONNX file or a YAML file of anybody's network as a teacher's
                description covers it (`TeacherDescription`).
            joints: see `Predictor`.
            flip_test: see `Predictor`; an exported file does what it was exported with, which None takes.
            padding: see `Predictor`.
            resample: see `Predictor`.
            device: where it runs; onnxruntime takes a GPU with anything but "cpu", where it has one.
            precision: of a run or checkpoint: "auto", "float32", "bfloat16" or "float16" computes in fused layers, which
                "auto" chooses by the device; None takes the network as it is. See `TorchNetwork`.
            threads: of onnxruntime on a CPU; None leaves the choice to it.

        Raises:
            InputError: the file is missing, truncated, or does not say what network it is.
        """
        network = load_network(
            path, joints, flip_test=flip_test, device=device, precision=precision, threads=threads
        )
        return cls(network, joints, padding=padding, resample=resample)

    @overload
    def __call__(self, image: Any, boxes: Any) -> Poses: ...

    @overload
    def __call__(self, image: str | int | os.PathLike[str]) -> Iterator[FramePoses]: ...

    def __call__(self, image: Any, boxes: Any = _NO_BOXES) -> Poses | Iterator[FramePoses]:
        """Predict the pose of the person in each box; without boxes, `follow` a source.

        Args:
            image: RGB uint8 (H, W, 3), a PIL image, or the path of an image, which is turned upright as its EXIF
                orientation tag says: boxes and keypoints are in pixels of the upright image.
            boxes: N boxes (x, y, width, height) in pixels, in any sequence, array or tensor; with a fifth number it is
                the person's score. Mappings with ``bbox`` and perhaps ``score`` will do, and so will a single box.

        Raises:
            InputError: the image has another type or shape, or is empty; or a box is empty or not finite, or is no box:
                it is named by its index.
        """
        if boxes is _NO_BOXES:
            followed = isinstance(image, (str, int, os.PathLike))
            check(followed, "boxes", "nothing", "those of the people in the image; only a source needs none")
            return self.follow(image)
        pixels = _pixels(image)
        places, box_scores = boxes_and_scores(boxes)
        if len(places) == 0:
            return Poses(
                np.zeros((0, len(self.joints), 2), np.float32), np.zeros((0, len(self.joints)), np.float32)
            )
        # a crowd's crops need not fit into memory all at once
        parts = [self._at(pixels, places[at : at + _TOGETHER]) for at in range(0, len(places), _TOGETHER)]
        keypoints, scores = map(np.concatenate, zip(*parts, strict=True))
        return Poses(keypoints, scores, box_scores)

    def _at(self, pixels: Image, places: npt.NDArray[np.float64]) -> tuple[Array, Array]:
        """Keypoints and scores of the people in some boxes."""
        crops, to_image = crops_of_boxes(
            pixels,
            places,
            self.network.input_size,
            self.padding,
            self.resample,
            unbiased=self.network.unbiased_crop,
        )
        return self.network(crops, to_image.astype(np.float32))

    def follow(
        self,
        source: str | int | os.PathLike[str],
        boxes: str | os.PathLike[str] | None = None,
        *,
        detector: str | os.PathLike[str] | Detector | None = None,
        every: int = 1,
        frames: int | None = None,
        tracking: Tracking = "identities",
    ) -> Iterator[FramePoses]:
        """Predict frame by frame, each when it is asked for.

        Args:
            source: an image, a video, a folder (with everything below), a glob, the number of a camera, or the address of a
                stream.
            boxes: a file of boxes, or "whole" where each frame shows one person, as it is without a detector; see
                `person_boxes.find_people`.
            detector: a person detector, or its ONNX file.
            every: take every n-th frame of a video, camera or stream.
            frames: stop after as many; None goes on to the end.
            tracking: in videos, "identities" by the overlap of boxes, "smooth" also smooths the keypoints, "none" takes
                each frame by itself.

        Raises:
            InputError: the source, the detector or the file of boxes cannot be opened, or an option is out of range. A frame
                that cannot be read says so in its result.

        Example:
            ```python
            for result in Predictor.load("student.onnx").follow("street.mp4", detector="detector.onnx"):
                print(result.frame.number, result.identities, result.poses.keypoints.shape)
            ```
        """
        nothing = boxes is None and detector is None
        people = find_people(WHOLE if nothing else boxes, detector)
        return follow(self, source, people, every=every, frames=frames, tracking=tracking)


def load_network(
    path: str | os.PathLike[str],
    joints: JointSet | None = None,
    *,
    flip_test: bool | None = None,
    device: torch.device | str = "cpu",
    precision: str | None = None,
    threads: int | None = None,
) -> CropNetwork:
    """Read a network in any of the forms that `Predictor.load` takes; see there for the arguments."""
    _check_device(str(device), exists=not runs_as_onnx(path))
    if runs_as_onnx(path):
        check(precision is None, "precision", precision, "nothing for an ONNX file, which has its own")
        if Path(path).suffix.lower() == ".onnx":
            file = OnnxFile(path, threads=threads, cpu=is_cpu(device))
            if is_exported(file):
                return ExportedNetwork(file, flip_test=flip_test)
        from cdkd_ext.inference.foreign_network import ForeignNetwork

        return ForeignNetwork(path, joints, flip_test=flip_test is not False, device=device, threads=threads)
    from cdkd_ext.checkpoints import load_model
    from cdkd_ext.inference.torch_network import TorchNetwork

    model = load_model(path, "path")
    flips = flip_test is not False
    return TorchNetwork(model, joints, flip_test=flips, device=device, precision=precision)


def _check_device(device: str, *, exists: bool) -> None:
    """Check what a device is called, and for torch that it is there; onnxruntime takes the CPU where it is not."""
    kind, _, index = device.partition(":")
    check(
        kind in _DEVICES and (not index or index.isdecimal()),
        "device",
        device,
        "cpu, cuda or another accelerator",
    )
    if exists and kind != "cpu":
        import torch

        found = torch.accelerator.current_accelerator(check_available=True)
        there = (
            found is not None and found.type == kind and int(index or 0) < torch.accelerator.device_count()
        )
        check(
            there,
            "device",
            f"{device}, which this machine or this torch does not have",
            "cpu, or one that is there",
        )


def runs_as_onnx(path: str | os.PathLike[str]) -> bool:
    """Whether a path is an ONNX file's, or that of a YAML file that describes one, which the suffix tells."""
    return Path(path).suffix.lower() in (".onnx", ".yaml", ".yml")


def _pixels(image: Any) -> Image:
    """RGB uint8 (H, W, 3) of what a caller has for an image."""
    if isinstance(image, (str, os.PathLike)):
        return read_image(image, upright=True)
    # PIL's images, without needing PIL
    expected = "RGB uint8 (H, W, 3), a PIL image or a path"
    if hasattr(image, "convert") and hasattr(image, "getbands"):
        image = _of_pil(image, expected)
    check(isinstance(image, np.ndarray), "image", type(image).__name__, expected)
    check(
        image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8,
        "image",
        f"{image.dtype} {image.shape}",
        expected,
    )
    check(image.size > 0, "image", f"no pixels, {image.shape}", "an image with pixels")
    return image


def _of_pil(image: Any, expected: str) -> Image:
    """RGB of a PIL image; of 16 bits the upper eight, as of a file, where PIL's conversion cuts."""
    if image.mode.startswith("I;16"):
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    check(image.mode not in ("I", "F"), "image", f"a PIL image of the mode {image.mode}", expected)
    return np.asarray(image.convert("RGB"))
