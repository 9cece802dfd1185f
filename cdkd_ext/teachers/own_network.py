"""A network of this package, described as those of others are: for students that have other joints."""

from __future__ import annotations

from torch import Tensor

from cdkd_ext.errors import check, fail
from cdkd_ext.models import ModelSpec
from cdkd_ext.teachers.description import TeacherDescription
from cdkd_ext.teachers.frozen import FrozenTeacher
from cdkd_ext.teachers.network import Outputs

DESCRIBED_HEADS = ("simcc", "heatmap")


class OwnNetwork:
    """Asks a frozen network of this package; see `CropNetwork`.

    Args:
        network: with classes or heatmaps.

    Attributes:
        description: of its outputs.

    Raises:
        InputError: it has neither, or does not name its joints.
    """

    def __init__(self, network: FrozenTeacher) -> None:
        self.description = description_of(network.spec, "teacher")
        self._network = network

    def __call__(self, crops: Tensor) -> Outputs:
        """See `CropNetwork.__call__`."""
        output = self._network(crops)
        named = {"x": output.logits_x, "y": output.logits_y, "heatmap": output.feature}
        return {name: value for name in self.description.outputs or () if (value := named[name]) is not None}


def description_of(spec: ModelSpec, argument: str) -> TeacherDescription:
    """What a network's outputs mean, by the names x and y, or heatmap.

    Args:
        spec: of the network.
        argument: what messages call it.

    Raises:
        InputError: its method has neither classes nor heatmaps, or it does not name its joints.
    """
    if spec.joints is None:
        fail(argument, "a checkpoint that does not name its joints", "one that does")
    expected = "one with simcc or heatmap"
    check(spec.head in DESCRIBED_HEADS, argument, f"a checkpoint with the head {spec.head}", expected)
    return TeacherDescription(
        kind=spec.head,  # type: ignore[arg-type]
        outputs={"x": "x", "y": "y"} if spec.head == "simcc" else {"heatmap": "heatmap"},
        input_size=spec.input_size,
        layout="NCHW",
        output_layout="NCHW",
        values="gaussians",
        cells="corner",
        decoding=spec.decoding,
        joints=spec.joints.names,
        padding=spec.padding,
        resample=spec.resample,
    )
