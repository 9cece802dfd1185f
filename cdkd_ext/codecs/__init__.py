"""How a network's output speaks of positions: targets to train towards, and decoding to keypoints."""

from cdkd_ext.codecs.registry import CODECS, codec_for
from cdkd_ext.methods import Codec, CodecOptions
from cdkd_ext.methods.heatmap import HeatmapCodec, HeatmapOutput
from cdkd_ext.methods.heatmaps import decode_heatmaps, heatmap_sigma, heatmap_targets
from cdkd_ext.methods.simcc import SimCCCodec, SimCCOutput, num_bins

__all__ = [
    "CODECS",
    "Codec",
    "CodecOptions",
    "HeatmapCodec",
    "HeatmapOutput",
    "SimCCCodec",
    "SimCCOutput",
    "codec_for",
    "decode_heatmaps",
    "heatmap_sigma",
    "heatmap_targets",
    "num_bins",
]
