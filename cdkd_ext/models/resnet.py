"""ResNet for poses: SimpleBaselines (Xiao et al.) and SimCC's upsample-free variant, with the published names."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from cdkd_ext.blocks import Bottleneck, stem_strides, upsampling
from cdkd_ext.errors import check
from cdkd_ext.methods.registry import METHODS
from cdkd_ext.models.pose_network import PoseNetwork
from cdkd_ext.models.spec import ModelSpec


@dataclass(frozen=True)
class ResNetLayout:
    """The shape of a ResNet; the defaults are ResNet-50's.

    Attributes:
        blocks: bottlenecks in `layer1` to `layer4`.
        width: channels of the stem and inner channels of `layer1`; each later layer has twice as many.
        upsampling: channels of the transposed convolutions, each of which doubles the resolution.
    """

    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    width: int = 64
    upsampling: tuple[int, ...] = (256, 256, 256)


class ResNet(PoseNetwork):
    """Residual network (stride 32) with transposed convolutions, or with none for SimCC, RLE and PCT.

    Input sizes are multiples of 32 (of 16 and 8 behind a stem of stride 2 and 1), square or not. See `PoseNetwork` for
    the arguments and the result.
    """

    def __init__(self, layout: ResNetLayout, spec: ModelSpec) -> None:
        doublings = len(layout.upsampling)
        stride = 8 * spec.own_stem_stride
        super().__init__(spec, feature_stride=max(1, stride // 2**doublings), size_multiple=stride)
        fits = doublings or spec.method.takes_low_resolution
        *heads, last = (repr(method.head) for method in METHODS if method.takes_low_resolution)
        check(fits, "head", repr(self.head), f"{', '.join(heads)} or {last} for {spec.name}")
        conv_stride, pool_stride = stem_strides(spec.own_stem_stride)
        self.conv1 = nn.Conv2d(3, layout.width, 7, stride=conv_stride, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(layout.width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=pool_stride, padding=1)

        channels = layout.width
        layers = []
        for index, count in enumerate(layout.blocks):
            inner = layout.width * 2**index
            expanded = inner * Bottleneck.expansion
            first = Bottleneck(channels, inner, stride=1 if index == 0 else 2)
            layers.append(nn.Sequential(first, *(Bottleneck(expanded, inner) for _ in range(count - 1))))
            channels = expanded
        self.layer1, self.layer2, self.layer3, self.layer4 = layers

        self.deconv_layers = upsampling(channels, layout.upsampling)
        self.add_head(layout.upsampling[-1] if layout.upsampling else channels)

    def features(self, images: Tensor) -> Tensor:
        """The last map in front of the head: of the stem's stride, or of eight times that upsample-free."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.deconv_layers(x)
