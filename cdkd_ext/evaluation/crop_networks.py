"""Measuring whatever says where joints are in crops: exported files beside the networks that they come from."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import DataLoader

from cdkd_ext.data import EvaluationSet, PoseDataset
from cdkd_ext.inference import CropNetwork, Predictions


def predict_with(
    network: CropNetwork, truth: EvaluationSet, *, batch_size: int = 64, workers: int = 0
) -> Predictions:
    """Predict all people of a data set with a `CropNetwork`.

    Args:
        network: whose crops are cut as it was trained, unless `truth` says how.
        truth: the people.
        batch_size: people per call.
        workers: processes that load images.
    """
    dataset = PoseDataset(
        truth.persons,
        truth.joints,
        size=network.input_size,
        padding=network.padding if truth.padding is None else truth.padding,
        resample=truth.resample or network.resample,
    )
    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
    )
    parts = []
    for batch in loader:
        crops = np.ascontiguousarray(batch["image"].permute(0, 2, 3, 1).numpy())
        keypoints, scores = network(crops, batch["to_image"].numpy())
        parts.append((torch.from_numpy(keypoints), torch.from_numpy(scores), batch["index"]))
    return Predictions(*map(torch.cat, zip(*parts, strict=True)))
