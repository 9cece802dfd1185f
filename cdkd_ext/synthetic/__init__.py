"""Drawn people: a small annotated data set that needs no download."""

from cdkd_ext.synthetic.dataset import make_figures

__all__ = ["make_figures"]
