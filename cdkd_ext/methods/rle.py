"""RLE: coordinates with a learned error distribution (residual log-likelihood estimation).

Li et al., Human Pose Regression with Residual Log-likelihood Estimation, ICCV 2021. Two linear layers read a joint's
coordinates and how sure they are; a normalising flow, used in training alone, learns what errors look like. The published
ResNet averages its last map over the cells; a high-resolution backbone's map is flattened, as in the comparison at low
resolution. There the figures of the paper's 32x32 row are those of 64x64: 28.7 M parameters are right.

Differences from the published code: crops are normalised as for all networks of this package, not by subtracting BGR means
from RGB; the flip test mirrors pixels exactly at every setting (without its option the published one moves by a heatmap's
cell); a COCO instance's score is the box's times the mean of the joints', not the sum of box, mean and largest; a
division by a feature of norm 0 gives the bias.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from cdkd_ext.errors import check, check_type
from cdkd_ext.methods.codec import CodecOptions
from cdkd_ext.methods.coordinates import CoordinateCodec
from cdkd_ext.methods.method import LabelLoss, LabelLossOptions, Method, MethodOptions
from cdkd_ext.tensor_checks import check_tensor, check_weights

_COUPLINGS = 6
_HIDDEN = 64
# keeps a division by a tiny sigma finite, as published
_SMALLEST = 1e-9


class RLEOutput(NamedTuple):
    """What a network of residual log-likelihoods predicts for a batch of crops.

    Attributes:
        coordinates: (B, J, 2), x and y as shares of the crop's width and height, 0 at the crop's middle.
        sigma_logits: (B, J, 2); their sigmoid is the scale of the coordinates' errors, in the same unit.
    """

    coordinates: Tensor
    sigma_logits: Tensor

    @property
    def feature(self) -> None:
        """None: there is no map to compare."""
        return None


class RealNVP(nn.Module):
    """A normalising flow of the plane: six affine couplings of one coordinate on the other (Dinh et al., RealNVP)."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.tensor([[0.0, 1.0], [1.0, 0.0]] * (_COUPLINGS // 2)))
        self.s = nn.ModuleList(nn.Sequential(*_coupling(), nn.Tanh()) for _ in range(_COUPLINGS))
        self.t = nn.ModuleList(nn.Sequential(*_coupling()) for _ in range(_COUPLINGS))

    def forward(self, points: Tensor) -> Tensor:
        """Logarithm of the density at points (N, 2): (N,)."""
        z = points.to(self.mask.dtype)
        shrinking = z.new_zeros(len(z))
        for mask, scale, shift in reversed([*zip(self.mask, self.s, self.t, strict=True)]):
            kept = mask * z
            log_scale, moved = scale(kept) * (1 - mask), shift(kept) * (1 - mask)
            z = (1 - mask) * (z - moved) * torch.exp(-log_scale) + kept
            shrinking = shrinking - log_scale.sum(-1)
        return shrinking - 0.5 * z.square().sum(-1) - math.log(2 * math.pi)


def _coupling() -> list[nn.Module]:
    return [
        nn.Linear(2, _HIDDEN),
        nn.LeakyReLU(),
        nn.Linear(_HIDDEN, _HIDDEN),
        nn.LeakyReLU(),
        nn.Linear(_HIDDEN, 2),
    ]


class Regression(nn.Module):
    """A linear layer, whose features are divided by their norm for coordinates.

    Args:
        features: inputs.
        outputs: outputs.
        normalized: divide the product, but not the bias, by the norm of the inputs.
    """

    def __init__(self, features: int, outputs: int, *, normalized: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(features, outputs)
        self.normalized = normalized

    def forward(self, features: Tensor) -> Tensor:
        """(B, features) -> (B, outputs)."""
        if self.normalized:
            # float16 knows no number that is small enough to keep a division by a norm of 0 finite
            wide = features.to(torch.promote_types(features.dtype, torch.float32))
            features = functional.normalize(wide, dim=1).to(features.dtype)
        # not a call of the layer: the literature's count of operations does not see it, as in the published code
        return functional.linear(features, self.linear.weight, self.linear.bias)


class RLECodec(CoordinateCodec):
    """Coordinate c stands for pixel (c + 1/2) · n; a joint outside the crop has a target, too."""

    origin = -0.5

    def read(self, output: RLEOutput) -> tuple[Tensor, Tensor]:
        """The coordinates, and one minus the mean of the two sigmas."""
        dtype = torch.promote_types(output.coordinates.dtype, torch.float32)
        sigma = output.sigma_logits.to(dtype).sigmoid()
        return output.coordinates.to(dtype), 1 - sigma.mean(-1)


class RLELoss(LabelLoss):
    """Negative log-likelihood of the residual, summed over joints and coordinates, mean over samples.

    With the residual r = (μ - g) / σ it is, for each coordinate, log σ - log φ(r) + log(σ √(2π)) + |r| / √2, φ the flow's
    density of both coordinates together. It may be negative.

    Args:
        codec: makes the targets.
        flow: of the student's network, which holds its parameters.
        scale: factor on the result.

    Example:
        >>> import torch
        >>> from cdkd_ext.methods.rle import RealNVP, RLECodec, RLELoss, RLEOutput
        >>> student = RLEOutput(torch.zeros(2, 17, 2), torch.zeros(2, 17, 2))
        >>> RLELoss(RLECodec((64, 64)), RealNVP())(student, torch.rand(2, 17, 2) * 63, torch.ones(2, 17)).shape
        torch.Size([])
    """

    name = "rle"

    def __init__(self, codec: RLECodec, flow: RealNVP, *, scale: float = 1.0) -> None:
        super().__init__()
        check_type("flow", flow, RealNVP, "the flow of a network with the head rle")
        check(0 < scale < float("inf"), "scale", scale, "a positive number")
        self.codec = codec
        self.scale = float(scale)
        # in a tuple it is no module of the loss: the network has it
        self._flow = (flow,)

    def forward(
        self, student: RLEOutput, keypoints: Tensor, weights: Tensor, progress: float = 0.0
    ) -> Tensor:
        """See `LabelLoss.forward`."""
        check_tensor("student.coordinates", student.coordinates, ("B", "J", 2))
        batch, joints, _ = student.coordinates.shape
        check_tensor("student.sigma_logits", student.sigma_logits, (batch, joints, 2))
        check_tensor("keypoints", keypoints, (batch, joints, 2))
        check_weights("weights", weights, (batch, joints))
        targets, used = self.codec.targets(student, keypoints, weights)
        # of a joint without a label neither an infinite loss nor its derivative counts
        counted = used[..., None] > 0
        sigma = torch.where(counted, student.sigma_logits.to(targets.dtype), 0).sigmoid()
        difference = torch.where(counted, student.coordinates.to(targets.dtype) - targets, 0)
        log_phi = self._flow[0]((difference / sigma).flatten(0, 1)).view(batch, joints, 1)
        laplace = torch.log(sigma * math.sqrt(2 * math.pi)) + difference.abs() / (
            math.sqrt(2) * sigma + _SMALLEST
        )
        each = sigma.log() - log_phi + laplace
        return (each * used[..., None]).sum((1, 2)).mean() * self.scale

    def check_student(self, spec: MethodOptions) -> None:
        """See `LabelLoss.check_student`: the crops' sizes have to agree."""
        size, expected = self.codec.input_size, f"the student's {spec.input_size}"
        check(size == spec.input_size, "label_loss.input_size", size, expected)


class RLE(Method):
    """Coordinates and their errors' scale; see `Method`."""

    name = head = "rle"
    takes_low_resolution = True
    loss = RLELoss
    codec_type = RLECodec
    backbone_prefix = "preact."
    published = ("hrnet_w32", "hrnet_w48", "resnet50_upsample_free")

    def layers(
        self, spec: MethodOptions, channels: tuple[int, ...], size: tuple[int, int]
    ) -> dict[str, nn.Module]:
        """A layer for coordinates, one for sigmas, and the flow."""
        features = channels[0] if _is_averaged(spec) else channels[0] * size[0] * size[1]
        return {
            "fc_coord": Regression(features, 2 * spec.num_joints, normalized=True),
            "fc_sigma": Regression(features, 2 * spec.num_joints, normalized=False),
            "flow": RealNVP(),
        }

    def initialize(self, layers: dict[str, nn.Module]) -> None:
        """Draw small weights, as published."""
        for layer in layers.values():
            for module in layer.modules():
                if isinstance(module, nn.Linear):
                    nn.init.xavier_uniform_(module.weight, gain=0.01)

    def read(self, network: Any, features: Tensor) -> RLEOutput:
        """Coordinates and sigmas of all joints from the whole map."""
        averaged = _is_averaged(network.spec)
        flat = features.mean((2, 3)) if averaged else features.flatten(1)
        joints = (network.num_joints, 2)
        return RLEOutput(
            network.fc_coord(flat).unflatten(1, joints), network.fc_sigma(flat).unflatten(1, joints)
        )

    def codec(self, spec: CodecOptions, *, simcc_score: str = "min") -> RLECodec:
        """See `Method.codec`."""
        return RLECodec(spec.input_size)

    def label_loss(self, network: Any, options: LabelLossOptions) -> RLELoss:
        """The likelihood of the residuals; needs the network for its flow."""
        return RLELoss(RLECodec(network.spec.input_size), network.flow, scale=options.scale)


def _is_averaged(spec: MethodOptions) -> bool:
    """Whether the map's cells are averaged: those of ResNets are, of high-resolution networks they are not."""
    return spec.name.startswith("resnet")
