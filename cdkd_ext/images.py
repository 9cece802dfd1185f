"""Image files: the one place where RGB arrays and OpenCV's channel order meet."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from cdkd_ext._C import jpeg_extent
from cdkd_ext.errors import check, fail
from cdkd_ext.files import replacing

Image = npt.NDArray[np.uint8]

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
# deflate makes at most 1032 bytes of one, and the smallest pixels are bits
_MOST_PNG_PIXELS_PER_BYTE = 1032 * 8
_UPRIGHT = cv2.IMREAD_COLOR_RGB
_FLAGS = _UPRIGHT | cv2.IMREAD_IGNORE_ORIENTATION


def read_image(
    path: str | os.PathLike[str], size: tuple[int, int] | None = None, *, upright: bool = False
) -> Image:
    """Read an image as stored, without applying an orientation tag (COCO's annotations are in stored pixels).

    Args:
        path: a file in any format that OpenCV reads.
        size: the (height, width) it must have, if known.
        upright: turn the image as its EXIF orientation tag says, as viewers and most detectors do.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        InputError: the file is missing, broken, cut off, promises more pixels than its bytes can hold, or is of
            another size.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        fail(str(path), error.strerror or "an unreadable file", "an image")
    check(content, str(path), "an empty file", "an image")
    if content.startswith(_JPEG_START):
        content = _whole_jpeg(content, str(path), None if upright else size)
    elif content.startswith(_PNG_START):
        _check_png(content, str(path))
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), _UPRIGHT if upright else _FLAGS)
    except (cv2.error, MemoryError):  # a header that promises more than fits
        image = None
    if image is None:
        fail(str(path), "a broken file or an unknown format", "an image")
    _check_size(str(path), (image.shape[0], image.shape[1]), size, content)
    return image.astype(np.uint8, copy=False)


def _whole_jpeg(content: bytes, path: str, size: tuple[int, int] | None) -> bytes:
    """The image at the beginning of a JPEG, without what follows it and with an end marker.

    OpenCV fills what is missing with grey and reports nothing, so the codes of all blocks are counted first.
    """
    extent = jpeg_extent(content)
    if extent is None:
        fail(path, "a broken JPEG", "a whole image")
    height, width, end, closed, whole = extent
    check(whole, path, "a JPEG that is cut off", "a whole image")
    _check_size(path, (height, width), size, content)
    return content[:end] if closed else content + _JPEG_END


def _check_png(content: bytes, path: str) -> None:
    width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))
    holds = width * height <= _MOST_PNG_PIXELS_PER_BYTE * len(content)
    check(
        holds, path, f"a PNG of {len(content)} bytes that promises {width}x{height} pixels", "a whole image"
    )


def _check_size(path: str, found: tuple[int, int], size: tuple[int, int] | None, content: bytes) -> None:
    if size is None or found == size:
        return
    got = f"height {found[0]}, width {found[1]}"
    if found == size[::-1] and _upright_size(content) == size:
        got += " as stored, before its EXIF orientation tag turns it (annotations are in stored pixels)"
    fail(path, got, f"height {size[0]}, width {size[1]} as its annotation says")


def _upright_size(content: bytes) -> tuple[int, int] | None:
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), _UPRIGHT)
    except (cv2.error, MemoryError):
        return None
    return None if image is None else (image.shape[0], image.shape[1])


def encode_image(image: Image, suffix: str, *, jpeg_quality: int = 95) -> bytes:
    """Return the content of an image file.

    Args:
        image: RGB uint8 (H, W, 3).
        suffix: of the format, such as ".png".
        jpeg_quality: 0 to 100; other formats do not look at it.

    Raises:
        InputError: OpenCV knows no such format, or the format does not hold as large an image.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality] if suffix.lower() in (".jpg", ".jpeg") else []
    try:
        done, encoded = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    except cv2.error:
        fail("suffix", repr(suffix), "a suffix of an image format, such as .png or .jpg")
    # formats have a largest size
    check(done, "image", f"{image.shape}", f"an image that {suffix} can hold")
    return encoded.tobytes()


def decode_image(content: bytes) -> Image:
    """Return the image that `encode_image` encoded: RGB uint8 (H, W, 3).

    Raises:
        InputError: the bytes are of no image.
    """
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), _FLAGS)
    except cv2.error:
        image = None
    if image is None:
        fail("content", f"{len(content)} other bytes", "an encoded image")
    return image.astype(np.uint8, copy=False)


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
