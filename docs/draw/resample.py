"""What becomes of a far-away person's pixels: one of many, or the mean of all."""

from __future__ import annotations

from person import person
from svg import INK, QUIET, Drawing

_CELLS, _FACTOR = 16, 7
_SIDE, _TOP, _GAP = 260, 24, 30


def resample() -> Drawing:
    """The image's pixels, and two crops of a seventh of them each way."""
    drawing = Drawing(
        3 * _SIDE + 4 * _GAP, _SIDE + 96, "A crop by linear samples and a crop by means over areas"
    )
    pixels = person(_CELLS * _FACTOR)
    # the pixel in the middle of each block of 7 × 7 is what bilinear sampling takes
    middle = pixels[_FACTOR // 2 :: _FACTOR]
    linear = [row[_FACTOR // 2 :: _FACTOR] for row in middle]
    columns = (
        (pixels, "the image", f"{len(pixels)} × {len(pixels)} pixels"),
        (linear, "data.resample linear", "one of 49 pixels counts: thin limbs break"),
        (person(_CELLS), "data.resample area", "all 49 count, as in a camera's pixel"),
    )
    for number, (colors, title, words) in enumerate(columns):
        x = _GAP + number * (_SIDE + _GAP)
        drawing.cells(x, _TOP, _SIDE, colors)
        drawing.text(x + _SIDE / 2, _TOP + _SIDE + 30, title, fill=INK, bold=True)
        drawing.text(x + _SIDE / 2, _TOP + _SIDE + 52, words, fill=QUIET, size=13)
    return drawing
