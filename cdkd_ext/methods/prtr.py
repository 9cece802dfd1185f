"""PRTR, two-stage: a transformer's queries, each of which says a joint's class and its coordinates.

Li et al., Pose Recognition with Cascade Transformers, CVPR 2021. The classification head of a high-resolution network puts its
maps together at a 32nd of the crop's size (one cell at 32x32, four at 64x64); an encoder and a decoder (Carion et al.,
DETR) turn 100 learned queries into joints. Labels and queries are matched one to one at the least cost.

Differences from the published code: the flip test mirrors pixels (x becomes W - 1 - x, not 1 - x of the width, which is half
a pixel off); a backbone's weights that are missing are an error (there they are passed over); a person without any label
teaches nothing, not even that there are no joints. The literature's "GFLOPs" of the 32x32 row were counted at 64x64.

At 32x32 there is a single cell for the queries to look at. All attention then gives the same for every query, whatever the
weights, and so does the network: one place for all joints. It learns nothing useful there; 64x64 is the least that it
needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from cdkd_ext.blocks import Bottleneck
from cdkd_ext.errors import check
from cdkd_ext.methods.assignment import assign
from cdkd_ext.methods.codec import CodecOptions
from cdkd_ext.methods.coordinates import CoordinateCodec
from cdkd_ext.methods.method import LabelLoss, LabelLossOptions, Method, MethodOptions
from cdkd_ext.methods.tokens import sine_positions
from cdkd_ext.tensor_checks import check_tensor, check_weights

_NO_JOINT = 0.1


@dataclass(frozen=True)
class PRTRLayout:
    """The shape of what is behind the backbone; the defaults are the published one.

    Attributes:
        queries: of which each joint takes one.
        width: channels of the transformer.
        hidden: channels between its layers' two linear layers.
        depth: layers of the encoder, and of the decoder.
        heads: of the attention.
        inner: inner channels of the bottlenecks behind the backbone's maps, highest resolution first.
        classified: channels of the map in front of the transformer.
    """

    queries: int = 100
    width: int = 256
    hidden: int = 2048
    depth: int = 6
    heads: int = 8
    inner: tuple[int, int, int, int] = (32, 64, 128, 256)
    classified: int = 2048


class PRTRLayer(NamedTuple):
    """What one layer of the decoder predicts.

    Attributes:
        logits: (B, 100, J + 1), of each query's class, the last one for no joint.
        coordinates: (B, 100, 2), x and y as shares of the crop's width and height.
    """

    logits: Tensor
    coordinates: Tensor


class PRTROutput(NamedTuple):
    """What a PRTR network predicts for a batch of crops.

    Attributes:
        logits: (B, 100, J + 1), of each query's class, the last one for no joint.
        coordinates: (B, 100, 2), x and y as shares of the crop's width and height.
        auxiliary: the same of the decoder's earlier layers, first to last, while training; else empty.
    """

    logits: Tensor
    coordinates: Tensor
    auxiliary: tuple[PRTRLayer, ...] = ()

    @property
    def feature(self) -> None:
        """None: there is no map to compare."""
        return None


class Attention(nn.Module):
    """Multi-head attention whose three projections are one tensor.

    Args:
        width: channels.
        heads: that divide them.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(B, N, width), (B, M, width) twice -> (B, N, width)."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            functional.linear(x, weight, bias).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        attended = functional.scaled_dot_product_attention(q, k, v)
        # not a call of the layer: torch's own attention makes none either, and the literature counts calls
        return functional.linear(
            attended.transpose(1, 2).flatten(2), self.out_proj.weight, self.out_proj.bias
        )


class _Layer(nn.Module):
    """What an encoder's and a decoder's layer share; both normalise after they have computed."""

    norm1: nn.LayerNorm
    norm2: nn.LayerNorm
    norm3: nn.LayerNorm

    def __init__(self, layout: PRTRLayout, norms: int) -> None:
        super().__init__()
        self.self_attn = Attention(layout.width, layout.heads)
        self.linear1 = nn.Linear(layout.width, layout.hidden)
        self.linear2 = nn.Linear(layout.hidden, layout.width)
        for norm in range(1, norms + 1):
            self.add_module(f"norm{norm}", nn.LayerNorm(layout.width))

    def fed_forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.linear1(x).relu())


class _EncoderLayer(_Layer):
    def __init__(self, layout: PRTRLayout) -> None:
        super().__init__(layout, norms=2)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        placed = x + positions
        x = self.norm1(x + self.self_attn(placed, placed, x))
        return self.norm2(x + self.fed_forward(x))


class _DecoderLayer(_Layer):
    def __init__(self, layout: PRTRLayout) -> None:
        super().__init__(layout, norms=3)
        self.multihead_attn = Attention(layout.width, layout.heads)

    def forward(self, x: Tensor, queries: Tensor, memory: Tensor, positions: Tensor) -> Tensor:
        asked = x + queries
        x = self.norm1(x + self.self_attn(asked, asked, x))
        x = self.norm2(x + self.multihead_attn(x + queries, memory + positions, memory))
        return self.norm3(x + self.fed_forward(x))


class Transformer(nn.Module):
    """DETR's encoder and decoder.

    Args:
        layout: width, heads and depth.
    """

    def __init__(self, layout: PRTRLayout) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict(
            {"layers": nn.ModuleList(_EncoderLayer(layout) for _ in range(layout.depth))}
        )
        self.decoder = nn.ModuleDict(
            {
                "layers": nn.ModuleList(_DecoderLayer(layout) for _ in range(layout.depth)),
                "norm": nn.LayerNorm(layout.width),
            }
        )

    def forward(self, memory: Tensor, positions: Tensor, queries: Tensor) -> list[Tensor]:
        """What each layer of the decoder makes of the queries.

        Args:
            memory: (B, N, width).
            positions: (1, N, width), of the memory.
            queries: (Q, width).

        Returns:
            Normalised (B, Q, width) of every layer.
        """
        for layer in _layers(self.encoder):
            memory = layer(memory, positions)
        x = memory.new_zeros(memory.shape[0], *queries.shape)
        results = []
        for layer in _layers(self.decoder):
            x = layer(x, queries, memory, positions)
            results.append(self.decoder["norm"](x))
        return results


def _layers(part: nn.ModuleDict) -> nn.ModuleList:
    layers = part["layers"]
    assert isinstance(layers, nn.ModuleList)
    return layers


class Perceptron(nn.Module):
    """Linear layers with ReLUs between them.

    Args:
        widths: channels, from the input's to the output's.
    """

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(inputs, outputs) for inputs, outputs in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """(…, first width) -> (…, last width)."""
        for index, layer in enumerate(self.layers):
            x = layer(x) if index == 0 else layer(x.relu())
        return x


class PRTRCodec(CoordinateCodec):
    """Each joint is the query that no other joint has and that makes the sum of the probabilities largest."""

    traceable = False  # queries are matched outside of torch

    def read(self, output: PRTROutput) -> tuple[Tensor, Tensor]:
        """Coordinates of the queries, and their probabilities among the joints, without that of no joint."""
        dtype = torch.promote_types(output.logits.dtype, torch.float32)
        probabilities = output.logits[..., :-1].to(dtype).softmax(-1).mT  # (B, J, queries)
        chosen = _assigned(-probabilities)
        scores = probabilities.gather(-1, chosen[..., None])[..., 0]
        coordinates = output.coordinates.to(dtype)
        return coordinates.gather(1, chosen[..., None].expand(-1, -1, 2)), scores


def _assigned(costs: Tensor) -> Tensor:
    """(B, J, queries) -> (B, J), on the same device."""
    found = assign(costs.detach().float().cpu().numpy())
    return torch.from_numpy(found).to(costs.device)


class PRTRLoss(LabelLoss):
    """Cross-entropy of the queries' classes and the distance of the matched ones, summed over the decoder's layers.

    Labels are matched with queries at the least sum of 5 · (|Δx| + |Δy|) minus the class's probability, joints without an
    annotation (at the crop's origin) included, as published. "No joint" counts a tenth in the weighted mean of the
    cross-entropy; the distance is 5 · J times the mean over samples, joints and both coordinates.

    Args:
        codec: makes the targets.
        distance_weight: on the distance in the costs and in the loss.
        scale: factor on the result.

    Raises:
        InputError: a number is out of range.

    Example:
        >>> import torch
        >>> from cdkd_ext.methods.prtr import PRTRCodec, PRTRLoss, PRTROutput
        >>> student = PRTROutput(torch.randn(2, 100, 18), torch.rand(2, 100, 2))
        >>> PRTRLoss(PRTRCodec((64, 64)))(student, torch.rand(2, 17, 2) * 63, torch.ones(2, 17)).shape
        torch.Size([])
    """

    name = "prtr"

    def __init__(self, codec: PRTRCodec, *, distance_weight: float = 5.0, scale: float = 1.0) -> None:
        super().__init__()
        check(0 <= distance_weight < float("inf"), "distance_weight", distance_weight, "zero or more")
        check(0 < scale < float("inf"), "scale", scale, "a positive number")
        self.codec = codec
        self.distance_weight = float(distance_weight)
        self.scale = float(scale)

    def forward(
        self, student: PRTROutput, keypoints: Tensor, weights: Tensor, progress: float = 0.0
    ) -> Tensor:
        """See `LabelLoss.forward`."""
        check_tensor("student.logits", student.logits, ("B", "queries", "classes"))
        batch, queries, classes = student.logits.shape
        joints = classes - 1
        check(
            queries >= joints,
            "student.logits",
            f"{queries} queries",
            f"at least one for each of {joints} joints",
        )
        check_tensor("student.coordinates", student.coordinates, (batch, queries, 2))
        check_tensor("keypoints", keypoints, (batch, joints, 2))
        check_weights("weights", weights, (batch, joints))
        targets, used = self.codec.targets(student, keypoints, weights)
        layers = [*student.auxiliary, PRTRLayer(student.logits, student.coordinates)]
        total = targets.new_zeros(())
        for layer, chosen in zip(layers, self._matched(layers, targets), strict=True):
            total = total + self._layer(layer, chosen, targets, used)
        return total * self.scale

    def _matched(self, layers: Sequence[PRTRLayer], targets: Tensor) -> Sequence[Tensor]:
        """For each layer the query (B, J) of every joint; all are matched at once."""
        logits = torch.stack([layer.logits for layer in layers]).detach().to(targets.dtype)
        coordinates = torch.stack([layer.coordinates for layer in layers]).detach().to(targets.dtype)
        # (layers, B, J, queries)
        distances = (coordinates[:, :, None] - targets[:, :, None]).abs().sum(-1)
        costs = self.distance_weight * distances - logits.softmax(-1)[..., :-1].mT
        return _assigned(costs.flatten(0, 1)).unflatten(0, costs.shape[:2]).unbind(0)

    def _layer(self, layer: PRTRLayer, chosen: Tensor, targets: Tensor, used: Tensor) -> Tensor:
        logits, coordinates = (value.to(targets.dtype) for value in layer)
        batch, joints = chosen.shape
        classes = chosen.new_full(logits.shape[:2], joints)
        classes = classes.scatter(1, chosen, torch.arange(joints, device=chosen.device).expand(batch, -1))
        counts = torch.ones_like(logits[..., 0]).masked_fill(classes == joints, _NO_JOINT)
        # who has no label at all says nothing about classes either
        counts = counts * (used > 0).any(1)[:, None]
        entropy = functional.cross_entropy(logits.mT, classes, reduction="none")
        classified = (entropy * counts).sum() / counts.sum().clamp(min=torch.finfo(counts.dtype).tiny)
        matched = coordinates.gather(1, chosen[..., None].expand(-1, -1, 2))
        distance = ((matched - targets).abs() * used[..., None]).mean()
        return classified + self.distance_weight * joints * distance

    def check_student(self, spec: MethodOptions) -> None:
        """See `LabelLoss.check_student`: the crops' sizes have to agree."""
        size, expected = self.codec.input_size, f"the student's {spec.input_size}"
        check(size == spec.input_size, "label_loss.input_size", size, expected)


class PRTR(Method):
    """Queries that become joints; see `Method`.

    Attributes:
        layout: of which `depth` and `heads` can be chosen otherwise.
    """

    layout: ClassVar[PRTRLayout] = PRTRLayout()
    name = head = "prtr"
    trunk = "pyramid"
    options = frozenset({"depth", "heads"})
    loss = PRTRLoss
    codec_type = PRTRCodec
    backbone_prefix = "backbone.0.body."
    backbone_parts = ("incre_modules", "downsamp_modules", "final_layer")
    published = ("hrnet_w32",)
    counter = "thop"

    def check(self, spec: MethodOptions) -> None:
        """The joints have to find queries, and the heads channels."""
        layout = self._chosen(spec)
        check(
            spec.num_joints <= layout.queries,
            "num_joints",
            spec.num_joints,
            f"at most {layout.queries} for prtr",
        )
        check(
            layout.width % layout.heads == 0, "heads", layout.heads, f"a divisor of {layout.width} channels"
        )

    def layers(
        self, spec: MethodOptions, channels: tuple[int, ...], size: tuple[int, int]
    ) -> dict[str, nn.Module]:
        """The classification head of the trunk, the transformer, and what reads its queries."""
        layout = self._chosen(spec)
        width = layout.width
        return {
            **_classification_layers(layout, channels),
            "input_proj": nn.Conv2d(layout.classified, width, 1),
            "transformer": Transformer(layout),
            "query_embed": nn.Embedding(layout.queries, width),
            "class_embed": nn.Linear(width, spec.num_joints + 1),
            "kpt_embed": Perceptron(width, width, width, 2),
        }

    def initialize(self, layers: dict[str, nn.Module]) -> None:
        """Draw the transformer's matrices as DETR does, and its input's convolution as torch does."""
        projection = layers["input_proj"]
        assert isinstance(projection, nn.Conv2d)
        projection.reset_parameters()
        for parameter in layers["transformer"].parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def read(self, network: Any, features: tuple[Tensor, ...]) -> PRTROutput:
        """Classes and coordinates of all queries."""
        memory = network.input_proj(_classified(network, features))
        rows, columns = memory.shape[2:]
        positions = sine_positions(rows, columns, memory.shape[1]).to(memory)
        results = network.transformer(memory.flatten(2).mT, positions, network.query_embed.weight)
        layers = [
            PRTRLayer(network.class_embed(x), network.kpt_embed(x).sigmoid())
            for x in (results if network.training else results[-1:])
        ]
        return PRTROutput(*layers[-1], tuple(layers[:-1]))

    def codec(self, spec: CodecOptions, *, simcc_score: str = "min") -> PRTRCodec:
        """See `Method.codec`."""
        return PRTRCodec(spec.input_size)

    def label_loss(self, network: Any, options: LabelLossOptions) -> PRTRLoss:
        """Classes and distances of matched queries."""
        return PRTRLoss(PRTRCodec(network.spec.input_size), scale=options.scale)

    def _chosen(self, spec: MethodOptions) -> PRTRLayout:
        layout = self.layout
        return replace(layout, depth=spec.depth or layout.depth, heads=spec.heads or layout.heads)


def _classification_layers(layout: PRTRLayout, channels: tuple[int, ...]) -> dict[str, nn.Module]:
    """HRNet's classification head, with the names of ImageNet's weights."""
    wide = [inner * Bottleneck.expansion for inner in layout.inner]
    return {
        "incre_modules": nn.ModuleList(
            nn.Sequential(Bottleneck(width, inner))
            for width, inner in zip(channels, layout.inner, strict=True)
        ),
        "downsamp_modules": nn.ModuleList(
            _normalized(nn.Conv2d(width, wider, 3, stride=2, padding=1)) for width, wider in pairwise(wide)
        ),
        "final_layer": _normalized(nn.Conv2d(wide[-1], layout.classified, 1)),
    }


def _normalized(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True))


def _classified(network: Any, maps: tuple[Tensor, ...]) -> Tensor:
    """The maps of all resolutions put together at the lowest."""
    x = network.incre_modules[0](maps[0])
    for down, widen, map_ in zip(network.downsamp_modules, network.incre_modules[1:], maps[1:], strict=True):
        x = widen(map_) + down(x)
    return network.final_layer(x)
