"""The embedded data set: procedurally drawn articulated people, annotated with MPII's 16 joints."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cdkd_ext.errors import check, check_type, fail
from cdkd_ext.files import new_folder, remove_leftovers
from cdkd_ext.images import encode_image
from cdkd_ext.joints import MPII_JOINTS
from cdkd_ext.synthetic.drawing import draw_person

SMALLEST, LARGEST = 32, 1024
_JPEG_QUALITY = 92
_CHUNK = 64  # images per task of a worker process
_DESCRIPTION = (
    "Procedurally drawn people with MPII's 16 joints. Keypoints are 0-based pixels with pixel centres at "
    "integers; v is 2 visible, 1 hidden, 0 out of frame. head_size is 0.6 x the diagonal of the head's "
    "rectangle, which is the head segment (upper neck to head top, not foreshortened) by 3/4 of it."
)


def draw_people(
    folder: str | os.PathLike[str],
    count: int,
    *,
    seed: int = 0,
    size: int = 128,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Draw a COCO-format data set of single people: ``images/*.jpg`` and ``annotations.json``.

    Image i depends on `seed` and i only, so a longer set starts with the shorter one's images, and the
    files are the same whatever `workers`. The folder appears when it is complete; an interrupted call leaves
    nothing.

    Args:
        folder: created; may exist if it is empty.
        count: number of images, one person each.
        seed: non-negative.
        size: side of the square images in pixels.
        workers: processes; several are spawned, so a script needs the usual ``__main__`` guard.
        progress: called with the number of finished images now and then.

    Returns:
        The path of the annotation file.

    Raises:
        InputError: an argument is out of range, or the folder is not empty or cannot be written.
    """
    for name, value in {"count": count, "seed": seed, "size": size, "workers": workers}.items():
        check_type(name, value, int, "an integer")
    check(count > 0, "count", count, "a positive number of images")
    check(seed >= 0, "seed", seed, "a non-negative integer")
    check(SMALLEST <= size <= LARGEST, "size", size, f"a side from {SMALLEST} to {LARGEST} pixels")
    check(workers > 0, "workers", workers, "a positive number of processes")
    folder = Path(folder)
    expected = "a new or empty folder"
    check(not folder.exists() or folder.is_dir(), str(folder), "a file", expected)
    check(
        not folder.is_dir() or not any(folder.iterdir()), str(folder), "a folder with files in it", expected
    )
    remove_leftovers(folder)
    with new_folder(folder) as temporary:
        images = temporary / "images"
        images.mkdir()
        records = []
        for chunk in _draw_all(images, count, seed, size, workers):
            records += chunk
            if progress is not None:
                progress(len(records))
        content = _annotation_file(records, count, seed, size)
        (temporary / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
    return folder / "annotations.json"


def _draw_all(images: Path, count: int, seed: int, size: int, workers: int) -> Iterator[list[dict[str, Any]]]:
    """Write all images and yield their annotations in order, a chunk at a time."""
    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    if workers == 1 or len(chunks) == 1:
        for chunk in chunks:
            yield _draw_chunk(images, chunk, seed, size)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy running threads half-alive
    with ProcessPoolExecutor(min(workers, len(chunks)), context, _prepare_worker) as pool:
        futures: list[Future[list[dict[str, Any]]]] = []
        try:
            futures = [pool.submit(_draw_chunk, images, chunk, seed, size) for chunk in chunks]
            for future in futures:
                yield future.result()
        except BrokenProcessPool:
            # a process imports the script that started it, and would start it all again
            fail(
                "workers",
                f"{workers} processes that ended before they had drawn",
                'a script that begins its work under `if __name__ == "__main__":`, or 1',
            )
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _prepare_worker() -> None:
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle: one message, not many


def _draw_chunk(images: Path, indices: range, seed: int, size: int) -> list[dict[str, Any]]:
    """Write the images of `indices` and return their annotations."""
    return [_draw_image(images, index, seed, size) for index in indices]


def _draw_image(images: Path, index: int, seed: int, size: int) -> dict[str, Any]:
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(index,))))
    person = draw_person(rng, size)
    (images / _file_name(index)).write_bytes(encode_image(person.image, ".jpg", jpeg_quality=_JPEG_QUALITY))
    visibility = person.keypoints[:, 2]
    return {
        "id": index + 1,
        "image_id": index + 1,
        "category_id": 1,
        "iscrowd": 0,
        "num_keypoints": int((visibility > 0).sum()),
        "keypoints": [
            number for x, y, v in person.keypoints.tolist() for number in (round(x, 2), round(y, 2), int(v))
        ],
        "bbox": [round(number, 2) for number in person.box.tolist()],
        "area": person.area,
        "head_size": round(person.head_size, 3),
    }


def _annotation_file(records: list[dict[str, Any]], count: int, seed: int, size: int) -> dict[str, Any]:
    return {
        "info": {"description": _DESCRIPTION, "count": count, "seed": seed, "size": size},
        "images": [
            {"id": index + 1, "file_name": _file_name(index), "width": size, "height": size}
            for index in range(count)
        ],
        "annotations": records,
        "categories": [{"id": 1, "name": "person", "supercategory": "person", **MPII_JOINTS.to_category()}],
    }


def _file_name(index: int) -> str:
    return f"{index:06d}.jpg"
