"""Trained networks as files that run without this package: ONNX, and PyTorch programs.

It needs `pip install 'cdkd-ext[train,export]'`; running an exported ONNX file needs numpy, OpenCV and onnxruntime alone.
"""

from cdkd_ext.deployment.crop_decoder import CropDecoder
from cdkd_ext.deployment.export import ExportReport, export_network
from cdkd_ext.deployment.onnx_graph import write_onnx
from cdkd_ext.deployment.web import write_web_page

__all__ = ["CropDecoder", "ExportReport", "export_network", "write_onnx", "write_web_page"]
