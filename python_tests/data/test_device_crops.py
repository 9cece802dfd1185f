from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from cdkd_ext.data import Augmentation, CropRegion, Person, PoseDataset, crop_matrix, invert_affine, warp_crop
from cdkd_ext.data.batches import EpochBatches, EpochLoader
from cdkd_ext.data.device_crops import crops_on_device, warp_crops
from cdkd_ext.data.stored_crops import StoredCrops, build_stored_crops
from cdkd_ext.errors import InputError
from cdkd_ext.joints import JointSet
from cdkd_ext.resampling import Resample

JOINTS = JointSet(("nose", "left_hand", "right_hand"), (0, 2, 1))
POINTS = np.array([[100.4, 70.2], [72.5, 95.0], [130.0, 88.7]], np.float32)
STRONG = Augmentation(scale=0.25, rotation=30.0, rotation_probability=0.9)
REGIONS = [
    CropRegion((60.0, 50.0), (80.0, 60.0)),
    CropRegion((58.3, 47.9), (71.0, 53.25), rotation=33.0),
    CropRegion((61.2, 52.4), (90.0, 67.5), rotation=-110.0, flip=True),
]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def smooth_image(height: int, width: int) -> np.ndarray:
    """(H, W, 3) of waves that change by at most 16 levels from pixel to pixel."""
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(columns / 9 + phase) * np.cos(rows / 11 - phase) for phase in (0.0, 1.0, 2.0)]
    return (127.5 + 100 * np.stack(waves, -1)).round().astype(np.uint8)


def planes(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def inverses(matrices: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack([invert_affine(matrix) for matrix in matrices]).astype(np.float32))


@pytest.mark.parametrize("size", [(32, 24), (128, 96), (1, 1)])
def test_agrees_with_opencv_to_a_grey_level(size: tuple[int, int]) -> None:
    image = smooth_image(110, 130)
    matrices = [crop_matrix(region, size) for region in REGIONS]
    expected = torch.stack([planes(warp_crop(image, matrix, size, "linear")) for matrix in matrices])
    source = torch.stack([planes(image)] * 3)
    found = warp_crops(source, inverses(matrices), size)
    assert found.dtype == torch.uint8
    inside = warp_crops(torch.full_like(source, 255), inverses(matrices), size) == 255
    assert inside.float().mean() > 0.6
    difference = (found.int() - expected.int()).abs()[inside]
    assert difference.max() <= 1
    # a shift of a twentieth of a pixel would already differ in more places than this
    assert difference.float().mean() < 0.15


def test_a_small_shift_would_be_seen() -> None:
    image, size = smooth_image(110, 130), (128, 96)
    matrix = crop_matrix(REGIONS[0], size)
    expected = planes(warp_crop(image, matrix, size))
    moved = inverses([matrix])
    moved[:, 0, 2] += 0.05
    difference = (warp_crops(planes(image)[None], moved, size)[0].int() - expected.int()).abs()
    assert difference.float().mean() > 0.15


def test_the_outside_is_black_as_in_opencv() -> None:
    image = np.full((20, 30, 3), 200, np.uint8)
    matrix = crop_matrix(CropRegion((0.0, 0.0), (40.0, 40.0), rotation=20.0), (64, 64))
    expected = planes(warp_crop(image, matrix, (64, 64)))
    found = warp_crops(planes(image)[None], inverses([matrix]), (64, 64))[0]
    assert ((found == 0) == (expected == 0)).float().mean() > 0.999
    # beside the border, 1/32 pixel of OpenCV's is 1/32 of the step
    assert (found.int() - expected.int()).abs().max() <= 200 / 16


@contextmanager
def reduced_precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def test_mixed_precision_moves_nothing() -> None:
    source = torch.stack([planes(smooth_image(110, 130))] * 3)
    maps = inverses([crop_matrix(region, (32, 24)) for region in REGIONS])
    expected = warp_crops(source, maps, (32, 24))
    with reduced_precision():
        assert torch.equal(warp_crops(source, maps, (32, 24)), expected)


@pytest.mark.parametrize(("samples", "teacher_samples"), [(1, 1), (5, 2)])
def test_nothing_waits_for_the_device(
    no_host_reads: Callable[[], AbstractContextManager[None]], samples: int, teacher_samples: int
) -> None:
    batch = {
        "stored_image": torch.empty(4, 3, 96, 96, dtype=torch.uint8, device="meta"),
        "to_stored": torch.empty(4, 2, 3, device="meta"),
    }
    with no_host_reads():
        found = crops_on_device(batch, (16, 16), (64, 64), samples=samples, teacher_samples=teacher_samples)
    assert {name: (tuple(value.shape), value.dtype) for name, value in found.items()} == {
        "image": ((4, 3, 16, 16), torch.uint8),
        "teacher_image": ((4, 3, 64, 64), torch.uint8),
    }


@pytest.mark.parametrize(
    ("images", "maps", "size", "message"),
    [
        (torch.zeros(2, 3, 4, dtype=torch.uint8), torch.zeros(2, 2, 3), (4, 4), "images: expected shape"),
        (torch.zeros(2, 3, 4, 1, dtype=torch.uint8), torch.zeros(2, 2, 3), (4, 4), "at least 2"),
        (
            torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
            torch.zeros(1, 2, 3),
            (4, 4),
            "to_source: expected shape",
        ),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, 2, 3), (4, 0), "size: expected"),
    ],
)
def test_bad_shapes_are_named(images: Tensor, maps: Tensor, size: tuple[int, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        warp_crops(images, maps, size)


@pytest.mark.parametrize(
    ("image_type", "map_type", "message"),
    [
        (torch.float32, torch.float32, "images: expected torch.uint8"),
        (torch.uint8, torch.float64, "to_source: expected torch.float32"),
    ],
)
def test_bad_types_are_named(image_type: torch.dtype, map_type: torch.dtype, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        warp_crops(torch.zeros(1, 3, 4, 4, dtype=image_type), torch.zeros(1, 2, 3, dtype=map_type), (4, 4))


@pytest.fixture
def people(tmp_path: Path) -> list[Person]:
    """Three people in one image with a blob of its own colour at each joint."""
    rows, columns = np.mgrid[:160, :200]
    blobs = [255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 50) for x, y in POINTS.tolist()]
    path = tmp_path / "blobs.png"
    cv2.imwrite(str(path), np.stack(blobs, axis=2).round().astype(np.uint8)[..., ::-1])
    boxes = np.array([[40, 30, 120, 110], [50, 40, 100, 90], [60, 20, 90, 110]], np.float32)
    ones = np.ones(3, np.float32)
    return [Person(path, 1, i, box, POINTS, ones, 1e4, 20.0, (160, 200)) for i, box in enumerate(boxes)]


def dataset(
    people: list[Person], augmentation: Augmentation | None = STRONG, resample: Resample = "linear"
) -> PoseDataset:
    return PoseDataset(
        people,
        JOINTS,
        size=(32, 32),
        teacher_size=(128, 128),
        augmentation=augmentation,
        seed=3,
        resample=resample,
        teacher_resample=resample,
    )


def centroids(images: Tensor) -> Tensor:
    """(B, 3, 2): the centre of mass of each channel."""
    weight = images.double() / images.double().sum((2, 3), keepdim=True)
    y = (weight.sum(3) * torch.arange(images.shape[2])).sum(2)
    x = (weight.sum(2) * torch.arange(images.shape[3])).sum(2)
    return torch.stack([x, y], -1).float()


def test_joints_lie_on_their_pixels_in_both_crops(people: list[Person], tmp_path: Path) -> None:
    drawn = dataset(people)
    stored = StoredCrops(drawn, build_stored_crops(drawn, tmp_path))
    keys = [(index, view) for index in range(3) for view in range(12)]
    batch = crops_on_device(stored.batch(keys), (32, 32), (128, 128))
    mirrored = torch.det(batch["to_image"][:, :, :2]) < 0
    assert 8 < mirrored.sum() < 28
    keypoints = torch.where(mirrored[:, None, None], batch["keypoints"][:, [0, 2, 1]], batch["keypoints"])
    whole = ((keypoints > 3) & (keypoints < 28)).all((1, 2))
    assert whole.sum() > 20
    torch.testing.assert_close(centroids(batch["image"])[whole], keypoints[whole], atol=0.15, rtol=0)
    torch.testing.assert_close(
        centroids(batch["teacher_image"])[whole], 4 * keypoints[whole], atol=0.2, rtol=0
    )


def test_the_same_samples_as_from_the_images(people: list[Person], tmp_path: Path) -> None:
    drawn = dataset(people)
    stored = StoredCrops(drawn, build_stored_crops(drawn, tmp_path))
    keys = [(1, 5), (0, 2), (2, 0), (1, 6)]
    batch = crops_on_device(stored.batch(keys), (32, 32), (128, 128))
    samples = [drawn[key] for key in keys]
    assert batch.keys() == samples[0].keys()
    for name in batch:
        expected = torch.stack([sample[name] for sample in samples])
        assert batch[name].dtype == expected.dtype
        if "image" not in name or name == "to_image":
            assert torch.equal(batch[name], expected), name
        else:
            difference = (batch[name].int() - expected.int()).abs().float()
            assert difference.mean() < 1, name


def test_area_crops_of_stored_ones_are_those_of_the_images(tmp_path: Path) -> None:
    """Of an image with detail that one sample per pixel would miss; black corners aside."""
    image = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "noise.png"), image)
    box, ones = np.array([90, 80, 130, 140], np.float32), np.ones(3, np.float32)
    person = Person(tmp_path / "noise.png", 1, 1, box, POINTS, ones, 1e4, 20.0, (300, 300))
    mild = Augmentation(scale=0.2, rotation=10.0)
    differences = {}
    for resample in ("area", "linear"):
        drawn = dataset([person], mild, resample)
        stored = StoredCrops(drawn, build_stored_crops(drawn, tmp_path))
        keys = [(0, view) for view in range(6)]
        batch = stored.on_device(stored.batch(keys))
        for name in ("image", "teacher_image"):
            expected = torch.stack([drawn[key][name] for key in keys])
            differences[resample, name] = (batch[name].int() - expected.int()).abs().float().mean()
    assert differences["area", "image"] < 3
    assert differences["area", "image"] < differences["linear", "image"] / 4


def test_a_folder_is_built_once_and_told_from_others(people: list[Person], tmp_path: Path) -> None:
    drawn = dataset(people)
    folder = build_stored_crops(drawn, tmp_path)
    written = (folder / "crops.npy").stat().st_mtime_ns
    assert build_stored_crops(dataset(people, None), tmp_path) == folder
    assert (folder / "crops.npy").stat().st_mtime_ns == written
    assert build_stored_crops(drawn, tmp_path, margin=1.25) != folder
    assert build_stored_crops(dataset(people[:2]), tmp_path) != folder
    with pytest.raises(
        InputError, match=r"crops\.npy: expected shape \(3, 3, 160, 160\), got \(3, 3, 192, 192\)"
    ):
        StoredCrops(drawn, folder, margin=1.25)
    with pytest.raises(InputError, match="margin"):
        build_stored_crops(drawn, tmp_path, margin=0.9)


def test_a_loader_gives_whole_batches(people: list[Person], tmp_path: Path) -> None:
    drawn = dataset(people)
    stored = StoredCrops(drawn, build_stored_crops(drawn, tmp_path, workers=1))
    batches = list(EpochLoader(stored, EpochBatches(range(3), 2, seed=0)).epoch(0))
    assert [tuple(batch["stored_image"].shape) for batch in batches] == [(2, 3, 192, 192)]


@pytest.mark.gpu
@needs_gpu
def test_a_gpu_agrees_with_the_cpu_and_does_not_wait() -> None:
    source = torch.stack([planes(smooth_image(110, 130))] * 3)
    maps = inverses([crop_matrix(region, (128, 96)) for region in REGIONS])
    expected = warp_crops(source, maps, (128, 96))
    inputs = source.cuda(), maps.cuda()
    warp_crops(*inputs, (128, 96))
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = warp_crops(*inputs, (128, 96))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (found.cpu().int() - expected.int()).abs().max() <= 1
