"""The frozen teacher: a pose network that is asked and never trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cdkd_ext._C import cpu_features
from cdkd_ext.captured import CapturedFunction
from cdkd_ext.codecs import codec_for
from cdkd_ext.distillation.outputs import TeacherOutput, TeacherSpec
from cdkd_ext.errors import check_option, check_type
from cdkd_ext.methods.pct import PCTOutput
from cdkd_ext.models import ModelSpec, PoseNetwork, inference_copy

if TYPE_CHECKING:
    from cdkd_ext.teachers.readers import Readout

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
Teacher = Callable[[Tensor], TeacherOutput]


class FrozenTeacher:
    """Runs a pose network without gradients, always in evaluation mode.

    Its batch norms are folded into its convolutions, and on a GPU a shape of images that comes again is replayed from a
    CUDA graph. It is no module on purpose: nothing can train it, wrap it, or save it with the student.

    Args:
        network: the network that teaches; it is switched to evaluation mode and its parameters are frozen.
        device: where it runs; None stays where the network is.
        precision: what the backbone computes in, "float32", "bfloat16" or "float16"; "auto" is bfloat16 on a GPU
            (float16 before compute capability 8.0, which has no bfloat16) and on a CPU with instructions for it
            (AVX-512 BF16), where it takes half the time, and float32 elsewhere.

    Attributes:
        tokens: whether it gives the tokens of its transformer, too; to be switched on before it is asked.
        spec: the network's description.
        feature_size: (h, w) of its last feature map.
        teacher_spec: sizes, bins and joints of its outputs.
        device: where it runs.
        precision: "float32", "bfloat16" or "float16".

    Raises:
        InputError: an unknown precision.
        TypeError: the network is no PoseNetwork.

    Example:
        >>> import torch
        >>> from cdkd_ext.models import create_model
        >>> from cdkd_ext.teachers import FrozenTeacher
        >>> network = create_model("hrnet_w8_small", input_size=(64, 64), num_joints=17)
        >>> FrozenTeacher(network)(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).feature.shape
        torch.Size([2, 17, 16, 16])
    """

    def __init__(
        self, network: PoseNetwork, device: torch.device | str | None = None, precision: str = "float32"
    ) -> None:
        check_type("network", network, PoseNetwork, "a PoseNetwork")
        check_option("precision", precision, PRECISIONS)
        self.device = next(network.parameters()).device if device is None else torch.device(device)
        network = network.to(self.device).eval().requires_grad_(False)
        if precision == "auto":
            precision = fast_precision(self.device)
        self.precision = precision
        self.spec: ModelSpec = network.spec
        self.feature_size: tuple[int, int] = network.feature_size
        self.teacher_spec = TeacherSpec.of(network)
        self.tokens = False
        self._names: list[str] = []
        self._frozen = inference_copy(network, getattr(torch, precision))
        self._network = CapturedFunction(self._values)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> TeacherOutput:
        """Return the output for RGB images (B, 3, H, W) uint8, in float32 whatever the training's precision.

        The images may be on any device; the output is on the teacher's.
        """
        images = images.to(self.device, non_blocking=True)
        with torch.autocast(self.device.type, enabled=False):
            values = self._network(images.contiguous(memory_format=torch.channels_last))
        return TeacherOutput(**dict(zip(self._names, values, strict=True)))

    @torch.no_grad()
    def predict(self, images: Tensor) -> Readout:
        """Return keypoints (B, J, 2) in pixels of the crops (B, 3, H, W) and confidences (B, J) in [0, 1].

        Of classes the confidence is the probability near the maximum, of PCT the mean probability of the tokens' likeliest
        codes, else the score.
        """
        from cdkd_ext.teachers.readers import Readout, mass_near_peak

        with torch.autocast(self.device.type, enabled=False):
            output = self._frozen(images.to(self.device).contiguous(memory_format=torch.channels_last))
        output = type(output)(*(value.float() if isinstance(value, Tensor) else value for value in output))
        keypoints, confidence = codec_for(self.spec).decode(output)
        if self.spec.method.has_classes:
            confidence = mass_near_peak(
                *(axis.log_softmax(-1) for axis in (output.logits_x, output.logits_y))
            )
        elif isinstance(output, PCTOutput):
            confidence = output.confidence[:, None].expand_as(confidence)
        return Readout(keypoints.float(), confidence.float().clamp(0, 1))

    def _values(self, images: Tensor) -> tuple[Tensor, ...]:
        """Of an output what there is, as a graph can hold it; `_names` says what that is."""
        taught = TeacherOutput.of(self._frozen(images), tokens=self.tokens)._asdict()
        there = {name: value for name, value in taught.items() if value is not None}
        self._names = list(there)
        return tuple(there.values())


def fast_precision(device: torch.device) -> str:
    """What a device computes convolutions fastest in without losing more than a teacher can."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float16"
    native = device.type == "cpu" and cpu_features().get("avx512_bf16", False)
    return "bfloat16" if native else "float32"
