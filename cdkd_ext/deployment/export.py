"""From a trained network to a file that runs anywhere, checked before it appears."""

from __future__ import annotations

import copy
import json
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from cdkd_ext.checkpoints import load_model
from cdkd_ext.codecs import codec_for
from cdkd_ext.data import DataConfig
from cdkd_ext.deployment.crop_decoder import CropDecoder
from cdkd_ext.deployment.difference import Difference
from cdkd_ext.deployment.int8 import quantize
from cdkd_ext.deployment.onnx_graph import OPSET, write_onnx
from cdkd_ext.deployment.people import people_to_check
from cdkd_ext.deployment.program import ProgramNetwork, write_program
from cdkd_ext.errors import check, check_option, fail
from cdkd_ext.files import check_writable, replacing
from cdkd_ext.inference import CropNetwork, ExportedNetwork, TorchNetwork
from cdkd_ext.inference.exported_network import VERSION_KEY
from cdkd_ext.models import ModelSpec, PoseNetwork
from cdkd_ext.onnx_file import OnnxFile

PRECISIONS = ("float32", "float16", "int8")
_OPSETS = (18, 23)
_CHECKED = 64  # crops
_CALIBRATING = 256  # crops
_SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
# networks whose weights are off by so much show which keypoints rounding decides
_JITTERED = 4
_JITTER = 1e-6


@dataclass(frozen=True)
class ExportReport:
    """What `export_network` wrote.

    Attributes:
        path: the file.
        size: of the file in bytes.
        precision: of the file.
        opset: of an ONNX file.
        difference: from PyTorch.
        accuracy: name of the metric, its value of the network in PyTorch and of the file, in percent, of people with
            labels; None where it was not measured.
        calibrated: what an int8 file was quantised by, in words.
        measured: how many people the metric is of.
        flip_test: whether both averaged with the mirrored crop.
    """

    path: Path
    size: int
    precision: str
    opset: int | None
    difference: Difference
    accuracy: tuple[str, float, float] | None = None
    calibrated: str | None = None
    measured: int = 0
    flip_test: bool = False

    def __str__(self) -> str:
        """Some lines for people."""
        kind = "PyTorch program" if self.opset is None else f"ONNX, opset {self.opset}"
        lines = [f"{self.path}: {kind}, {self.precision}, {self.size / 1e6:.2f} MB", str(self.difference)]
        if self.calibrated is not None:
            lines.append(f"quantised by {self.calibrated}")
        if self.accuracy is not None:
            name, before, after = self.accuracy
            found = f"{name}: {before:.2f} in PyTorch, {after:.2f} of the file ({after - before:+.2f})"
            flips = "with" if self.flip_test else "without"
            lines.append(f"{found}, {self.measured} people, {flips} the flip test")
        return "\n".join(lines)


def export_network(
    weights: str,
    output: str | None = None,
    *,
    format: Literal["onnx", "torch"] = "onnx",
    precision: Literal["float32", "float16", "int8"] = "float32",
    flip_test: bool = False,
    opset: int = OPSET,
    license: str | None = None,
    data: DataConfig | None = None,
) -> ExportReport:
    """Write a network with normalisation, softmax and decoding in one file, and check it against PyTorch.

    The file takes crops as they are, ``images`` uint8 RGB (N, h, w, 3) with any N, and returns ``keypoints`` float32
    (N, J, 2), x and y in pixels of the crop, and ``scores`` float32 (N, J). Its metadata has the joints with their
    skeleton and mirror pairs (a COCO category), the crop's size and padding, and how the network is made.

    It appears when it says what PyTorch says on crops of the validation people, or else of the run's footage, or of drawn
    people where the run's data are not there.

    Args:
        weights: the folder of a run (its best checkpoint), or a checkpoint of this package.
        output: the new file; None puts it beside the checkpoint, with its name.
        format: "onnx", or "torch" for a program of torch.export in ATen's operators (`torch.export.load` runs it).
        precision: what the network computes in. "float16" halves the file and helps on GPUs; "int8" (ONNX) quantises the
            convolutions, and what lies between them, by their activations on crops of people to train on (without any,
            of every other person to validate on, who is then not measured on, but for AP, or of the run's footage). Both
            are measured where there are labels.
        flip_test: average with the mirrored crop inside of the file, which takes twice the time.
        opset: version of ONNX's operators, 18 to 23.
        license: of the weights, a text for the metadata.
        data: images and annotations; None takes those of the run.

    Raises:
        InputError: a file cannot be read or written, an option does not fit, there are no crops to quantise by, or the file
            does not say what PyTorch says.
        ModuleNotFoundError: onnx, onnxscript or onnxruntime is not installed.

    Example:
        ```python
        print(export_network("runs/student", "student.onnx", precision="int8"))
        ```
    """
    check_option("format", format, _SUFFIXES)
    check_option("precision", precision, PRECISIONS)
    check(precision != "int8" or format == "onnx", "precision", precision, "float32 or float16 of a program")
    check(_OPSETS[0] <= opset <= _OPSETS[1], "opset", opset, f"a number from {_OPSETS[0]} to {_OPSETS[1]}")
    target = _target(weights, output, _SUFFIXES[format])
    check_writable("output", target)
    if format == "onnx":
        # what is missing is told before anything takes long
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    network = load_model(weights).eval()
    metadata = described(network.spec, precision=precision, flip_test=flip_test, license=license)
    decoder = CropDecoder(_in_precision(network, precision), flip_test=flip_test)
    reference = TorchNetwork(network, flip_test=flip_test)
    with (
        people_to_check(weights, data, network.spec) as people,
        tempfile.TemporaryDirectory() as folder,
        replacing(target) as temporary,
    ):
        if precision == "int8" and people.drawn:
            fail("data", people.source, "the run's data, or others (--data.root), to quantise by")
        calibration = people.calibration(_CALIBRATING) if precision == "int8" else None
        made = Path(folder) / f"made{target.suffix}"
        if format == "onnx":
            crops = None if calibration is None else calibration.crops
            written: CropNetwork = _write_graph(decoder, made, opset, metadata, crops)
        else:
            write_program(decoder, made, metadata)
            written = ProgramNetwork(made, network.spec)
        rounded = (TorchNetwork(_jittered(network, seed), flip_test=flip_test) for seed in range(_JITTERED))
        difference = Difference.between(
            reference, written, people.crops(_CHECKED), people.source, rounded=rounded
        )
        accuracy, measured, others = None, 0, people if calibration is None else calibration.others
        difference.refuse_nan(target)
        if precision == "float32":
            difference.refuse_large(target)
        else:
            before, after = others.accuracy(reference), others.accuracy(written)
            if before and after:
                accuracy, measured = (before.metric, before.value, after.value), before.people
        temporary.write_bytes(made.read_bytes())
    graph = opset if format == "onnx" else None
    calibrated = None if calibration is None else f"{len(calibration.crops)} crops of {calibration.source}"
    size = target.stat().st_size
    return ExportReport(target, size, precision, graph, difference, accuracy, calibrated, measured, flip_test)


def described(
    spec: ModelSpec, *, precision: str, flip_test: bool, license: str | None = None
) -> dict[str, str]:
    """What is written beside an exported network: texts by name, JSON where they are no words.

    Args:
        spec: the network's description.
        precision: what it computes in.
        flip_test: whether the file averages with the mirrored crop.
        license: of the weights.

    Raises:
        InputError: the joints are not known.
    """
    if spec.joints is None:
        fail("weights", "a network of unknown joints", "a network that knows its joints")
    model = spec.to_dict()
    category = model.pop("joints")
    texts = {
        VERSION_KEY: version("cdkd-ext"),
        "model": json.dumps(model),
        "joints": json.dumps(category),
        "input_size": json.dumps(list(spec.input_size)),
        "padding": json.dumps(spec.padding),
        "resample": spec.resample,
        "unbiased_crop": json.dumps(spec.method.unbiased_crop),
        "score_threshold": json.dumps(codec_for(spec).score_threshold),
        "flip_test": json.dumps(flip_test),
        "precision": precision,
    }
    return texts if license is None else texts | {"license": license}


def _target(weights: str, output: str | None, suffix: str) -> Path:
    path = Path(weights)
    if output is None:
        return (path / "best" if path.is_dir() else path).with_suffix(suffix)
    check(output.endswith(suffix), "output", output, f"the name of a {suffix} file")
    return Path(output)


def _jittered(network: PoseNetwork, seed: int) -> PoseNetwork:
    """The network with weights that are off by some ten times their rounding."""
    generator = torch.Generator().manual_seed(seed)
    copied = copy.deepcopy(network)
    with torch.no_grad():
        for weight in copied.parameters():
            weight.mul_(1 + _JITTER * torch.randn(weight.shape, generator=generator).to(weight))
    return copied


def _in_precision(network: PoseNetwork, precision: str) -> PoseNetwork:
    return copy.deepcopy(network).half() if precision == "float16" else network


def _write_graph(
    decoder: CropDecoder,
    path: Path,
    opset: int,
    metadata: dict[str, str],
    calibration: npt.NDArray[np.uint8] | None,
) -> ExportedNetwork:
    """Write the graph, in int8 if there are crops to calibrate with."""
    if calibration is None:
        write_onnx(decoder, path, opset=opset, metadata=metadata)
    else:
        plain = path.with_name("float32.onnx")
        write_onnx(decoder, plain, opset=opset, metadata=metadata)
        quantize(plain, path, calibration)
    written = ExportedNetwork(OnnxFile(path, cpu=True))
    _check_batches(written)
    return written


def _check_batches(network: ExportedNetwork) -> None:
    """Check that no crop, one and several run: a size that the exporter took for a constant shows here."""
    joints = len(network.joints)
    for count in (0, 1, 7):
        crops = np.zeros((count, *network.input_size, 3), np.uint8)
        keypoints, scores = network(crops, np.zeros((count, 2, 3), np.float32))
        shapes = keypoints.shape, scores.shape
        expected = f"a graph for {count} crops"
        check(shapes == ((count, joints, 2), (count, joints)), "output", shapes, expected)
