"""Networks of hourglasses: a stem with the hourglasses of a method behind it, with the published tensor names."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import ClassVar

from torch import Tensor, nn

from cdkd_ext.blocks import stem_strides
from cdkd_ext.errors import check, check_type
from cdkd_ext.methods.hourglass import LAYOUTS, HourglassLayout, PreActivation, draw_convolutions
from cdkd_ext.methods.method import Trunk
from cdkd_ext.methods.okdhp import BRANCHES, OKDHP, SHARED
from cdkd_ext.models.pose_network import PoseNetwork
from cdkd_ext.models.spec import ModelSpec

# of a plain network: the kind of layer, the number of its hourglass, and the rest of the name
_PLAIN = re.compile(r"^(hg|res|fc|score|fc_|score_)\.(\d+)\.(.*)$")
_BRANCHED = {
    "hg": "ind_{}.0.{}",
    "res": "ind_{}.1.{}",
    "fc": "ind_{}.2.{}",
    "score": "score_{}.{}",
    "fc_": "_fc_{}.{}",
    "score_": "_score_{}.{}",
}


class HourglassNetwork(PoseNetwork):
    """A 7x7 convolution and blocks at a quarter of the resolution, then hourglasses.

    Input sizes are multiples of 64 (of 32 and 16 behind a stem of stride 2 and 1), square or not. See `PoseNetwork` for
    the arguments and the result.
    """

    trunks: ClassVar[tuple[Trunk, ...]] = ("stem",)

    def __init__(self, layout: HourglassLayout, spec: ModelSpec) -> None:
        stride = spec.own_stem_stride
        super().__init__(spec, feature_stride=stride, size_multiple=16 * stride)
        first, second = stem_strides(stride)
        width = layout.width
        self.conv1 = nn.Conv2d(3, width // 4, 7, stride=first, padding=3)
        self.bn1 = nn.BatchNorm2d(width // 4)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(PreActivation(width // 4, width // 2))
        self.maxpool = nn.MaxPool2d(second)
        self.layer2 = nn.Sequential(PreActivation(width // 2, width))
        self.layer3 = nn.Sequential(PreActivation(width, width))
        self.add_head(width)
        for part in (self.conv1, self.layer1, self.layer2, self.layer3):
            draw_convolutions(part)

    def features(self, images: Tensor) -> Tensor:
        """The map (B, width, h, w) in front of the first hourglass, of the stem's stride."""
        x = self.relu(self.bn1(self.conv1(images)))
        return self.layer3(self.layer2(self.maxpool(self.layer1(x))))


def extract_branch(network: PoseNetwork, branch: int) -> PoseNetwork:
    """One branch of a network of three, with the hourglasses that it shares: what is used after the training.

    Args:
        network: an "okdhp_4", or one of another width.
        branch: 0, 1 or 2.

    Returns:
        The "hourglass_4" of its width with a copy of the weights, whose heatmaps are those of the branch's end.

    Raises:
        InputError: a network of another kind, or no such branch.

    Example:
        >>> from cdkd_ext.models import create_model, extract_branch
        >>> network = create_model("okdhp_4", input_size=(64, 64), num_joints=16, head="heatmap")
        >>> extract_branch(network, 0).name
        'hourglass_4'
    """
    check_type("network", network, PoseNetwork, "a PoseNetwork")
    check(network.name in OKDHP.networks, "network", network.name, f"one of {', '.join(OKDHP.networks)}")
    check(branch in range(BRANCHES), "branch", branch, f"0 to {BRANCHES - 1}")
    name = network.name.replace("okdhp", "hourglass")
    plain = HourglassNetwork(LAYOUTS[name], replace(network.spec, name=name))
    weights = network.state_dict()
    like = next(network.parameters())
    plain.to(like.device, like.dtype)
    plain.load_state_dict({name: weights[_name_in_branch(name, branch)] for name in plain.state_dict()})
    return plain.train(network.training)


def _name_in_branch(name: str, branch: int) -> str:
    """What a tensor of the plain network is called in the network of branches."""
    found = _PLAIN.match(name)
    if found is None:
        return name
    kind, stack, rest = found[1], int(found[2]), found[3]
    place = f"s_{stack}" if stack < SHARED else f"b_{branch}_s_{stack - SHARED}"
    return _BRANCHED[kind].format(place, rest)
