"""Crops sampled by one batched warp in torch, on the CPU or a GPU, with the geometry of `data.crops`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cdkd_ext.errors import check, check_type
from cdkd_ext.tensor_checks import check_tensor

_SAME = 1e-5  # by which the square of a scale of 1 may be off


def warp_crops(images: Tensor, to_source: Tensor, size: tuple[int, int], *, samples: int = 1) -> Tensor:
    """Sample crops, as `warp_crop` does one by one; outside of the source image they are black.

    Pixel centres are integers on both sides. Nothing waits for the device and no value is read on the host. OpenCV
    rounds the places it samples to 1/32 pixel and this does not, so the two differ by about a grey level for each
    32 levels that neighbouring pixels differ by.

    Args:
        images: (B, C, H, W) uint8, at least 2 pixels high and wide.
        to_source: (B, 2, 3) float32, crop pixels to source pixels: the inverse of what `crop_matrix` returns.
        size: (height, width) of the crops.
        samples: bilinear samples on a side of a crop's pixel, whose mean it becomes. 1 is `warp_crop`'s "linear"; with as
            many as the source pixels that it covers, it is "area". A crop that is not reduced is linear in any case.

    Returns:
        (B, C, height, width) uint8 on the device of `images`.

    Raises:
        InputError: a shape is wrong.
        TypeError: images are not uint8, or the maps not float32.

    Example:
        >>> import torch
        >>> from cdkd_ext.data import warp_crops
        >>> images = torch.full((2, 3, 8, 8), 200, dtype=torch.uint8)
        >>> double = torch.tensor([[[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]]).expand(2, 2, 3)
        >>> warp_crops(images, double, (16, 16)).shape
        torch.Size([2, 3, 16, 16])
    """
    check_type("images", images, Tensor, "a torch.Tensor")
    shape = tuple(images.shape)
    check(len(shape) == 4 and min(shape[2:]) > 1, "images", shape, "shape (B, C, H, W), H and W at least 2")
    batch = shape[0]
    check_tensor("to_source", to_source, (batch, 2, 3))
    check(len(size) == 2 and min(size) > 0, "size", tuple(size), "(height, width), two positive integers")
    if images.dtype != torch.uint8:
        raise TypeError(f"images: expected torch.uint8, got {images.dtype}")
    if to_source.dtype != torch.float32:
        raise TypeError(f"to_source: expected torch.float32, got {to_source.dtype}")
    check(samples > 0, "samples", samples, "a positive number")
    return _sample(images.float(), to_source, size, samples)


def _sample(images: Tensor, to_source: Tensor, size: tuple[int, int], samples: int) -> Tensor:
    """`warp_crops` of images (B, C, H, W) in float32."""
    height, width = size
    x = torch.arange(width, device=images.device, dtype=torch.float32)[None, None]
    y = torch.arange(height, device=images.device, dtype=torch.float32)[None, :, None]
    if samples == 1:
        return _sampled(images, to_source, x, y).round_().to(torch.uint8)
    # source pixels that a step along each side of the crop goes
    reduced = to_source[:, :, :2].square().sum(1).amax(1)[:, None, None] > 1 + _SAME
    steps = (torch.arange(samples, device=images.device) + 0.5) / samples - 0.5
    fine_x = (x[..., None] + steps * reduced[..., None]).flatten(2)
    total: Tensor | float = 0.0
    # a row of samples at a time: all at once would take as much memory as crops that much larger
    for row in range(samples):
        fine_y = y + ((row + 0.5) / samples - 0.5) * reduced
        sampled = _sampled(images, to_source, fine_x, fine_y).unflatten(3, (width, samples))
        total = total + sampled.sum(-1)
    mean = torch.where(reduced[..., None], total / samples**2, sampled[..., 0])
    return mean.round_().to(torch.uint8)


def _sampled(images: Tensor, to_source: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """One bilinear sample of images (B, C, H, W) at each x (…, 1, w) and y (…, h, 1) of the crops, in float32."""
    height, width = images.shape[2:]
    # no matrix product: in TF32 or under autocast it would be a tenth of a pixel off
    a, b, x_offset, c, d, y_offset = to_source.flatten(1)[..., None, None].unbind(1)  # (B, 1, 1) each
    # align_corners puts -1 and 1 on the centres of the first and the last pixel
    x_place = (a * x + b * y + x_offset) * (2 / (width - 1)) - 1  # (B, h, w)
    y_place = (c * x + d * y + y_offset) * (2 / (height - 1)) - 1
    places = torch.stack((x_place, y_place), -1)
    return F.grid_sample(images, places, "bilinear", "zeros", align_corners=True)


def crops_on_device(
    batch: dict[str, Tensor],
    size: tuple[int, int],
    teacher_size: tuple[int, int] | None = None,
    *,
    samples: int = 1,
    teacher_samples: int = 1,
) -> dict[str, Tensor]:
    """Replace a batch's stored crops by the student's and the teacher's crops, both from the same draw.

    Args:
        batch: as `StoredCrops.batch` returns it, on any device.
        size: (height, width) of the student's crops.
        teacher_size: (height, width) of the teacher's, or None for none.
        samples: on a side of a pixel of the student's crops; see `warp_crops`.
        teacher_samples: the same of the teacher's.

    Returns:
        The batch with ``image`` (B, 3, h, w) and, with `teacher_size`, ``teacher_image`` (B, 3, H, W), both uint8,
        instead of ``stored_image`` and ``to_stored``.

    Example:
        >>> import torch
        >>> from cdkd_ext.data import crops_on_device
        >>> third = torch.tensor([[[3.0, 0.0, 0.0], [0.0, 3.0, 0.0]]])
        >>> batch = {"stored_image": torch.zeros(1, 3, 96, 96, dtype=torch.uint8), "to_stored": third}
        >>> {name: tuple(crops.shape) for name, crops in crops_on_device(batch, (32, 32), (64, 64)).items()}
        {'image': (1, 3, 32, 32), 'teacher_image': (1, 3, 64, 64)}
    """
    batch = dict(batch)
    # converted once for both
    stored, to_stored = batch.pop("stored_image").float(), batch.pop("to_stored")
    batch["image"] = _sample(stored, to_stored, size, samples)
    if teacher_size is not None:
        # a crop n times as large has coordinates n times as large
        scale = to_stored.new_full((3,), size[1] / teacher_size[1])
        scale[2] = 1
        batch["teacher_image"] = _sample(stored, to_stored * scale, teacher_size, teacher_samples)
    return batch
