"""Comparisons of prediction."""
