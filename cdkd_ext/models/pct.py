"""Poses as sequences of learned tokens (Geng et al., Human Pose as Compositional Tokens), with the published names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from cdkd_ext.errors import check
from cdkd_ext.models.blocks import BasicBlock

_CELL = 32


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
        num_joints: J.
    """

    codebook: Tensor
    ema_cluster_size: Tensor
    ema_w: Tensor

    def __init__(self, layout: PCTLayout, channels: int, num_joints: int) -> None:
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
        nn.init.trunc_normal_(self.invisible_token, std=0.02, a=-0.02, b=0.02)

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

    @torch.no_grad()
    def nearest(self, embedded: Tensor) -> Tensor:
        """The code with the smallest squared distance from each (..., code_width): int64 (...)."""
        products = embedded @ self.codebook.mT
        return (self.codebook.square().sum(-1) - 2 * products).argmin(-1)

    def decode(self, embedded: Tensor) -> Tensor:
        """Positions (B, J, 2) in pixels of the crop of tokens (B, tokens, code_width)."""
        joints = self.decoder_start(self.decoder_token_mlp(embedded.mT).mT)
        return self.recover_embed(self.decoder_layer_norm(self.decoder(joints)))


class PCTHead(nn.Module):
    """Which code each token of the pose in a crop is, and the tokenizer that tells where the joints of such tokens are.

    Between the codes of a token it does not choose: their mean by probability goes to the decoder.

    Args:
        layout: the shape.
        channels: of the feature map.
        input_size: (height, width) of the crops in pixels, equal multiples of 32; a finer map is averaged down to
            cells of 32 pixels.
        num_joints: J.

    Raises:
        InputError: the crops are not square, or no multiple of 32.
    """

    def __init__(
        self, layout: PCTLayout, channels: int, input_size: tuple[int, int], num_joints: int
    ) -> None:
        super().__init__()
        height, width = input_size
        check(height == width, "input_size", input_size, "a square: PCT is defined on square crops alone")
        check(height % _CELL == 0, "input_size", input_size, f"multiples of {_CELL} for PCT")
        self.layout = layout
        self.cells = (height // _CELL, width // _CELL)
        convolved = layout.conv_width
        self.conv_trans = nn.Sequential(
            nn.Conv2d(channels, convolved, 1, bias=False), nn.BatchNorm2d(convolved), nn.ReLU(inplace=True)
        )
        self.conv_head = nn.ModuleList(
            [nn.Sequential(*(BasicBlock(convolved) for _ in range(layout.conv_blocks)))]
        )
        token = layout.classifier_width
        self.mixer_trans = _Normalized(convolved * self.cells[0] * self.cells[1], layout.tokens * token)
        self.mixer_head = nn.Sequential(
            *(
                Mixer(layout.tokens, token, layout.mixer_width, 4 * token)
                for _ in range(layout.classifier_blocks)
            )
        )
        self.mixer_norm_layer = _Normalized(token, token)
        self.cls_pred_layer = nn.Linear(token, layout.codes)
        self.tokenizer = Tokenizer(layout, channels, num_joints)
        self.apply(_initialize_convolution)

    def logits(self, feature: Tensor) -> Tensor:
        """Logits (B, tokens, codes) of a feature map (B, channels, h, w)."""
        pooled = functional.adaptive_avg_pool2d(feature, self.cells)
        cells = self.conv_head[0](self.conv_trans(pooled)).flatten(2).mT.flatten(1)
        tokens = self.mixer_trans(cells).unflatten(-1, (self.layout.tokens, -1))
        return self.cls_pred_layer(self.mixer_norm_layer(self.mixer_head(tokens)))

    def coordinates(self, logits: Tensor) -> Tensor:
        """Positions (B, J, 2) in pixels of the crop of logits (B, tokens, codes)."""
        return self.tokenizer.decode(logits.softmax(-1) @ self.tokenizer.codebook)


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


def _initialize_convolution(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.001)
