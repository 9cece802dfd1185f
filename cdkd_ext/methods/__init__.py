"""How a network represents keypoints: each method one file, with layers, output, codec and loss from labels."""

from cdkd_ext.methods.cal import CALCodec, CALLoss, CALOutput
from cdkd_ext.methods.codec import Codec, CodecOptions
from cdkd_ext.methods.distilpose import DistilPoseCodec, DistilPoseLoss, DistilPoseOutput, HeatmapTeaching
from cdkd_ext.methods.hourglass import HourglassLoss, HourglassOutput
from cdkd_ext.methods.method import LabelLoss, LabelLossOptions, Method, MethodOptions, Teaching
from cdkd_ext.methods.okdhp import OKDHPLoss, OKDHPOutput
from cdkd_ext.methods.pct import PCTCodec, PCTLoss, PCTOutput
from cdkd_ext.methods.prtr import PRTRCodec, PRTRLayer, PRTRLayout, PRTRLoss, PRTROutput
from cdkd_ext.methods.registry import METHODS, list_heads, method_for
from cdkd_ext.methods.rle import RLECodec, RLELoss, RLEOutput
from cdkd_ext.methods.tokenpose import TokenPoseCodec, TokenPoseLoss, TokenPoseOutput

__all__ = [
    "METHODS",
    "CALCodec",
    "CALLoss",
    "CALOutput",
    "Codec",
    "CodecOptions",
    "DistilPoseCodec",
    "DistilPoseLoss",
    "DistilPoseOutput",
    "HeatmapTeaching",
    "HourglassLoss",
    "HourglassOutput",
    "LabelLoss",
    "LabelLossOptions",
    "Method",
    "MethodOptions",
    "OKDHPLoss",
    "OKDHPOutput",
    "PCTCodec",
    "PCTLoss",
    "PCTOutput",
    "PRTRCodec",
    "PRTRLayer",
    "PRTRLayout",
    "PRTRLoss",
    "PRTROutput",
    "RLECodec",
    "RLELoss",
    "RLEOutput",
    "Teaching",
    "TokenPoseCodec",
    "TokenPoseLoss",
    "TokenPoseOutput",
    "list_heads",
    "method_for",
]
