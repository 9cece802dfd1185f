"""A teacher as a file: what a configuration names."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from cdkd_ext.checkpoints import load_model
from cdkd_ext.checkpoints.native import checkpoint_file, file_hash, read_spec
from cdkd_ext.errors import check
from cdkd_ext.files import read_yaml
from cdkd_ext.joints import JointSet
from cdkd_ext.models import ModelSpec, PoseNetwork
from cdkd_ext.onnx_file import OnnxFile, onnx_digest
from cdkd_ext.teachers.description import TeacherDescription
from cdkd_ext.teachers.foreign import ForeignTeacher
from cdkd_ext.teachers.frozen import FrozenTeacher
from cdkd_ext.teachers.options import TeacherOptions
from cdkd_ext.teachers.own_network import DESCRIBED_HEADS, OwnNetwork
from cdkd_ext.teachers.presets import read_preset, recognized_preset


@dataclass(frozen=True)
class TeacherFile:
    """A network that teaches: a checkpoint of this package, an ONNX file, or a YAML file that describes one.

    A YAML file has the fields of `TeacherDescription`, ``file``, the ONNX file beside it, and perhaps ``preset``, whose
    fields it changes.

    Args:
        path: the file, or the folder of a run (its best checkpoint).
        precision: of a checkpoint; see `FrozenTeacher`.
        options: how a network that is not of this package teaches.

    Example:
        ```python
        teacher = TeacherFile("runs/teacher", precision="auto").load()
        teacher = TeacherFile("movenet.onnx", options=TeacherOptions(flip=True)).load()
        ```
    """

    path: str
    precision: str = "float32"
    options: TeacherOptions = field(default_factory=TeacherOptions)

    @property
    def is_foreign(self) -> bool:
        """Whether the network is not of this package, which the file's suffix tells."""
        return Path(self.path).suffix.lower() in (".onnx", ".yaml", ".yml")

    def network(self) -> PoseNetwork:
        """Read the network of a checkpoint.

        Raises:
            InputError: the file is missing or is no checkpoint of this package.
        """
        return load_model(self.path, "teacher")

    def padding(self) -> float:
        """How much larger than a person's box the teacher's crops are; raises as `load` does."""
        if self.is_foreign:
            return self.described()[1].padding
        return self._spec().padding

    def joints(self) -> JointSet | None:
        """The network's own joints, where a checkpoint names them; raises as `load` does."""
        if not self.is_foreign:
            return self._spec().joints
        path, description = self.described()
        return ForeignTeacher.from_onnx(OnnxFile(path, cpu=True), description).joint_map.teacher

    def _spec(self) -> ModelSpec:
        """The description of a checkpoint's network."""
        return read_spec(checkpoint_file(self.path, "teacher"), "teacher")

    def load(
        self,
        device: torch.device | str | None = None,
        joints: JointSet | None = None,
        *,
        student_bins: tuple[int, int] | None = None,
    ) -> FrozenTeacher | ForeignTeacher:
        """Read the network.

        Args:
            device: where a checkpoint's network runs; onnxruntime chooses by itself, but stays on the CPU with "cpu".
            joints: the student's joints, which a network's are matched with by name. A checkpoint that has the same, and
                is not asked about people, is a `FrozenTeacher`; one of other joints has to have classes or heatmaps.
            student_bins: the student's classes (x, y); see `ForeignTeacher`.

        Raises:
            InputError: a file is missing or malformed, the network is not as described, or no joint matches.
        """
        if not self.is_foreign:
            teacher = FrozenTeacher(self.network(), device, self.precision)
            if self._is_matched(teacher.spec, joints):
                return ForeignTeacher(OwnNetwork(teacher), joints, self.options, student_bins=student_bins)
            expected = "nothing for a checkpoint of this package, which sees crops of its own size"
            check(self.options.height is None, "teacher_options.height", self.options.height, expected)
            return teacher
        path, description = self.described()
        cpu = device is None or torch.device(device).type == "cpu"
        file = OnnxFile(path, threads=self.options.threads, cpu=cpu)
        return ForeignTeacher.from_onnx(file, description, joints, self.options, student_bins=student_bins)

    def _is_matched(self, spec: ModelSpec, joints: JointSet | None) -> bool:
        """Whether a checkpoint teaches as networks of others do: its joints are other ones, or it is asked about people."""
        others = joints is not None and spec.joints is not None and spec.joints.names != joints.names
        return spec.head in DESCRIBED_HEADS and (others or self.options.ask == "people")

    def identity(self, teacher: FrozenTeacher | ForeignTeacher) -> str:
        """What tells the outputs of this file's teacher from those of another: the file's hash, and how it is asked."""
        if isinstance(teacher, FrozenTeacher):
            # outputs that were stored before heatmaps taught distributions are others
            marginals = " marginals" if teacher.spec.method.has_heatmaps else ""
            tokens = " tokens" if teacher.tokens else ""
            return f"{file_hash(self.path)} {teacher.precision}{tokens}{marginals}"
        # how many threads compute is no matter of the outputs
        asked = {**asdict(teacher.options), "threads": None, "preset": None}
        if teacher.options.height is None:
            del asked["height"]  # what was asked before there was the option stays valid
        spec = asdict(teacher.teacher_spec)
        given = [asdict(teacher.description), asked, spec, teacher.joint_map.sources, teacher.drawn_for]
        told = json.dumps(given, default=str)
        digest = (
            onnx_digest(self.described()[0])
            if self.is_foreign
            else f"{file_hash(self.path)} {self.precision}"
        )
        return f"{digest} {told}"

    def described(self) -> tuple[Path, TeacherDescription]:
        """The ONNX file of a network that is not of this package, and its description.

        Raises:
            InputError: a file is missing or malformed, or no preset knows the network.
        """
        path = Path(self.path)
        check(path.is_file(), "teacher", self.path, "an existing file")
        if path.suffix.lower() == ".onnx":
            return path, self._of_preset(path)
        values = read_yaml(path)
        check(isinstance(values, dict), f"teacher {path}", type(values).__name__, "a mapping of fields")
        check(
            self.options.preset is None,
            "teacher_options.preset",
            self.options.preset,
            f"nothing beside {path}",
        )
        file = values.pop("file", None)
        check(isinstance(file, str) and file, f"{path}: file", repr(file), "the name of an ONNX file")
        return path.parent / file, TeacherDescription.from_dict(_with_preset(values), str(path))

    def _of_preset(self, path: Path) -> TeacherDescription:
        name = self.options.preset or recognized_preset(list(OnnxFile(path, cpu=True).outputs), str(path))
        return TeacherDescription.from_dict(read_preset(name), f"preset {name}")


def _with_preset(values: dict[str, Any]) -> dict[str, Any]:
    """The fields of a YAML file, upon those of the preset that it names."""
    preset = values.pop("preset", None)
    return values if preset is None else {**read_preset(preset), **values}
