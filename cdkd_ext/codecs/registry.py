"""The codec of each kind of head."""

from __future__ import annotations

from cdkd_ext.methods import METHODS, Codec, CodecOptions, method_for

CODECS: dict[str, type[Codec]] = {method.head: method.codec_type for method in reversed(METHODS)}


def codec_for(spec: CodecOptions, *, simcc_score: str = "min") -> Codec:
    """The codec of a described network.

    Args:
        spec: the description.
        simcc_score: of SimCC's two axes' maxima, "min", "max" or "mean"; other codecs do not look at it.

    Raises:
        InputError: no codec belongs to the head.
    """
    method = method_for(spec.head, getattr(spec, "name", ""))
    return method.codec(spec, simcc_score=simcc_score)
