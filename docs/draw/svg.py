"""A drawing of boxes, arrows, texts and bars, written as SVG that needs no font, script or network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

INK = "#1f2933"
QUIET = "#5b6773"
PAPER = "#fbfbf9"
LINE = "#c9cfd6"
TEACHER = "#3a63a8"
STUDENT = "#c2571a"
LOSS = "#2f7d4f"

Point = tuple[float, float]


class Drawing:
    """Shapes on a light card with round corners, which reads on light and dark pages alike.

    Args:
        width: in pixels.
        height: in pixels.
        title: what a screen reader says.
    """

    def __init__(self, width: int, height: int, title: str) -> None:
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
            f' font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">',
            f"<title>{escape(title)}</title>",
        ]
        self.box(0, 0, width, height, fill=PAPER, stroke="none", radius=14)

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        fill: str = "white",
        stroke: str = LINE,
        radius: float = 8,
    ) -> None:
        """Draw a rectangle."""
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}"'
            f' fill="{fill}" stroke="{stroke}" stroke-width="1.5"/>'
        )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = 15,
        fill: str = INK,
        anchor: str = "middle",
        bold: bool = False,
    ) -> None:
        """Draw one line, centred on `x` unless `anchor` is "start" or "end"."""
        weight = ' font-weight="600"' if bold else ""
        self._parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" fill="{fill}" text-anchor="{anchor}"{weight}>'
            f"{escape(words)}</text>"
        )

    def arrow(self, points: Sequence[Point], *, color: str = QUIET, dashed: bool = False) -> None:
        """Draw a line through the points with a head at the last one."""
        *_, (x0, y0), (x, y) = points
        length = max(((x - x0) ** 2 + (y - y0) ** 2) ** 0.5, 1e-9)
        ux, uy = (x - x0) / length, (y - y0) / length
        end = (x - 8 * ux, y - 8 * uy)
        path = " ".join(f"{px:g},{py:g}" for px, py in (*points[:-1], end))
        dash = ' stroke-dasharray="6 5"' if dashed else ""
        self._parts.append(
            f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"'
            f' stroke-linejoin="round"{dash}/>'
        )
        head = [
            (x, y),
            (x - 11 * ux - 5 * uy, y - 11 * uy + 5 * ux),
            (x - 11 * ux + 5 * uy, y - 11 * uy - 5 * ux),
        ]
        corners = " ".join(f"{px:.1f},{py:.1f}" for px, py in head)
        self._parts.append(f'<polygon points="{corners}" fill="{color}"/>')

    def line(self, points: Sequence[Point], *, color: str = LINE, width: float = 1.5) -> None:
        """Draw a line through the points."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        self._parts.append(
            f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width:g}"/>'
        )

    def cells(self, x: float, y: float, side: float, colors: Sequence[Sequence[str]]) -> None:
        """Draw an image of square cells; equal neighbours of a row become one rectangle."""
        cell = side / len(colors)
        for row, line in enumerate(colors):
            start = 0
            for end in range(1, len(line) + 1):
                if end == len(line) or line[end] != line[start]:
                    self._parts.append(
                        f'<rect x="{x + start * cell:.2f}" y="{y + row * cell:.2f}"'
                        f' width="{(end - start) * cell + 0.3:.2f}" height="{cell + 0.3:.2f}" fill="{line[start]}"/>'
                    )
                    start = end

    def bars(
        self, x: float, y: float, width: float, height: float, values: Sequence[float], colors: Sequence[str]
    ) -> None:
        """Draw bars that stand on the lower edge; the tallest value fills the height."""
        step, top = width / len(values), max(values)
        for i, (value, color) in enumerate(zip(values, colors, strict=True)):
            tall = height * value / top
            self._parts.append(
                f'<rect x="{x + i * step:.2f}" y="{y + height - tall:.2f}" width="{step * 0.82:.2f}"'
                f' height="{tall:.2f}" fill="{color}"/>'
            )
        self.line([(x, y + height), (x + width, y + height)], color=QUIET)

    def dot(self, x: float, y: float, radius: float, *, fill: str) -> None:
        """Draw a disc."""
        self._parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{fill}"/>')

    def __str__(self) -> str:
        return "\n".join([*self._parts, "</svg>", ""])
