"""A network that knows upright people alone teaches those who are not: it is asked about turned crops, too."""

from __future__ import annotations

import pytest
import torch

from cdkd_ext.errors import InputError
from cdkd_ext.teachers import ForeignTeacher, TeacherDescription, TeacherOptions

SIDE, CELLS, STRIDE = 64, 16, 4
NAMES = ("nose", "left_hip", "right_hip")
UPRIGHT, OTHERWISE = 0.8, 0.2
DESCRIPTIONS = {
    "center": {"kind": "heatmap", "cells": "center"},
    "corner": {"kind": "heatmap", "cells": "corner"},
    "ends": {"kind": "heatmap", "cells": "ends"},
    "offsets": {"kind": "heatmap", "outputs": {"heatmap": "maps", "offset": "shifts"}},
    "simcc": {
        "kind": "simcc",
        "outputs": {"x": "a", "y": "b"},
        "cells": "center",
        "logit_scale": 10,
        "confidence": "peak",
    },
    "simcc_corner": {
        "kind": "simcc",
        "outputs": {"x": "a", "y": "b"},
        "cells": "corner",
        "logit_scale": 10,
        "confidence": "peak",
    },
    "keypoints": {"kind": "keypoints", "cells": "corner", "columns": ("x", "y", "score")},
}


def found(images):
    """Where the dots are, (B, 3, 2), and how sure a network is that expects the nose above the right hip, (B,)."""
    bright = images.double()
    places = torch.arange(SIDE, dtype=torch.double)
    total = bright.sum((2, 3))
    points = torch.stack([(bright.sum(2) * places).sum(-1), (bright.sum(3) * places).sum(-1)], -1)
    points = (points / total[..., None]).float()
    down = points[:, 2] - points[:, 0]
    upright = (down[:, 1] > 0) & (down[:, 1] > down[:, 0].abs())
    return points, torch.where(upright, UPRIGHT, OTHERWISE)


def network(name):
    def heatmaps(points, sure):
        spacing, first = {"center": (STRIDE, 1.5), "corner": (STRIDE, 0.0), "ends": (63 / 15, 0.0)}[name]
        cells = first + spacing * torch.arange(CELLS)
        near = torch.exp(-((points[..., None] - cells) ** 2) / 50)
        return sure[:, None, None, None] * near[:, :, 1, :, None] * near[:, :, 0, None, :]

    def offsets(points, sure):
        cells = (points - 1.5) / STRIDE
        maps, shifts = torch.zeros(len(points), 3, CELLS, CELLS), torch.zeros(len(points), 6, CELLS, CELLS)
        for b in range(len(points)):
            for j in range(3):
                x, y = cells[b, j].round().long().tolist()
                maps[b, j, y, x] = sure[b]
                shifts[b, 2 * j : 2 * j + 2, y, x] = cells[b, j] - cells[b, j].round()
        return {"maps": maps, "shifts": shifts}

    def simcc(points, sure):
        centers = 2 * points + (0.5 if name == "simcc" else 0)
        bins = torch.arange(2 * SIDE)
        logits = sure[:, None, None, None] - 0.05 * (bins - centers[..., None]) ** 2
        return logits[:, :, 0], logits[:, :, 1]

    def keypoints(points, sure):
        return torch.cat([points, sure[:, None, None].expand(-1, 3, 1)], -1)

    say = {"offsets": offsets, "simcc": simcc, "simcc_corner": simcc, "keypoints": keypoints}
    return lambda images: say.get(name, heatmaps)(*found(images))


def teacher(name, **options):
    description = TeacherDescription(input_size=(SIDE, SIDE), joints=NAMES, **DESCRIPTIONS[name])
    options = TeacherOptions(cut=-1, **options)
    return ForeignTeacher.of(network(name), description, options=options, student_bins=(SIDE, SIDE))


@pytest.fixture
def upright():
    """Points (4, 3, 2) of people whose nose is above their hips."""
    return (
        torch.tensor([[22.0, 17.0], [36.0, 27.0], [27.0, 45.0]])
        + torch.tensor([0.0, 3.0, 1.5, 0.5])[:, None, None]
    )


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_turned_people_are_seen_like_upright_ones(name, turns, upright, dots):
    images = torch.rot90(dots(upright, (SIDE, SIDE)), turns, (2, 3)).contiguous()
    points = upright
    for _ in range(turns):
        points = torch.stack([points[..., 1], SIDE - 1 - points[..., 0]], -1)
    asked = teacher(name, turns=True)
    said = asked.predict(images)
    exact = 0.05 if name in ("offsets", "keypoints") else 0.3 if "simcc" in name else 2.1
    torch.testing.assert_close(said.keypoints, points, atol=exact, rtol=0)
    assert (said.confidence > UPRIGHT - 0.2).all()
    if turns:
        assert (teacher(name).predict(images).confidence < OTHERWISE + 0.1).all()
    output, spec = asked(images), asked.teacher_spec
    for axis, logits in enumerate((output.logits_x, output.logits_y)):
        pixels = spec.bin_origin[axis] + torch.arange(spec.num_bins[axis]) * SIDE / spec.num_bins[axis]
        middle = (logits.exp() * pixels).sum(-1)
        # the marginals of maps with offsets are of whole cells
        torch.testing.assert_close(middle, points[..., axis], atol=2.1 if name == "offsets" else 0.2, rtol=0)


def test_each_crop_is_turned_for_itself(upright, dots):
    images = dots(upright, (SIDE, SIDE))
    mixed = torch.stack([torch.rot90(image, turns, (1, 2)) for turns, image in enumerate(images)])
    asked = teacher("offsets", turns=True)
    together = asked.predict(mixed)
    alone = [asked.predict(image[None]) for image in mixed]
    torch.testing.assert_close(together.keypoints, torch.cat([said.keypoints for said in alone]))
    assert (together.confidence == UPRIGHT).all()


def test_nobody_who_is_seen_well_is_asked_about_again(upright, dots):
    calls = []
    inner = network("keypoints")

    def counting(images):
        calls.append(len(images))
        return inner(images)

    description = TeacherDescription(input_size=(SIDE, SIDE), joints=NAMES, **DESCRIPTIONS["keypoints"])
    asked = ForeignTeacher.of(counting, description, options=TeacherOptions(turns=True, flip=True))
    images = dots(upright, (SIDE, SIDE))
    images[1] = torch.rot90(images[1], 2, (1, 2))
    calls.clear()
    asked.predict(images)
    assert calls == [4, 4, 1, 1, 1, 1, 1, 1]


def test_crops_that_are_not_square_cannot_be_turned():
    description = TeacherDescription(input_size=(48, 64), joints=NAMES, kind="keypoints")
    message = (
        "teacher_options.turns: expected nothing for a network whose input is not square, 48x64, got True"
    )
    with pytest.raises(InputError, match=message):
        ForeignTeacher.of(lambda images: None, description, options=TeacherOptions(turns=True))
