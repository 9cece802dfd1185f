"""Measuring whatever says where joints are in crops: exported files beside the networks that they come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cdkd_ext.data import EvaluationSet, PoseDataset
from cdkd_ext.evaluation.metrics import crop_padding, crop_resample
from cdkd_ext.inference import CropNetwork, Predictions
from cdkd_ext.inference.prediction import predict_batches


def predict_with(
    network: CropNetwork,
    truth: EvaluationSet,
    *,
    batch_size: int = 64,
    workers: int = 0,
    rank: int = 0,
    processes: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Predictions:
    """Predict all people of a data set, or a process's share of them, with a `CropNetwork`.

    Args:
        network: whose crops are cut as it was trained, unless `truth` says how.
        truth: the people.
        batch_size: people per call.
        workers: processes that load images.
        rank: number of this process.
        processes: how many processes share the people.
        progress: called with the number of people that this process has done.
    """

    def ask(batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        crops = np.ascontiguousarray(batch["image"].permute(0, 2, 3, 1).numpy())
        keypoints, scores = network(crops, batch["to_image"].numpy())
        return torch.from_numpy(keypoints), torch.from_numpy(scores)

    dataset = PoseDataset(
        truth.persons,
        truth.joints,
        size=network.input_size,
        padding=crop_padding(truth, network),
        resample=crop_resample(truth, network),
        camera_faults=truth.camera_faults,
        unbiased=network.unbiased_crop,
    )
    return predict_batches(
        ask,
        dataset,
        len(network.joints),
        batch_size=batch_size,
        workers=workers,
        rank=rank,
        processes=processes,
        progress=progress,
    )
