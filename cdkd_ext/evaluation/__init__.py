"""Accuracy of predicted poses."""

from cdkd_ext.evaluation.pckh import PckhResult, pckh

__all__ = ["PckhResult", "pckh"]
