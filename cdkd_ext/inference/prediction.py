"""Predictions for crops, and for a whole data set in pixels of the whole images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from cdkd_ext.codecs import codec_for
from cdkd_ext.data.batches import lost_workers_named
from cdkd_ext.errors import check
from cdkd_ext.models import PoseNetwork


class Predictions(NamedTuple):
    """Decoded poses.

    Attributes:
        keypoints: float32 (N, J, 2), pixels of the whole images.
        scores: float32 (N, J): probabilities from SimCC, heights of the maxima from heatmaps.
        indices: int64 (N,), the people in the data set.
    """

    keypoints: Tensor
    scores: Tensor
    indices: Tensor


@torch.no_grad()
def predict_crops(
    model: PoseNetwork,
    crops: Tensor,
    to_image: Tensor | None = None,
    *,
    flip_permutation: Tensor | None = None,
    simcc_score: str = "min",
) -> tuple[Tensor, Tensor]:
    """Predict a batch of crops with a model in evaluation mode.

    Args:
        model: the network; its description says how its output is decoded.
        crops: RGB uint8 (B, 3, h, w).
        to_image: (B, 2, 3), crop pixels to pixels of the whole image; None leaves crop pixels.
        flip_permutation: int64 (J,), turns the flip test on.
        simcc_score: of the two axes' maxima, "min", "max" or "mean" (`cdkd_ext.ops.simcc_decode`).

    Returns:
        Keypoints float32 (B, J, 2) and scores float32 (B, J).
    """
    codec = codec_for(model.spec, simcc_score=simcc_score)
    output = in_float32(model(crops))
    flipped = None if flip_permutation is None else (in_float32(model(crops.flip(-1))), flip_permutation)
    keypoints, scores = codec.decode(output, flipped=flipped, to_image=to_image)
    return keypoints.float(), scores.float()


def in_float32(output: Any) -> Any:
    """Return a network's output in float32, whatever it computes in."""
    return type(output)(*(value.float() if isinstance(value, Tensor) else value for value in output))


@torch.no_grad()
def predict(
    model: PoseNetwork,
    dataset: Any,
    *,
    flip_permutation: Sequence[int] | None = None,
    simcc_score: str = "min",
    batch_size: int = 64,
    workers: int = 0,
    device: torch.device | str = "cpu",
    rank: int = 0,
    processes: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Predictions:
    """Predict every person of a data set.

    Args:
        model: on `device`; it is switched to evaluation mode for the call.
        dataset: gives image uint8 (3, h, w), to_image (2, 3) and index, like `PoseDataset`.
        flip_permutation: the left-right permutation of the joints turns the flip test on: the softmaxes or
            heatmaps of the crop and of its mirror image are averaged. None predicts once.
        simcc_score: of the two axes' maxima, "min", "max" or "mean".
        batch_size: people per forward pass.
        workers: processes that load images.
        device: where the model runs.
        rank: number of this process.
        processes: how many processes share the data set; each predicts every `processes`-th batch, which is the same
            batch however many there are. It may have none.
        progress: called after each batch with the number of people done by this process.

    Returns:
        The predictions for this process's share, in the data set's order.
    """
    permutation = None if flip_permutation is None else torch.as_tensor(flip_permutation, device=device)

    def ask(batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        return predict_crops(
            model,
            batch["image"].to(device),
            batch["to_image"].to(device),
            flip_permutation=permutation,
            simcc_score=simcc_score,
        )

    training = model.training
    model.eval()
    found = predict_batches(
        ask,
        dataset,
        model.num_joints,
        batch_size=batch_size,
        workers=workers,
        rank=rank,
        processes=processes,
        progress=progress,
    )
    model.train(training)
    return found


def predict_batches(
    ask: Callable[[dict[str, Any]], tuple[Tensor, Tensor]],
    dataset: Any,
    joints: int,
    *,
    batch_size: int = 64,
    workers: int = 0,
    rank: int = 0,
    processes: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Predictions:
    """Predict every person of a data set with a function of its batches.

    Args:
        ask: returns keypoints (B, J, 2) in pixels of the whole images and scores (B, J).
        dataset: see `predict`, as for the other arguments.
        joints: J.
        batch_size: people per call.
        workers: processes that load images.
        rank: number of this process.
        processes: how many processes share the data set.
        progress: called after each batch with the number of people done by this process.
    """
    check(len(dataset) > 0, "dataset", "no samples", "at least one")
    batches = [
        list(range(start, min(start + batch_size, len(dataset))))
        for start in range(rank * batch_size, len(dataset), processes * batch_size)
    ]
    keypoints = [torch.zeros(0, joints, 2)]
    scores = [torch.zeros(0, joints)]
    indices = [torch.zeros(0, dtype=torch.int64)]
    done = 0
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
    )
    with lost_workers_named():
        for batch in loader:
            points, score = ask(batch)
            keypoints.append(points.cpu())
            scores.append(score.cpu())
            indices.append(batch["index"])
            done += len(batch["index"])
            if progress is not None:
                progress(done)
    return Predictions(torch.cat(keypoints), torch.cat(scores), torch.cat(indices))
