"""Networks that can be adapted: crops in, described outputs out, and a file of the same kind at the end."""

from __future__ import annotations

import copy
import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from cdkd_ext.adaptation.input_size import write_with_input_size
from cdkd_ext.adaptation.onnx_graph import TrainableGraph
from cdkd_ext.checkpoints import load_model, save_model
from cdkd_ext.checkpoints.writing import write_torch
from cdkd_ext.codecs import SimCCOutput
from cdkd_ext.errors import check
from cdkd_ext.joints import JointSet
from cdkd_ext.models import PoseNetwork
from cdkd_ext.models.profile import call_macs
from cdkd_ext.onnx_file import OnnxFile
from cdkd_ext.teachers import ForeignTeacher, TeacherDescription, TeacherFile, TeacherOptions
from cdkd_ext.teachers.network import CropNetwork, OnnxNetwork, Outputs, named_outputs, preprocessed
from cdkd_ext.teachers.own_network import description_of
from cdkd_ext.teachers.readers import READERS, Reader, input_size

_GRAY = 127


class AdaptableNetwork(nn.Module):
    """A network that learns from crops at many resolutions; a subclass knows its format.

    It is in evaluation mode throughout: statistics of batches at one resolution would say nothing of another.

    Args:
        network: the module whose parameters learn.
        description: of the outputs that `forward` returns, with everything about the input filled in.

    Attributes:
        description: as given.
        reader: of its outputs.
        joints: of the network, in the order of its outputs; those that are none of a body are left out.
        file_name: of the adapted network in the folder of a run.
    """

    file_name = ""

    def __init__(self, network: nn.Module, description: TeacherDescription) -> None:
        super().__init__()
        self.network = network
        self.description = description
        probe = self(torch.full((2, 3, *input_size(description)), _GRAY, dtype=torch.uint8))
        self.reader: Reader = READERS[description.kind](
            description, {name: value.detach() for name, value in probe.items()}
        )
        self.joints: JointSet = description.joint_set(self.reader.count)
        self.train(False)

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the crops in pixels."""
        return input_size(self.description)

    @property
    def device(self) -> torch.device:
        """Where the network is; crops may be anywhere."""
        return next(self.parameters()).device

    def train(self, mode: bool = True) -> AdaptableNetwork:
        """Stay in evaluation mode."""
        return super().train(False)

    @abstractmethod
    def forward(self, crops: Tensor) -> Outputs:
        """Named outputs for RGB crops (B, 3, H, W) uint8."""

    @abstractmethod
    def learning(self) -> dict[str, nn.Parameter]:
        """The parameters that can learn, by the names that their file gives them."""

    @abstractmethod
    def save(self, path: Path, crops: Tensor, metadata: Mapping[str, str]) -> None:
        """Write the network in its own format, once it is shown on crops that the file gives the same outputs."""

    @abstractmethod
    def as_saved(self, path: Path | None = None) -> CropNetwork:
        """The network of a file that `save` wrote, apart from this one; None is this one as it is."""

    def macs(self) -> int:
        """Multiply-accumulates for one crop, see `cdkd_ext.models.count_macs`."""
        crop = torch.zeros(1, 3, *self.input_size, dtype=torch.uint8)
        return call_macs(lambda: self(crop))

    def fingerprint(self) -> str:
        """What tells the network from others, by its weights and its description."""
        digest = hashlib.sha256(repr(self.description).encode())
        for name, value in self.state_dict().items():
            digest.update(name.encode() + value.cpu().numpy().tobytes())
        return digest.hexdigest()

    def check(self, crops: Tensor) -> None:
        """Check that the module does what its file does.

        Raises:
            InputError: an output differs.
        """


class AdaptableGraph(AdaptableNetwork):
    """The network of an ONNX file.

    Args:
        path: the file.
        description: of its outputs.
        height: of its input in pixels, where it is to be another than the file's; see `write_with_input_size`.

    Raises:
        InputError: see `TrainableGraph`; or the outputs are not as described.
    """

    file_name = "adapted.onnx"

    def __init__(self, path: Path, description: TeacherDescription, height: int | None = None) -> None:
        if height is not None:
            check(
                description.kind == "heatmap",
                "input_size",
                f"{height} for a network of {description.kind}",
                "nothing: only heatmaps say where joints are whatever the size",
            )
            # lives as long as the network, which is compared with the file
            self._folder = TemporaryDirectory(prefix="cdkd-")
            resized = Path(self._folder.name) / path.name
            write_with_input_size(path, resized, height, description)
            path, description = resized, replace(description, input_size=None)
        file = OnnxNetwork(OnnxFile(path, cpu=True), description)
        self._described = described = file.description
        probe = file(torch.full((2, 3, *input_size(described)), _GRAY, dtype=torch.uint8))
        names = READERS[described.kind](described, probe).names
        maps = {names["heatmap"]} if "heatmap" in names and described.values == "probabilities" else set()
        graph = TrainableGraph(path, before_sigmoid=maps)
        if graph.logits:
            described = replace(described, values="logits")
        super().__init__(graph, replace(described, outputs=names))

    @property
    def graph(self) -> TrainableGraph:
        """The graph."""
        assert isinstance(self.network, TrainableGraph)
        return self.network

    def forward(self, crops: Tensor) -> Outputs:
        """See `AdaptableNetwork.forward`; heatmaps are logits where a sigmoid made them."""
        outputs: Outputs = self.network(self._prepared(crops))
        return outputs

    def learning(self) -> dict[str, nn.Parameter]:
        """See `AdaptableNetwork.learning`."""
        return self.graph.weights

    def save(self, path: Path, crops: Tensor, metadata: Mapping[str, str]) -> None:
        """See `AdaptableNetwork.save`."""
        self.graph.save(path, self._prepared(crops), metadata=dict(metadata))

    def as_saved(self, path: Path | None = None) -> CropNetwork:
        """See `AdaptableNetwork.as_saved`; None is the file that was read."""
        file = OnnxFile(path or self.graph.path, cpu=self.device.type == "cpu")
        return OnnxNetwork(file, self._described)

    def check(self, crops: Tensor) -> None:
        """See `AdaptableNetwork.check`."""
        self.graph.check(self._prepared(crops))

    def _prepared(self, crops: Tensor) -> Tensor:
        return preprocessed(crops.to(self.device), self.description)


class AdaptablePoseNetwork(AdaptableNetwork):
    """A network of this package.

    Args:
        network: the network.

    Raises:
        InputError: it does not name its joints.
    """

    file_name = "best.safetensors"

    def __init__(self, network: PoseNetwork) -> None:
        spec = network.spec
        description = description_of(spec, "model")
        assert spec.joints is not None
        self._joints = spec.joints
        super().__init__(network, description)

    @property
    def pose_network(self) -> PoseNetwork:
        """The network."""
        assert isinstance(self.network, PoseNetwork)
        return self.network

    def forward(self, crops: Tensor) -> Outputs:
        """See `AdaptableNetwork.forward`."""
        crops = crops.to(self.device).contiguous(memory_format=torch.channels_last)
        output = self.network(crops)
        if isinstance(output, SimCCOutput):
            return {"x": output.logits_x, "y": output.logits_y}
        return {"heatmap": output.feature}

    def learning(self) -> dict[str, nn.Parameter]:
        """See `AdaptableNetwork.learning`."""
        return dict(self.network.named_parameters())

    def save(self, path: Path, crops: Tensor, metadata: Mapping[str, str]) -> None:
        """See `AdaptableNetwork.save`."""
        save_model(self.pose_network, path)

    def as_saved(self, path: Path | None = None) -> CropNetwork:
        """See `AdaptableNetwork.as_saved`."""
        if path is None:
            return copy.deepcopy(self).requires_grad_(False)
        return AdaptablePoseNetwork(load_model(path, "model")).to(self.device)


class AdaptableModule(AdaptableNetwork):
    """A PyTorch module of any origin.

    Args:
        module: takes crops and returns outputs as a `CalledNetwork` does; it learns in place.
        description: of both; `input_size` is needed.

    Raises:
        InputError: the outputs are not as described.

    Example:
        >>> import torch
        >>> from cdkd_ext.adaptation import AdaptableModule
        >>> from cdkd_ext.teachers import TeacherDescription
        >>> describe = TeacherDescription(kind="heatmap", input_size=(64, 64), values="logits", joints="coco")
        >>> AdaptableModule(torch.nn.Conv2d(3, 17, 4, 4), describe).input_size
        (64, 64)
    """

    file_name = "adapted.pth"

    def __init__(self, module: nn.Module, description: TeacherDescription) -> None:
        check(description.input_size is not None, "input_size", None, "the (height, width) of the crops")
        super().__init__(module, replace(description, layout=description.layout or "NCHW"))

    def forward(self, crops: Tensor) -> Outputs:
        """See `AdaptableNetwork.forward`."""
        images = preprocessed(crops.to(self.device), self.description)
        return named_outputs(self.network(images), self.description)

    def learning(self) -> dict[str, nn.Parameter]:
        """See `AdaptableNetwork.learning`."""
        return dict(self.network.named_parameters())

    def save(self, path: Path, crops: Tensor, metadata: Mapping[str, str]) -> None:
        """Write the module's `state_dict`."""
        write_torch(self.network.state_dict(), path)

    def as_saved(self, path: Path | None = None) -> CropNetwork:
        """See `AdaptableNetwork.as_saved`."""
        network = copy.deepcopy(self).requires_grad_(False)
        if path is not None:
            state = torch.load(path, map_location=self.device, weights_only=True)
            network.network.load_state_dict(state)
        return network


def load_adaptable(model: str, options: TeacherOptions, height: int | None = None) -> AdaptableNetwork:
    """Read a network to adapt: an ONNX file, a YAML file that describes one, or a run or checkpoint of this package.

    Args:
        model: the file.
        options: its `preset` counts.
        height: of the network's input in pixels, for an ONNX file of heatmaps; None is the file's own.

    Raises:
        InputError: a file is missing or malformed, or the network cannot be trained.
    """
    file = TeacherFile(model, options=options)
    if not file.is_foreign:
        check(
            height is None,
            "input_size",
            height,
            "nothing for a network of this package: train one of that size",
        )
        check(Path(model).exists(), "model", model, "an ONNX file, a YAML file that describes one, or a run")
        return AdaptablePoseNetwork(load_model(model, "model"))
    path, description = file.described()
    return AdaptableGraph(path, description, height)


def load_teacher(
    path: str, joints: JointSet, options: TeacherOptions, device: torch.device | str = "cpu"
) -> tuple[ForeignTeacher, str]:
    """Read a network that says where joints are, of any kind that `load_adaptable` takes.

    Args:
        path: the file.
        joints: the joints to say, which the network's are matched with by name.
        options: how it is asked.
        device: where a network of this package runs; see `TeacherFile.load`.

    Returns:
        The teacher, and what tells it from others.

    Raises:
        InputError: a file is missing or malformed, the network is not as described, or no joint matches.
    """
    file = TeacherFile(path, options=options)
    if file.is_foreign:
        loaded = file.load(device, joints)
        assert isinstance(loaded, ForeignTeacher)
        return loaded, file.identity(loaded)
    network = AdaptablePoseNetwork(load_model(path, "teacher")).to(device)
    return asked(network, network.fingerprint(), joints, options)


def asked(
    network: CropNetwork, fingerprint: str, joints: JointSet, options: TeacherOptions
) -> tuple[ForeignTeacher, str]:
    """A teacher of a network, and what tells it from others; see `load_teacher`."""
    return ForeignTeacher(network, joints, options), f"{fingerprint} {joints.names} {options}"
