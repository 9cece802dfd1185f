"""What decodes people one by one finds what this package finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.inference.frames import dark
from cdkd_ext.methods.heatmaps import decode_heatmaps


@pytest.mark.parametrize("cells", [(16, 16), (64, 48), (20, 72)])
def test_dark_joint_by_joint_finds_the_same_places(cells: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    rows, columns = (np.arange(count) for count in cells)
    # some beside the border, which stay on their cells
    middles = rng.uniform(0, 1, (40, 2)) * (cells[1] - 1, cells[0] - 1)
    across = np.exp(-((columns - middles[:, :1]) ** 2) / 4.5)
    down = np.exp(-((rows - middles[:, 1:]) ** 2) / 4.5)
    maps = (down[:, :, None] * across[:, None]).astype(np.float32)
    maps[7] = -maps[7]
    expected, _ = decode_heatmaps(torch.from_numpy(maps)[None], cells, method="dark")
    np.testing.assert_allclose(dark(maps), expected[0], atol=2e-3)
