"""How far a JPEG's image reaches: told from its codes, for every way of writing them that OpenCV has."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from cdkd_ext._C import jpeg_extent
from cdkd_ext.errors import InputError
from cdkd_ext.images import read_image

END = b"\xff\xd9"
SAMPLING = cv2.IMWRITE_JPEG_SAMPLING_FACTOR
WRITERS = {
    "quarter colour": [],
    "full colour": [SAMPLING, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444],
    "half the columns": [SAMPLING, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422],
    "half the rows": [SAMPLING, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440],
    "quarter of the columns": [SAMPLING, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411],
    "best quality": [cv2.IMWRITE_JPEG_QUALITY, 100],
    "own tables": [cv2.IMWRITE_JPEG_OPTIMIZE, 1],
    "restarts": [cv2.IMWRITE_JPEG_RST_INTERVAL, 2],
    "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "progressive, best quality": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_QUALITY, 100],
    "progressive, restarts": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 3],
}
SIZES = [(40, 60), (33, 17), (8, 8), (1, 1), (7, 130), (121, 94)]


def drawn(height: int, width: int) -> np.ndarray:
    """A soft image with some noise, so that its blocks differ in how many codes they have."""
    rng = np.random.default_rng(height * width)
    soft = cv2.resize(
        rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8), (width, height)
    )
    return np.clip(soft + rng.integers(-9, 10, soft.shape), 0, 255).astype(np.uint8)


def encoded(height: int, width: int, writer: str, *, grey: bool = False) -> bytes:
    image = drawn(height, width)
    return cv2.imencode(".jpg", image[..., 0] if grey else image, WRITERS[writer])[1].tobytes()


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("grey", [False, True], ids=["colour", "grey"])
def test_whole_image(writer: str, grey: bool) -> None:
    for height, width in SIZES:
        content = encoded(height, width, writer, grey=grey)
        assert jpeg_extent(content) == (height, width, len(content), True, True)


@pytest.mark.parametrize("writer", WRITERS)
def test_no_cut_image_is_whole(writer: str) -> None:
    """Wherever it is cut, and whether or not somebody closed it."""
    content = encoded(33, 47, writer)
    for end in range(2, len(content) - 2):
        for cut in (content[:end], content[:end] + END):
            found = jpeg_extent(cut)
            assert found is None or not found[4], end


def test_only_the_end_marker_lacks(tmp_path: Path) -> None:
    for writer in WRITERS:
        content = encoded(40, 60, writer)
        (tmp_path / "whole.jpg").write_bytes(content)
        (tmp_path / "open.jpg").write_bytes(content[:-2])
        assert jpeg_extent(content[:-2]) == (40, 60, len(content) - 2, False, True)
        np.testing.assert_array_equal(read_image(tmp_path / "open.jpg"), read_image(tmp_path / "whole.jpg"))


@pytest.mark.parametrize("seed", range(20))
def test_what_follows_the_image_is_no_part_of_it(tmp_path: Path, seed: int) -> None:
    """As in a phone's photo with a film behind it, whose bytes hold any marker."""
    content = encoded(40, 60, "quarter colour")
    film = b"\x00\x00\x00\x18ftypmp42" + np.random.default_rng(seed).bytes(20000) + content[:400]
    (tmp_path / "motion.jpg").write_bytes(content + film)
    (tmp_path / "still.jpg").write_bytes(content)
    assert jpeg_extent(content + film) == (40, 60, len(content), True, True)
    np.testing.assert_array_equal(read_image(tmp_path / "motion.jpg"), read_image(tmp_path / "still.jpg"))


@pytest.mark.parametrize("writer", ["quarter colour", "progressive", "restarts"])
def test_half_an_image_that_somebody_closed(tmp_path: Path, writer: str) -> None:
    content = encoded(121, 94, writer)
    path = tmp_path / "half.jpg"
    path.write_bytes(content[: len(content) * 6 // 10].rstrip(b"\xff") + END)
    with pytest.raises(InputError, match=r"half\.jpg: expected a whole image, got a JPEG that is cut off"):
        read_image(path)


def test_grey_at_the_end_is_not_missing(tmp_path: Path) -> None:
    """The colour that decoders put where nothing is."""
    image = drawn(64, 64)
    image[32:] = 128
    (tmp_path / "grey.jpg").write_bytes(cv2.imencode(".jpg", image)[1].tobytes())
    assert (read_image(tmp_path / "grey.jpg")[40:] == 128).all()


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xd8", b"\xff\xd8" + END, b"\x89PNG", b"\xff\xd8\xff\xc0\x00\x02"]
)
def test_no_image(content: bytes) -> None:
    assert jpeg_extent(content) is None


def test_real_photographs_are_whole(shared_data: Path) -> None:
    found = [path for path in sorted(shared_data.rglob("*.jpg")) if path.read_bytes()[:2] == b"\xff\xd8"][
        :400
    ]
    assert found
    for path in found:
        extent = jpeg_extent(path.read_bytes())
        assert extent is not None and extent[4], path
