"""`python docs/draw` draws the pictures of the documentation into docs/images, or into the folder that is named."""

from __future__ import annotations

import sys
from pathlib import Path

from costs import costs
from layers import layers
from method import merging, method
from resample import resample
from results import results

IMAGES = Path(__file__).resolve().parents[1] / "images"


def main(folder: Path = IMAGES) -> None:
    """Write every picture, named after its function."""
    folder.mkdir(parents=True, exist_ok=True)
    for draw in (method, merging, layers, resample, results, costs):
        (folder / f"{draw.__name__}.svg").write_text(str(draw()), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
