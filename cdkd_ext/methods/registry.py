"""All methods, and which of them a network has."""

from __future__ import annotations

from typing import Protocol

from cdkd_ext.errors import check_option
from cdkd_ext.methods.cal import CAL
from cdkd_ext.methods.distilpose import DistilPose
from cdkd_ext.methods.heatmap import Heatmap
from cdkd_ext.methods.hourglass import StackedHourglass
from cdkd_ext.methods.method import Method
from cdkd_ext.methods.okdhp import OKDHP
from cdkd_ext.methods.pct import PCT
from cdkd_ext.methods.prtr import PRTR
from cdkd_ext.methods.rle import RLE
from cdkd_ext.methods.simcc import SimCC
from cdkd_ext.methods.tokenpose import TokenPoseB, TokenPoseL

METHODS: tuple[Method, ...] = (
    SimCC(),
    Heatmap(),
    StackedHourglass(),
    OKDHP(),
    CAL(),
    RLE(),
    TokenPoseB(),
    TokenPoseL(),
    DistilPose(),
    PRTR(),
    PCT(),
)


class Described(Protocol):
    """What decides about the method; `models.ModelSpec` is one."""

    @property
    def name(self) -> str:
        """The network."""
        ...

    @property
    def head(self) -> str:
        """Kind of output."""
        ...


def list_heads() -> list[str]:
    """Values of the option `head`, in the order of `METHODS`."""
    return list(dict.fromkeys(method.head for method in METHODS))


def method_for(head: str, network: str = "") -> Method:
    """The method of a head, on a network that may have one of its own for it.

    Args:
        head: one of `list_heads()`.
        network: name of the network.

    Raises:
        InputError: there is no such head.

    Example:
        >>> from cdkd_ext.methods import method_for
        >>> method_for("simcc").has_classes
        True
    """
    check_option("head", head, list_heads())
    chosen = [method for method in METHODS if method.head == head]
    own = [method for method in chosen if network in method.networks]
    general = [method for method in chosen if not method.networks]
    return (own or general or chosen)[0]
