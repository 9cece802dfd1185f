"""Reading pictures: whole and readable, or an error that names the file."""

from __future__ import annotations

import os

import cv2
import numpy as np
import numpy.typing as npt

from cdkd_ext._C import jpeg_extent
from cdkd_ext.errors import check, fail

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
# deflate makes at most 1032 bytes of one, and the smallest pixels are bits
_MOST_PNG_PIXELS_PER_BYTE = 1032 * 8


def read_image(path: str | os.PathLike[str], size: tuple[int, int] | None = None) -> npt.NDArray[np.uint8]:
    """Read a picture as stored, without applying an orientation tag (annotations are in stored pixels).

    Args:
        path: a file in any format that OpenCV reads.
        size: the (height, width) it must have, if known.

    Returns:
        (H, W, 3) uint8, channels in OpenCV's order BGR.

    Raises:
        InputError: the file is missing, broken, cut off, promises more pixels than its bytes can hold, or is of
            another size.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        fail(str(path), error.strerror or "an unreadable file", "a picture")
    check(content, str(path), "an empty file", "a picture")
    if content.startswith(_JPEG_START):
        content = _whole_jpeg(content, str(path), size)
    elif content.startswith(_PNG_START):
        _check_png(content, str(path))
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except (cv2.error, MemoryError):  # a header that promises more than fits
        image = None
    if image is None:
        fail(str(path), "a broken file or an unknown format", "a picture")
    _check_size(str(path), (image.shape[0], image.shape[1]), size)
    return image.astype(np.uint8, copy=False)


def _whole_jpeg(content: bytes, path: str, size: tuple[int, int] | None) -> bytes:
    """The image at the beginning of a JPEG, without what follows it and with an end marker.

    OpenCV fills what is missing with grey and reports nothing, so the codes of all blocks are counted first.
    """
    extent = jpeg_extent(content)
    if extent is None:
        fail(path, "a broken JPEG", "a picture")
    height, width, end, closed, whole = extent
    check(whole, path, "a JPEG that is cut off", "a whole picture")
    _check_size(path, (height, width), size)
    return content[:end] if closed else content + _JPEG_END


def _check_png(content: bytes, path: str) -> None:
    width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))
    holds = width * height <= _MOST_PNG_PIXELS_PER_BYTE * len(content)
    check(holds, path, f"a PNG of {len(content)} bytes that promises {width}x{height} pixels", "a whole picture")


def _check_size(path: str, found: tuple[int, int], size: tuple[int, int] | None) -> None:
    if size is not None and found != size:
        fail(
            path,
            f"height {found[0]}, width {found[1]}",
            f"height {size[0]}, width {size[1]} as its annotation says",
        )
