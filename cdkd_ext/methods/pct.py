"""PCT: a pose as 34 tokens of a learned code book, which a classifier reads from an image.

Geng et al., Human Pose as Compositional Tokens, CVPR 2023. It is trained in two stages. The tokenizer learns to write poses as
codes and to read them back, guided by the feature map of the backbone at the joints. Then the classifier learns which
codes the pose in an image has. The backbone is frozen in both; it comes from a network of heatmaps.

The published files hold a second copy of that frozen backbone for the guidance alone (`extra_backbone`); here one serves
both. The low-resolution files of the compared systems train the 32x32 tokenizer on crops of 256x256, so that codes and
pixels disagree; here a network has one crop size.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from cdkd_ext.blocks import BasicBlock, no_autocast
from cdkd_ext.errors import check, check_option, fail
from cdkd_ext.methods.codec import Codec, CodecOptions
from cdkd_ext.methods.coordinates import check_permutation, mapped
from cdkd_ext.methods.method import LabelLoss, LabelLossOptions, Method, MethodOptions
from cdkd_ext.tensor_checks import check_tensor, check_weights

STAGES = ("both", "tokenizer", "classifier")
"""What a training trains: one of the two parts, or the tokenizer for its first half and then the classifier."""
_CELL = 32
_FIRST_HALF = 0.5
_DECAY = 0.9
_SMALLEST_COUNT = 1e-5


class PCTOutput(NamedTuple):
    """What a PCT network predicts for a batch of crops.

    Attributes:
        coordinates: (B, J, 2), x and y in pixels of the crop.
        token_scores: (B, tokens), each token's largest logit.
        logits: (B, tokens, codes).
        guide: (B, C, h, w), the backbone's map, which guides the tokenizer in training.
    """

    coordinates: Tensor
    token_scores: Tensor
    logits: Tensor
    guide: Tensor

    @property
    def feature(self) -> None:
        """There is no map whose channels belong to joints."""
        return None

    @property
    def confidence(self) -> Tensor:
        """(B,) in [0, 1], the mean over the tokens of the likeliest code's probability."""
        return self.logits.softmax(-1).amax(-1).mean(-1)


@dataclass(frozen=True)
class PCTLayout:
    """The shape of PCT's head and tokenizer; the defaults are those of the base size.

    Attributes:
        tokens: tokens of a pose.
        codes: that a token can be.
        code_width: channels of a code.
        conv_width: channels of the classifier's convolutions.
        conv_blocks: residual blocks of the classifier.
        classifier_width: channels of a token in the classifier.
        classifier_blocks: mixer layers of the classifier.
        encoder_width: channels of a joint in the tokenizer's encoder, half of them from the image.
        encoder_blocks: mixer layers of the encoder.
        decoder_width: channels of a joint in the decoder, which has one mixer layer.
        mixer_width: hidden channels across tokens or joints in every mixer layer, and across channels in the decoder's.
        dropped: share of the joints that are hidden from the encoder while it is trained.
    """

    tokens: int = 34
    codes: int = 2048
    code_width: int = 512
    conv_width: int = 256
    conv_blocks: int = 2
    classifier_width: int = 64
    classifier_blocks: int = 4
    encoder_width: int = 512
    encoder_blocks: int = 4
    decoder_width: int = 32
    mixer_width: int = 64
    dropped: float = 0.2


class Mixer(nn.Module):
    """Two linear layers across the rows, then two across the channels (Tolstikhin et al., MLP-Mixer).

    Args:
        rows: tokens or joints.
        width: channels.
        row_width: hidden rows.
        hidden_width: hidden channels.
    """

    def __init__(self, rows: int, width: int, row_width: int, hidden_width: int) -> None:
        super().__init__()
        self.layernorm1 = nn.LayerNorm(width)
        self.MLP_token = _Mlp(rows, row_width)
        self.layernorm2 = nn.LayerNorm(width)
        self.MLP_channel = _Mlp(width, hidden_width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, rows, width) -> the same shape."""
        x = x + self.MLP_token(self.layernorm1(x).mT).mT
        return x + self.MLP_channel(self.layernorm2(x))


class _Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        # the published layers 2 and 4 are dropout of rate 0
        self.ff = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.ff(x)


class _Normalized(nn.Module):
    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.ff = nn.Sequential(nn.Linear(width, out_width), nn.LayerNorm(out_width), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.ff(x)


class Encoding(NamedTuple):
    """What the tokenizer makes of poses.

    Attributes:
        embedded: (B, tokens, code_width), what the encoder says.
        codes: (B, tokens) int64, the nearest code of each.
    """

    embedded: Tensor
    codes: Tensor


class Tokenizer(nn.Module):
    """From the joints' positions to codes of a learned book, and back.

    Args:
        layout: the shape.
        channels: of the feature map that guides the encoder.
        input_size: (height, width) of the crops in pixels.
        num_joints: J.
    """

    codebook: Tensor
    ema_cluster_size: Tensor
    ema_w: Tensor

    def __init__(
        self, layout: PCTLayout, channels: int, input_size: tuple[int, int], num_joints: int
    ) -> None:
        super().__init__()
        self.layout = layout
        width = layout.encoder_width
        self.invisible_token = nn.Parameter(torch.zeros(1, 1, width))
        self.start_img_embed = nn.Linear(channels, width // 2)
        self.start_embed = nn.Linear(2, width - width // 2)
        self.encoder = nn.Sequential(
            *(Mixer(num_joints, width, layout.mixer_width, width) for _ in range(layout.encoder_blocks))
        )
        self.encoder_layer_norm = nn.LayerNorm(width)
        self.token_mlp = nn.Linear(num_joints, layout.tokens)
        self.feature_embed = nn.Linear(width, layout.code_width)

        book = (layout.codes, layout.code_width)
        self.register_buffer("codebook", torch.randn(book))
        self.register_buffer("ema_cluster_size", torch.zeros(layout.codes))
        self.register_buffer("ema_w", torch.randn(book))

        self.decoder_token_mlp = nn.Linear(layout.tokens, num_joints)
        self.decoder_start = nn.Linear(layout.code_width, layout.decoder_width)
        self.decoder = nn.Sequential(
            Mixer(num_joints, layout.decoder_width, layout.mixer_width, layout.mixer_width)
        )
        self.decoder_layer_norm = nn.LayerNorm(layout.decoder_width)
        self.recover_embed = nn.Linear(layout.decoder_width, 2)
        self._initialize(input_size)

    def _initialize(self, input_size: tuple[int, int]) -> None:
        nn.init.trunc_normal_(self.invisible_token, std=0.02, a=-0.02, b=0.02)
        # fresh poses lie around the middle of the crop; from torch's weights the way there is thousands of steps long
        nn.init.normal_(self.recover_embed.weight, std=max(input_size) / 4 / self.layout.decoder_width**0.5)
        height, width = input_size
        with torch.no_grad():
            self.recover_embed.bias.copy_(torch.tensor([(width - 1) / 2, (height - 1) / 2]))

    def encode(self, keypoints: Tensor, visible: Tensor, guide: Tensor) -> Encoding:
        """Find the codes of poses.

        Args:
            keypoints: (B, J, 2) x and y in pixels of the crop; anything finite where not visible.
            visible: (B, J) bool; the encoder sees a learned token in place of the other joints.
            guide: (B, J, channels) of the feature map at the joints, as `joint_features` reads it.
        """
        seen = torch.cat([self.start_embed(keypoints), self.start_img_embed(guide)], -1)
        seen = torch.where(visible[..., None], seen, self.invisible_token)
        mixed = self.encoder_layer_norm(self.encoder(seen))
        embedded = self.feature_embed(self.token_mlp(mixed.mT).mT)
        return Encoding(embedded, self.nearest(embedded))

    def recover(self, logits: Tensor, *, frozen: bool = False) -> Tensor:
        """Positions (B, J, 2) in pixels of the crop of the mean codes by logits (B, tokens, codes).

        Args:
            logits: in float32 at least, whatever surrounds the call computes in.
            frozen: no gradient reaches the decoder's parameters.
        """
        logits = logits.to(torch.promote_types(logits.dtype, self.codebook.dtype))
        # 16-bit floats cannot hold a pixel coordinate
        with no_autocast(logits):
            embedded = logits.softmax(-1) @ self.codebook
            if not frozen:
                return self.decode(embedded)
            parameters = {name: value.detach() for name, value in self.named_parameters()}
            return torch.func.functional_call(self, parameters, (embedded,))

    @torch.no_grad()
    def move_codes(self, embedded: Tensor, codes: Tensor, counted: Tensor | None = None) -> None:
        """Move each code towards the mean of what it is the nearest to, as published; none where nobody is counted.

        Args:
            embedded: (B, tokens, code_width).
            codes: (B, tokens) int64, the nearest ones.
            counted: (B,) bool, who moves them; None lets all.
        """
        chosen = functional.one_hot(codes, self.layout.codes).to(embedded.dtype)
        if counted is not None:
            chosen = chosen * counted[:, None, None]
        chosen = chosen.flatten(0, 1)
        counts, sums = chosen.sum(0), chosen.mT @ embedded.flatten(0, 1)
        if _processes() > 1:
            torch.distributed.all_reduce(counts)
            torch.distributed.all_reduce(sums)
        sizes = self.ema_cluster_size.lerp(counts, 1 - _DECAY)
        total = sizes.sum()
        sizes = (sizes + _SMALLEST_COUNT) * total / (total + self.layout.codes * _SMALLEST_COUNT)
        means = self.ema_w.lerp(sums, 1 - _DECAY)
        # where nobody is labelled nothing moves; a branch would make a GPU wait
        moves = counts.sum() > 0
        for kept, moved in (
            (self.codebook, means / sizes[:, None]),
            (self.ema_cluster_size, sizes),
            (self.ema_w, means),
        ):
            kept.copy_(torch.where(moves, moved, kept))

    @torch.no_grad()
    def nearest(self, embedded: Tensor) -> Tensor:
        """The code with the smallest squared distance from each (..., code_width): int64 (...)."""
        products = embedded @ self.codebook.mT
        return (self.codebook.square().sum(-1) - 2 * products).argmin(-1)

    def forward(self, embedded: Tensor) -> Tensor:
        """See `decode`."""
        return self.decode(embedded)

    def decode(self, embedded: Tensor) -> Tensor:
        """Positions (B, J, 2) in pixels of the crop of tokens (B, tokens, code_width)."""
        joints = self.decoder_start(self.decoder_token_mlp(embedded.mT).mT)
        return self.recover_embed(self.decoder_layer_norm(self.decoder(joints)))


def joint_features(feature: Tensor, keypoints: Tensor, input_size: tuple[int, int]) -> Tensor:
    """The feature map in the cell nearest to each joint, or in the border's cell of a joint outside.

    Args:
        feature: (B, C, h, w).
        keypoints: (B, J, 2) x and y in pixels of the crop; finite.
        input_size: (height, width) of the crop in pixels.

    Returns:
        (B, J, C).
    """
    height, width = feature.shape[2:]
    x = (keypoints[..., 0] * (width / input_size[1]) + 0.5).long().clamp(0, width - 1)
    y = (keypoints[..., 1] * (height / input_size[0]) + 0.5).long().clamp(0, height - 1)
    cells = feature.flatten(2).mT  # (B, h * w, C)
    place = (y * width + x)[..., None].expand(-1, -1, cells.shape[-1])
    return cells.gather(1, place)


@dataclass(frozen=True)
class PCTCodec(Codec):
    """Coordinates are pixels of the crop.

    Args:
        input_size: (height, width) of the crops in pixels.
    """

    input_size: tuple[int, int]
    score_threshold: ClassVar[float] = 0.2  # as in PCT's configuration, though its scores are logits

    def places_per_pixel(self, output: PCTOutput) -> tuple[float, float]:
        """One on both axes."""
        return 1.0, 1.0

    def targets(self, output: PCTOutput, keypoints: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The keypoints (B, J, 2), 0 where the weight is 0, also those outside of the crop; see `Codec.targets`."""
        # float32 at least: float16 cannot hold a pixel coordinate to a fraction of a pixel
        keypoints = keypoints.to(torch.promote_types(keypoints.dtype, torch.float32))
        return torch.where(weights[..., None] > 0, keypoints, 0), weights

    def decode(
        self,
        output: PCTOutput,
        *,
        flipped: tuple[PCTOutput, Tensor] | None = None,
        to_image: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The coordinates; the score, one for all joints, is the mean of the tokens' largest logits.

        Both are in float32 at least. Pixel x of a crop of width W mirrors to W - 1 - x. See `Codec.decode`.
        """
        keypoints, scores = _read(output)
        if flipped is not None:
            check_permutation(flipped[1], keypoints.shape[1])
            back, other_scores = _read(flipped[0])
            x, y = back[:, flipped[1]].unbind(-1)
            keypoints = (keypoints + torch.stack([self.input_size[1] - 1 - x, y], -1)) / 2
            scores = (scores + other_scores) / 2
        return mapped(keypoints, to_image), scores[:, None].expand(keypoints.shape[:2])


def _read(output: PCTOutput) -> tuple[Tensor, Tensor]:
    """Coordinates (B, J, 2) and scores (B,), in float32 at least: 16-bit floats cannot hold a pixel coordinate."""
    dtype = torch.promote_types(output.coordinates.dtype, torch.float32)
    return output.coordinates.to(dtype), output.token_scores.to(dtype).mean(-1)


class PCTLoss(LabelLoss):
    """The loss of the part that is trained: of the tokenizer, or of the classifier.

    The tokenizer's is the smooth L1 distance of the recovered joints in pixels, times their weights, a mean over samples,
    joints and coordinates, and `commitment` times the mean squared distance of what the encoder says from the
    nearest codes. Gradients pass from the codes straight to the encoder. The codes are no parameters: each moves
    to the running mean of what it was the nearest to, in every process.

    The classifier's is the cross-entropy of its logits against the codes of the annotated joints, and the same
    distance of the joints that the tokenizer reads from its predictions. The tokenizer is not trained by it.

    Args:
        tokenizer: of the network that is trained; no part of this module.
        input_size: (height, width) of the student's crop in pixels.
        stage: one of `STAGES`.
        commitment: weight of the distance from the codes.
        beta: pixels up to which the distance of a joint is squared.
        scale: factor on the result.

    Raises:
        InputError: a number is out of range, or the stage is unknown.
    """

    name = "pct"

    def __init__(
        self,
        tokenizer: Tokenizer,
        input_size: tuple[int, int],
        *,
        stage: str = "both",
        commitment: float = 15.0,
        beta: float = 0.05,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        check_option("stage", stage, STAGES)
        check(0 <= commitment < float("inf"), "commitment", commitment, "zero or more")
        check(0 < beta < float("inf"), "beta", beta, "a positive number of pixels")
        check(0 < scale < float("inf"), "scale", scale, "a positive number")
        # in a tuple it is not registered: it belongs to the network
        self._tokenizer = (tokenizer,)
        self.codec = PCTCodec(input_size)
        self.stage = stage
        self.commitment = float(commitment)
        self.beta = float(beta)
        self.scale = float(scale)
        self._place, self._repeats = -1.0, 0

    @property
    def tokenizer(self) -> Tokenizer:
        """That of the network that is trained."""
        return self._tokenizer[0]

    def forward(
        self, student: PCTOutput, keypoints: Tensor, weights: Tensor, progress: float = 0.0
    ) -> Tensor:
        """See `LabelLoss.forward`.

        Args:
            student: the network's output.
            keypoints: (B, J, 2) x and y in pixels of the student's crop; anything where the weight is 0.
            weights: (B, J) factors, 0 for joints without a label.
            progress: share of the training done, in [0, 1]. The stage "both" goes on to the classifier by it alone: who
                leaves it at 0 trains the tokenizer for ever. Which joints are hidden follows from it, too, and from how often
                it was the same in a row.

        Raises:
            InputError: a shape does not fit, a weight is negative, or several processes train "both".
        """
        check_tensor("keypoints", keypoints, (*student.coordinates.shape[:2], 2))
        check_weights("weights", weights, (keypoints.shape[0], keypoints.shape[1]))
        dtype = self.tokenizer.codebook.dtype
        positions, used = self.codec.targets(student, keypoints, weights)
        guide = joint_features(student.guide, positions, self.codec.input_size).to(dtype)
        positions, used = positions.to(dtype), used.to(dtype)
        if self.stage == "both" and _processes() > 1:
            fail(
                "stage", f"'both' in {_processes()} processes", "'tokenizer', then 'classifier', in two runs"
            )
        first = self.stage == "tokenizer" or (self.stage == "both" and progress < _FIRST_HALF)
        # 16-bit floats cannot hold a pixel coordinate
        with no_autocast(keypoints):
            if first:
                loss = self._tokenizer_loss(positions, used, guide, progress)
            else:
                loss = self._classifier_loss(student, positions, used, guide)
        return loss * self.scale

    def check_student(self, spec: MethodOptions) -> None:
        """See `LabelLoss.check_student`: the crops' sizes have to agree."""
        size, expected = self.codec.input_size, f"the student's {spec.input_size}"
        check(size == spec.input_size, "label_loss.input_size", size, expected)

    def _tokenizer_loss(self, positions: Tensor, weights: Tensor, guide: Tensor, progress: float) -> Tensor:
        tokenizer = self.tokenizer
        visible = weights > 0
        if self.training:
            self._repeats = self._repeats + 1 if progress == self._place else 0
            self._place = progress
            visible = visible & ~_hidden(visible, tokenizer.layout.dropped, progress, self._repeats)
        embedded, codes = tokenizer.encode(positions, visible, guide)
        nearest = tokenizer.codebook[codes]
        recovered = tokenizer.decode(embedded + (nearest - embedded).detach())
        # a person without any annotated joint has no codes
        labelled = (weights > 0).any(1)
        commitment = (embedded - nearest).square().flatten(1).mean(1).mul(labelled).mean()
        if self.training:
            tokenizer.move_codes(embedded.detach(), codes, labelled)
        return self._distance(recovered, positions, weights) + self.commitment * commitment

    def _classifier_loss(
        self, student: PCTOutput, positions: Tensor, weights: Tensor, guide: Tensor
    ) -> Tensor:
        tokenizer = self.tokenizer
        visible = weights > 0
        with torch.no_grad():
            codes = tokenizer.encode(positions, visible, guide).codes
        logits = student.logits.to(positions.dtype)
        entropy = functional.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none")
        # a person without any annotated joint has no codes to learn
        labelled = visible.any(1).to(entropy.dtype)
        entropy = (entropy.view_as(codes) * labelled[:, None]).mean()
        recovered = tokenizer.recover(logits, frozen=True)
        return entropy + self._distance(recovered, positions, weights)

    def _distance(self, recovered: Tensor, positions: Tensor, weights: Tensor) -> Tensor:
        each = functional.smooth_l1_loss(recovered, positions, reduction="none", beta=self.beta)
        return (each * weights[..., None]).mean()


class PCT(Method):
    """Poses as tokens; see `Method`.

    The head takes a map of cells of 32 pixels, to which finer ones are averaged.

    Attributes:
        layout: of all networks.
    """

    layout: ClassVar[PCTLayout] = PCTLayout()

    name = head = "pct"
    loss = PCTLoss
    codec_type = PCTCodec
    takes_low_resolution = True
    backbone_prefix = "backbone."
    head_prefix = "keypoint_head."
    unused_parts = ("extra_backbone.",)
    published = ("swin_v2_base",)
    counter = "thop"
    counts_backbone = True

    def check(self, spec: MethodOptions) -> None:
        """Square crops alone."""
        height, width = spec.input_size
        check(height == width, "input_size", spec.input_size, "a square: PCT knows no other crops")
        check(height % _CELL == 0, "input_size", spec.input_size, f"multiples of {_CELL} for PCT")

    def layers(
        self, spec: MethodOptions, channels: tuple[int, ...], size: tuple[int, int]
    ) -> dict[str, nn.Module]:
        """The classifier's layers and the tokenizer, side by side, as published."""
        layout = self.layout
        width, token = layout.conv_width, layout.classifier_width
        cells = (spec.input_size[0] // _CELL) * (spec.input_size[1] // _CELL)
        return {
            "conv_trans": nn.Sequential(
                nn.Conv2d(channels[0], width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
            ),
            "conv_head": nn.ModuleList(
                [nn.Sequential(*(BasicBlock(width) for _ in range(layout.conv_blocks)))]
            ),
            "mixer_trans": _Normalized(width * cells, layout.tokens * token),
            "mixer_head": nn.Sequential(
                *(
                    Mixer(layout.tokens, token, layout.mixer_width, 4 * token)
                    for _ in range(layout.classifier_blocks)
                )
            ),
            "mixer_norm_layer": _Normalized(token, token),
            "cls_pred_layer": nn.Linear(token, layout.codes),
            "tokenizer": Tokenizer(layout, channels[0], spec.input_size, spec.num_joints),
        }

    def read(self, network: Any, features: Tensor) -> PCTOutput:
        """The codes' logits, and where the joints of their mean are."""
        height, width = network.input_size
        feature = functional.adaptive_avg_pool2d(features, (height // _CELL, width // _CELL))
        convolved = network.conv_head[0](network.conv_trans(feature))
        # cell by cell, channels side by side
        tokens = network.mixer_trans(convolved.flatten(2).mT.flatten(1))
        tokens = tokens.unflatten(-1, (network.tokenizer.layout.tokens, -1))
        logits = network.cls_pred_layer(network.mixer_norm_layer(network.mixer_head(tokens)))
        coordinates = network.tokenizer.recover(logits)
        return PCTOutput(coordinates, logits.amax(-1), logits, features)

    def codec(self, spec: CodecOptions, *, simcc_score: str = "min") -> PCTCodec:
        """See `Method.codec`."""
        return PCTCodec(spec.input_size)

    def label_loss(self, network: Any, options: LabelLossOptions) -> PCTLoss:
        """The loss of the part that is trained; what is not trained is frozen in the network."""
        loss = PCTLoss(network.tokenizer, network.spec.input_size, stage=options.stage, scale=options.scale)
        frozen = []
        for name, part in network.named_children():
            if name == "tokenizer":
                trained = options.stage != "classifier"
            elif name in network.head_parts:
                trained = options.stage != "tokenizer"
            else:
                trained = not options.frozen_backbone
            part.requires_grad_(trained)
            if not trained:
                frozen.append(name)
        network.frozen_parts = tuple(frozen)
        network.train(network.training)  # which leaves the frozen parts out
        return loss


def _processes() -> int:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if distributed else 1


def _hidden(visible: Tensor, share: float, progress: float, repeats: int) -> Tensor:
    """Which joints the encoder does not see in this step: bool of the shape of `visible`."""
    # drawn from the place in the training, so that a training that is resumed draws the same
    seed = zlib.crc32(repr(progress).encode(), repeats)
    generator = torch.Generator(visible.device).manual_seed(seed)
    return torch.rand(visible.shape, generator=generator, device=visible.device) < share
