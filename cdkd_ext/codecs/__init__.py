"""From keypoints to what a network is trained towards, and back: SimCC's bins and heatmaps."""

from cdkd_ext.codecs.heatmap import decode_heatmaps, heatmap_sigma, heatmap_targets
from cdkd_ext.codecs.simcc import bin_coordinates, gaussian_labels, hard_labels, num_bins

__all__ = [
    "bin_coordinates",
    "decode_heatmaps",
    "gaussian_labels",
    "hard_labels",
    "heatmap_sigma",
    "heatmap_targets",
    "num_bins",
]
