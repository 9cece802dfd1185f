"""Person detectors in ONNX files: boxes of people in an image.

It needs numpy, OpenCV and onnxruntime: `pip install 'cdkd-ext[onnx]'`.
"""

from cdkd_ext.detectors.detector import Detector
from cdkd_ext.detectors.letterbox import Letterbox
from cdkd_ext.detectors.options import DetectionOptions

__all__ = ["DetectionOptions", "Detector", "Letterbox"]
