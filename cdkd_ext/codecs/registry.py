"""The codec of each kind of head."""

from __future__ import annotations

from cdkd_ext.codecs.codec import Codec, CodecOptions
from cdkd_ext.codecs.heatmap import HeatmapCodec
from cdkd_ext.codecs.simcc import SimCCCodec
from cdkd_ext.errors import check_option

CODECS: dict[str, type[Codec]] = {"simcc": SimCCCodec, "heatmap": HeatmapCodec}


def codec_for(spec: CodecOptions, *, simcc_score: str = "min") -> Codec:
    """The codec of a described network.

    Args:
        spec: the description.
        simcc_score: of SimCC's two axes' maxima, "min", "max" or "mean"; other codecs do not look at it.

    Raises:
        InputError: no codec belongs to the head.
    """
    check_option("head", spec.head, CODECS)
    return CODECS[spec.head].of(spec, simcc_score=simcc_score)
