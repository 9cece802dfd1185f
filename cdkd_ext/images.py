"""Image files: the one place where RGB arrays and OpenCV's channel order meet."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from cdkd_ext.errors import check, fail
from cdkd_ext.files import replacing

Image = npt.NDArray[np.uint8]

_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


def read_image(path: str | os.PathLike[str], size: tuple[int, int] | None = None) -> Image:
    """Read an image as stored, without applying an orientation tag (annotations are in stored pixels).

    Args:
        path: a file in any format that OpenCV reads.
        size: the (height, width) it must have, if known.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        InputError: the file is missing, broken, cut off, or of another size.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        fail(str(path), error.strerror or "an unreadable file", "an image")
    check(content, str(path), "an empty file", "an image")
    # some OpenCV versions fill the rest of a cut-off JPEG with grey and report nothing
    if content.startswith(_JPEG_START):
        end = content.rfind(_JPEG_END)
        check(content.find(_JPEG_SCAN, max(end, 0)) < 0, str(path), "a JPEG that is cut off", "a whole image")
    image = cv2.imdecode(np.frombuffer(content, np.uint8), _FLAGS)
    if image is None:
        fail(str(path), "a broken file or an unknown format", "an image")
    if size is not None:
        check(
            image.shape[:2] == size,
            str(path),
            f"height {image.shape[0]}, width {image.shape[1]}",
            f"height {size[0]}, width {size[1]} as its annotation says",
        )
    return image.astype(np.uint8, copy=False)


def encode_image(image: Image, suffix: str, *, jpeg_quality: int = 95) -> bytes:
    """Return the content of an image file.

    Args:
        image: RGB uint8 (H, W, 3).
        suffix: of the format, such as ".png".
        jpeg_quality: 0 to 100; other formats do not look at it.

    Raises:
        InputError: OpenCV knows no such format.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality] if suffix.lower() in (".jpg", ".jpeg") else []
    try:
        encoded = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1]
    except cv2.error:
        fail("suffix", repr(suffix), "a suffix of an image format, such as .png or .jpg")
    return encoded.tobytes()


def save_image(image: Image, path: str | os.PathLike[str]) -> None:
    """Write an image to a file; the suffix decides the format.

    Args:
        image: RGB uint8 (H, W, 3).
        path: the file; its folder is made where it is missing.

    Raises:
        InputError: the folder cannot be written or the format is unknown.
    """
    content = encode_image(image, Path(path).suffix)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
