"""Drawn people: a small annotated data set that needs no download."""

from cdkd_ext.synthetic.dataset import draw_people

__all__ = ["draw_people"]
