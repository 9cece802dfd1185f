"""What an adapted network learns by."""

from __future__ import annotations

import math

import pytest
import torch

from cdkd_ext.adaptation import KeypointLoss
from cdkd_ext.adaptation.losses import kept_loss, kept_outputs
from cdkd_ext.errors import InputError
from cdkd_ext.teachers import TeacherDescription
from cdkd_ext.teachers.readers import READERS

SIZE = (48, 64)  # of the crops: 12 x 16 cells
JOINTS = ("nose", "left_wrist", "right_wrist")


def _description(**options):
    return TeacherDescription(**{"input_size": SIZE, "layout": "NCHW", "joints": JOINTS} | options)


def _loss(description, outputs, sigma=0.05):
    return KeypointLoss(description, READERS[description.kind](description, outputs), sigma)


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


POINTS = torch.tensor([[[10.0, 20.0], [33.3, 41.9], [63.0, 0.5]], [[1.0, 2.0], [50.0, 7.25], [30.0, 30.0]]])
WEIGHTS = torch.tensor([[1.0, 0.25, 0.5], [0.75, 1.0, 0.0]])


def _log_gaussian(center, sigma, count):
    values = -0.5 * ((torch.arange(count, dtype=torch.float64) - center) / sigma) ** 2
    return values - values.logsumexp(0)


# pixel of cell i, by what a cell stands for
CELLS = {
    "center": lambda i, cells, pixels: (i + 0.5) * pixels / cells - 0.5,
    "corner": lambda i, cells, pixels: i * pixels / cells,
    "ends": lambda i, cells, pixels: i * (pixels - 1) / (cells - 1),
}


@pytest.mark.parametrize("cells", list(CELLS))
def test_heatmaps_are_compared_with_gaussians_around_the_keypoints(cells):
    description = _description(kind="heatmap", values="logits", cells=cells)
    maps = _random(2, 3, 12, 16)
    found = _loss(description, {"heatmap": maps})({"heatmap": maps}, POINTS, WEIGHTS)
    total = 0.0
    for b in range(2):
        for j in range(3):
            axes = []
            for axis, count in ((0, 16), (1, 12)):
                pixels = SIZE[1 - axis]
                first, second = (CELLS[cells](i, count, pixels) for i in (0, 1))
                center = (float(POINTS[b, j, axis]) - first) / (second - first)
                axes.append(_log_gaussian(center, 0.05 * 64 * count / pixels, count))
            target = (axes[1][:, None] + axes[0]).flatten()
            own = maps[b, j].double().flatten().log_softmax(0)
            total += float(WEIGHTS[b, j]) * float((target.exp() * (target - own)).sum())
    assert float(found["heatmap"]) == pytest.approx(total / float(WEIGHTS.sum()), rel=1e-5)


def test_probabilities_are_their_logits():
    maps = _random(2, 3, 12, 16)
    logits = _description(kind="heatmap", values="logits")
    probabilities = _description(kind="heatmap", values="probabilities")
    first = _loss(logits, {"heatmap": maps})({"heatmap": maps}, POINTS, WEIGHTS)
    given = {"heatmap": maps.sigmoid()}
    second = _loss(probabilities, given)(given, POINTS, WEIGHTS)
    assert float(second["heatmap"]) == pytest.approx(float(first["heatmap"]), rel=1e-4)


def test_regressed_maps_have_the_height_of_one():
    description = _description(kind="heatmap", values="gaussians", cells="corner")
    points = torch.tensor([[[20.0, 12.0], [0.0, 0.0], [8.0, 40.0]]])
    rows, columns = torch.arange(12.0)[:, None], torch.arange(16.0)
    sigma = 0.05 * 64 / 4
    maps = torch.stack(
        [
            torch.exp(-((columns - x / 4) ** 2 + (rows - y / 4) ** 2) / (2 * sigma**2))
            for x, y in points[0].tolist()
        ]
    )[None]
    loss = _loss(description, {"heatmap": maps})
    ones = torch.ones(1, 3)
    assert float(loss({"heatmap": maps}, points, ones)["heatmap"]) == pytest.approx(0, abs=1e-9)
    # every cell counts
    assert float(loss({"heatmap": maps + 0.1}, points, ones)["heatmap"]) == pytest.approx(
        0.01 * 192, rel=1e-4
    )


def test_a_peaks_height_is_the_confidence_where_it_lies_right_and_none_elsewhere():
    description = _description(kind="heatmap", values="logits", cells="corner")
    points = torch.tensor([[[20.0, 12.0], [40.0, 40.0], [8.0, 40.0]]])
    weights = torch.tensor([[0.8, 0.6, 0.0]])
    maps = torch.full((1, 3, 12, 16), -9.0)
    for j, (row, column, height) in enumerate(((3, 5, 1.0), (2, 2, 0.5), (1, 1, 4.0))):
        maps[0, j, row, column] = height
    score = _loss(description, {"heatmap": maps})({"heatmap": maps}, points, weights)["score"]
    right = -0.8 * math.log(torch.tensor(1.0).sigmoid()) - 0.2 * math.log(torch.tensor(-1.0).sigmoid())
    wrong = -math.log(torch.tensor(-0.5).sigmoid())
    assert float(score) == pytest.approx(0.25 * (right + wrong) / 2, rel=1e-5)


@pytest.mark.parametrize("order", ["xy", "yx"])
def test_offsets_lead_from_the_cells_near_a_keypoint_to_it(order):
    outputs = {"heatmap": "h", "offset": "o"}
    description = _description(
        kind="heatmap", values="logits", outputs=outputs, offset_order=order, offset_center=0.5
    )
    maps = _random(2, 3, 12, 16)
    cells = (POINTS + 0.5) / 4 - 0.5
    grid = torch.stack([torch.arange(16.0).expand(12, 16), torch.arange(12.0)[:, None].expand(12, 16)])
    offsets = cells[..., None, None] - grid + 0.5
    if order == "yx":
        offsets = offsets.flip(2)
    given = {"h": maps, "o": offsets.flatten(1, 2)}
    loss = _loss(description, given)
    assert float(loss(given, POINTS, WEIGHTS)["offset"]) == pytest.approx(0, abs=1e-10)
    # far from the keypoints they may say anything
    near = (cells[..., None, None] - grid).abs().amax(2, keepdim=True) <= 1.5
    given["o"] = torch.where(near, offsets, 99.0).flatten(1, 2)
    assert float(loss(given, POINTS, WEIGHTS)["offset"]) == pytest.approx(0, abs=1e-10)
    given["o"] = (offsets + 0.5).flatten(1, 2)
    # a quarter of Huber's 0.125 per axis
    assert float(loss(given, POINTS, WEIGHTS)["offset"]) == pytest.approx(0.25 * 2 * 0.125, rel=1e-4)


def test_simcc_is_compared_on_both_axes():
    description = _description(kind="simcc", cells="corner", logit_scale=2.0, outputs={"x": "a", "y": "b"})
    given = {"a": _random(2, 3, 128), "b": _random(2, 3, 96, seed=1)}
    found = _loss(description, given)(given, POINTS, WEIGHTS)["axes"]
    total = 0.0
    for b in range(2):
        for j in range(3):
            for axis, name in enumerate("ab"):
                own = (2 * given[name][b, j].double()).log_softmax(0)
                target = _log_gaussian(2 * float(POINTS[b, j, axis]), 2 * 0.05 * 64, len(own))
                total += float(WEIGHTS[b, j]) * float((target.exp() * (target - own)).sum())
    assert float(found) == pytest.approx(total / float(WEIGHTS.sum()), rel=1e-4)


@pytest.mark.parametrize("coordinates", ["pixels", "unit"])
def test_keypoints_are_compared_by_their_distance(coordinates):
    description = _description(
        kind="keypoints", columns=("x", "y", "score"), coordinates=coordinates, cells="corner"
    )
    scale = torch.tensor([64.0, 48.0]) if coordinates == "unit" else 1.0
    moved = POINTS + torch.tensor([6.4, 0.0])
    given = {"keypoints": torch.cat([moved / scale, torch.ones(2, 3, 1)], -1)}
    found = _loss(description, given)(given, POINTS, WEIGHTS)["distance"]
    # a tenth of the crop is beyond the quadratic part, a fiftieth: (0.1 - 0.01) / 0.02
    assert float(found) == pytest.approx(4.5, rel=1e-5)


def _outputs(kind):
    if kind == "heatmap":
        return {"h": _random(2, 3, 12, 16), "o": _random(2, 6, 12, 16)}
    return {"x": _random(2, 3, 128), "y": _random(2, 3, 96)} if kind == "simcc" else {"k": _random(2, 3, 3)}


NAMES = {
    "heatmap": {"heatmap": "h", "offset": "o"},
    "simcc": {"x": "x", "y": "y"},
    "keypoints": {"keypoints": "k"},
}


@pytest.mark.parametrize("kind", list(NAMES))
def test_a_joint_of_weight_zero_counts_for_nothing(kind):
    description = _description(kind=kind, values="logits", outputs=NAMES[kind])
    given = {name: value.requires_grad_() for name, value in _outputs(kind).items()}
    loss = _loss(description, given)
    lost = POINTS.clone()
    lost[1, 2] = math.nan
    first, second = (sum(loss(given, points, WEIGHTS).values()) for points in (POINTS, lost))
    assert torch.equal(first, second)
    second.backward()
    joint = given["h" if kind == "heatmap" else "x" if kind == "simcc" else "k"]
    assert torch.isfinite(joint.grad).all()
    assert joint.grad[1, 2].abs().max() == 0 and joint.grad[1, 1].abs().max() > 0
    nobody = loss(given, POINTS, torch.zeros(2, 3))
    assert all(float(value.detach()) == 0 for value in nobody.values())


@pytest.mark.parametrize("kind", list(NAMES))
def test_a_few_steps_bring_the_output_to_the_keypoints(kind):
    description = _description(kind=kind, values="logits", outputs=NAMES[kind], cells="corner")
    given = {name: value.requires_grad_() for name, value in _outputs(kind).items()}
    loss = _loss(description, given)
    weights = torch.ones(2, 3)
    points = POINTS.clamp(max=44)  # a corner's last cell lies before the last pixel
    optimizer = torch.optim.Adam(given.values(), 0.5)
    for _ in range(300):
        optimizer.zero_grad()
        sum(loss(given, points, weights).values()).backward()
        optimizer.step()
    reader = READERS[kind](description, given)
    found = reader.points(given) if kind == "keypoints" else reader.readout(reader.read(given)).keypoints
    assert (found - points).abs().max() < 2.1  # half a cell


def test_a_width_that_is_none_is_refused():
    description = _description(kind="heatmap", values="logits")
    with pytest.raises(
        InputError, match=r"sigma: expected a share of the crop's longer side in \(0, 1\), got 0"
    ):
        _loss(description, {"heatmap": _random(2, 3, 12, 16)}, sigma=0)


def test_other_outputs_are_kept():
    description = _description(kind="heatmap", values="logits", outputs=NAMES["heatmap"])
    given = _outputs("heatmap") | {"center": _random(2, 5), "count": torch.ones(2, 1, dtype=torch.int64)}
    reader = READERS["heatmap"](description, given)
    kept = kept_outputs(description, reader, given)
    assert list(kept) == ["center"]
    assert float(kept_loss(kept, kept)) == 0
    variance = float(given["center"].var(unbiased=False))
    assert float(kept_loss({"center": given["center"] + 1}, kept)) == pytest.approx(1 / variance, rel=1e-5)


def test_scores_beside_keypoints_are_kept():
    description = _description(
        kind="keypoints", outputs={"keypoints": "k", "scores": "s"}, columns=("y", "z", "x")
    )
    given = {"k": _random(2, 9), "s": torch.rand(2, 3)}
    kept = kept_outputs(description, READERS["keypoints"](description, given), given)
    assert set(kept) == {"k", "s"}
    assert torch.equal(kept["k"], given["k"].reshape(2, 3, 3)[..., [1]])
