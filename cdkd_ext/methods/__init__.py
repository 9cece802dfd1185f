"""How a network represents keypoints: each method one file, with layers, output, codec and loss from labels."""

from cdkd_ext.methods.codec import Codec, CodecOptions
from cdkd_ext.methods.method import LabelLoss, LabelLossOptions, Method, MethodOptions, Teaching
from cdkd_ext.methods.registry import METHODS, list_heads, method_for

__all__ = [
    "METHODS",
    "Codec",
    "CodecOptions",
    "LabelLoss",
    "LabelLossOptions",
    "Method",
    "MethodOptions",
    "Teaching",
    "list_heads",
    "method_for",
]
