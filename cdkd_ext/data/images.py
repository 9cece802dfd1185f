"""Reading pictures: whole and readable, or an error that names the file."""

from __future__ import annotations

import os

import cv2
import numpy as np
import numpy.typing as npt

from cdkd_ext.errors import check, fail

_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"


def read_image(path: str | os.PathLike[str], size: tuple[int, int] | None = None) -> npt.NDArray[np.uint8]:
    """Read a picture as stored, without applying an orientation tag (annotations are in stored pixels).

    Args:
        path: a file in any format that OpenCV reads.
        size: the (height, width) it must have, if known.

    Returns:
        (H, W, 3) uint8, channels in OpenCV's order BGR.

    Raises:
        InputError: the file is missing, broken, cut off, or of another size.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        fail(str(path), error.strerror or "an unreadable file", "a picture")
    check(content, str(path), "an empty file", "a picture")
    # some OpenCV versions fill the rest of a cut-off JPEG with grey and report nothing
    if content.startswith(_JPEG_START):
        end = content.rfind(_JPEG_END)
        check(
            content.find(_JPEG_SCAN, max(end, 0)) < 0, str(path), "a JPEG that is cut off", "a whole picture"
        )
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        fail(str(path), "a broken file or an unknown format", "a picture")
    if size is not None:
        check(
            image.shape[:2] == size,
            str(path),
            f"height {image.shape[0]}, width {image.shape[1]}",
            f"height {size[0]}, width {size[1]} as its annotation says",
        )
    return image.astype(np.uint8, copy=False)
