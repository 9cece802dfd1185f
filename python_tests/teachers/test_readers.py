"""Dots at known places, seen through outputs of every kind, come back at their places."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cdkd_ext.distillation import CCA, SimCCLoss
from cdkd_ext.errors import InputError
from cdkd_ext.models import SimCCOutput
from cdkd_ext.onnx_file import OnnxFile
from cdkd_ext.teachers import ForeignTeacher, TeacherDescription, TeacherOptions

SIZE = (48, 64)
NAMES = ("nose", "left_eye", "right_eye")
ALL = TeacherOptions(cut=-1)


def places(count=6, seed=0):
    """Points that keep their dots inside."""
    generator = torch.Generator().manual_seed(seed)
    low, span = torch.tensor([16.0, 16.0]), torch.tensor([SIZE[1] - 33.0, SIZE[0] - 33.0])
    return low + span * torch.rand(count, 3, 2, generator=generator)


def means(teacher, images):
    """Where the teacher's distributions have their middles, in pixels of its crop, from what its spec says of the bins."""
    output, spec = teacher(images), teacher.teacher_spec
    found = []
    for axis, logits in enumerate((output.logits_x, output.logits_y)):
        bins = spec.num_bins[axis]
        assert logits.shape[-1] == bins
        torch.testing.assert_close(logits.exp().sum(-1), torch.ones(logits.shape[:-1]), atol=1e-5, rtol=0)
        pixels = spec.bin_origin[axis] + torch.arange(bins) * spec.input_size[1 - axis] / bins
        found.append((logits.exp() * pixels).sum(-1))
    return torch.stack(found, -1)


@pytest.mark.parametrize("cells", ["center", "corner", "ends"])
@pytest.mark.parametrize(("layout", "output_layout"), [("NCHW", "NCHW"), ("NHWC", "NHWC"), ("NCHW", "NHWC")])
@pytest.mark.parametrize("flip", [False, True])
def test_dots_in_heatmaps_of_onnx_files(make_graph, dots, tmp_path, cells, layout, output_layout, flip):
    # this graph knows colours and no sides
    (tmp_path / "joints.yaml").write_text("keypoints: [nose, mouth, chin]\nflip_pairs: []\n")
    description = TeacherDescription(kind="heatmap", cells=cells, joints=str(tmp_path / "joints.yaml"))
    file = OnnxFile(make_graph(cells, layout=layout, output_layout=output_layout), cpu=True, threads=1)
    teacher = ForeignTeacher.from_onnx(file, description, options=replace(ALL, flip=flip))
    assert teacher.description.layout == layout and teacher.description.input_size == SIZE
    assert teacher.teacher_spec.num_bins == (16, 12)
    points = places()
    images = dots(points, SIZE)
    torch.testing.assert_close(means(teacher, images), points, atol=0.15, rtol=0)
    # a quarter of a cell is the finest that this decoding says
    said = teacher.predict(images).keypoints
    torch.testing.assert_close(said, points, atol=2.0, rtol=0)
    assert (said - points).mean((0, 1)).abs().max() < 0.6


def test_the_conventions_differ_by_what_they_say(make_graph, dots):
    """Cells taken for those of another convention are off by that much: the test above can fail."""
    points = places()
    file = OnnxFile(make_graph("center"), cpu=True, threads=1)
    wrong = TeacherDescription(kind="heatmap", cells="corner", joints=NAMES)
    found = means(ForeignTeacher.from_onnx(file, wrong, options=ALL), dots(points, SIZE))
    torch.testing.assert_close(found, points - 1.5, atol=0.1, rtol=0)


@pytest.mark.parametrize("bins", [(32, 24), (64, 48), (24, 18), (16, 12)])
def test_the_student_that_agrees_loses_least(make_graph, dots, bins):
    """A student of any number of classes is right where the dot is, and a quarter of a class beside it is not."""
    file = OnnxFile(make_graph("center"), cpu=True, threads=1)
    description = TeacherDescription(kind="heatmap", joints=NAMES)
    teacher = ForeignTeacher.from_onnx(file, description, options=ALL)
    cca = CCA(offset=teacher.teacher_spec.offset(bins))
    points = places()
    output = teacher(dots(points, SIZE))

    def loss(shift):
        axes = []
        for axis, classes in enumerate(bins):
            per_pixel = classes / SIZE[1 - axis]
            # the dot's width, that of a cell's block, and that of a class
            sigma = ((5.0**2 + 16 / 12) * per_pixel**2 + 1 / 12) ** 0.5
            center = points[..., axis] * per_pixel + shift
            axes.append(-((torch.arange(classes) - center[..., None]) ** 2) / (2 * sigma**2))
        return cca(SimCCOutput(torch.zeros(6, 3, 1, 1), *axes), output, 1.0).item()

    middle = loss(0.0)
    assert middle < 0.06
    step = bins[0] / 64 * 0.5  # half a pixel
    assert middle < min(loss(step), loss(-step))


def test_offsets_move_keypoints_within_their_cells(dots):
    points = places()

    def network(images):
        """Maps with a peak in the cell that the point lies in, and where in it, as y and x from the cell's corner."""
        cells = (points + 0.5) / 4
        maps, offsets = torch.zeros(len(images), 3, 12, 16), torch.full((len(images), 6, 12, 16), 9.0)
        for b in range(len(images)):
            for j in range(3):
                x, y = cells[b, j].floor().long().tolist()
                maps[b, j, y, x] = 0.8
                offsets[b, 2 * j, y, x], offsets[b, 2 * j + 1, y, x] = (
                    cells[b, j] - cells[b, j].floor()
                ).flip(0)
        return {"maps": maps, "shifts": offsets}

    description = TeacherDescription(
        kind="heatmap",
        outputs={"heatmap": "maps", "offset": "shifts"},
        input_size=SIZE,
        offset_order="yx",
        offset_center=0.5,
        joints=NAMES,
    )
    said = ForeignTeacher.of(network, description).predict(dots(points, SIZE))
    torch.testing.assert_close(said.keypoints, points, atol=1e-4, rtol=0)
    torch.testing.assert_close(said.confidence, torch.full((6, 3), 0.8))


@pytest.mark.parametrize(("cells", "origin"), [("corner", 0.0), ("center", -0.25)])
def test_simcc(cells, origin):
    points = places()

    def network(images):
        axes = []
        for axis, bins in enumerate((128, 96)):
            center = (points[..., axis] - origin) * 2
            axes.append(-0.05 * (torch.arange(bins) - center[: len(images), :, None]) ** 2)
        return tuple(axes)

    description = TeacherDescription(
        kind="simcc", outputs={"x": "a", "y": "b"}, input_size=SIZE, cells=cells, logit_scale=10, joints=NAMES
    )
    teacher = ForeignTeacher.of(network, description)
    images = torch.zeros(6, 3, *SIZE, dtype=torch.uint8)
    assert teacher.teacher_spec.bin_origin == (origin, origin)
    torch.testing.assert_close(means(teacher, images), points, atol=0.02, rtol=0)
    torch.testing.assert_close(teacher.predict(images).keypoints, points, atol=0.26, rtol=0)
    assert (teacher.predict(images).confidence > 0.9).all()


@pytest.mark.parametrize("coordinates", ["pixels", "unit"])
@pytest.mark.parametrize("cells", ["center", "corner"])
def test_keypoints_with_their_scores(coordinates, cells):
    points, scores = places(), torch.rand(6, 3, generator=torch.Generator().manual_seed(1))

    def network(images):
        shown = points + (0.5 if cells == "center" else 0)
        if coordinates == "unit":
            shown = shown / torch.tensor([SIZE[1], SIZE[0]])
        table = [shown[..., 1:], shown[..., :1], torch.logit(scores)[..., None]]
        # as (B, 1, J, 3), which some files have
        return torch.cat(table, -1)[: len(images), None]

    description = TeacherDescription(
        kind="keypoints",
        input_size=SIZE,
        columns=("y", "x", "score"),
        coordinates=coordinates,
        cells=cells,
        score_values="logits",
        joints=NAMES,
    )
    images = torch.zeros(6, 3, *SIZE, dtype=torch.uint8)
    teacher = ForeignTeacher.of(network, description, student_bins=(32, 24))
    said = teacher.predict(images)
    torch.testing.assert_close(said.keypoints, points, atol=1e-4, rtol=0)
    torch.testing.assert_close(said.confidence, scores)
    torch.testing.assert_close(means(teacher, images), points, atol=0.05, rtol=0)
    # the surer, the narrower
    output = teacher(images)
    spread = (output.logits_x.exp() * (torch.arange(32) - points[..., :1] / 2) ** 2).sum(-1).sqrt()
    torch.testing.assert_close(spread, 2 - scores, atol=0.02, rtol=0)


def test_pseudo_labels_are_the_labels_of_simcc(make_graph, dots):
    """Targets "keypoints" teach what the loss from labels does, with the keypoints as labels and the scores as weights."""
    file = OnnxFile(make_graph("center"), cpu=True, threads=1)
    description = TeacherDescription(kind="heatmap", joints=NAMES)
    options = TeacherOptions(targets="keypoints")
    teacher = ForeignTeacher.from_onnx(file, description, options=options, student_bins=(64, 48))
    assert teacher.teacher_spec.offset((64, 48)) == (0.0, 0.0)
    images = dots(places(), SIZE)
    student = SimCCOutput(torch.zeros(6, 3, 1, 1), torch.randn(6, 3, 64), torch.randn(6, 3, 48))
    output, said = teacher(images), teacher.predict(images)
    # the student's crops are half as large, with two bins a pixel
    expected = SimCCLoss(2.0)(student, said.keypoints / 2, said.confidence)
    cca = CCA(offset=teacher.teacher_spec.offset((64, 48)))
    torch.testing.assert_close(cca(student, output, 1.0, output.confidence), expected, rtol=1e-4, atol=0)


def test_what_lies_outside_of_the_crop_or_is_unsure_counts_nothing():
    table = torch.tensor([[[20.0, 20.0, 0.9], [-3.0, 20.0, 0.9], [20.0, 20.0, 0.1]]])
    description = TeacherDescription(kind="keypoints", input_size=SIZE, joints=NAMES)
    images = torch.zeros(1, 3, *SIZE, dtype=torch.uint8)

    def asked(**options):
        return ForeignTeacher.of(
            lambda images: table.expand(len(images), -1, -1), description, options=TeacherOptions(**options)
        )(images)

    output = asked(min_confidence=0.2)
    assert output.confidence[0].tolist() == pytest.approx([0.9, 0.0, 0.0])
    assert output.logits_x.isfinite().all() and output.feature is None
    assert asked(confidence=False).confidence[0].tolist() == [1.0, 0.0, 1.0]


def heatmaps(values, **options):
    description = TeacherDescription(kind="heatmap", input_size=SIZE, joints=NAMES, **options)
    return ForeignTeacher.of(lambda images: values.expand(len(images), *values.shape[1:]), description)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: heatmaps(torch.full((1, 3, 12, 16), float("nan"))),
            "output heatmap: expected finite numbers; look at range, mean and std of the input, got NaN or infinite",
        ),
        (
            lambda: heatmaps(torch.full((1, 3, 12, 16), -7.0)),
            "output heatmap: expected probabilities from 0 to 1, or values: logits or gaussians, got values from -7 to",
        ),
        (
            lambda: heatmaps(torch.zeros(1, 3, 16, 16)),
            r"output of heatmaps: expected maps of the aspect ratio of the \(48, 64\) crops, got \(1|2, 3, 16, 16\)",
        ),
        (lambda: heatmaps(torch.zeros(1, 5, 12, 16)), "joints: expected the network's 5, got 3 names"),
        (
            lambda: heatmaps(torch.zeros(1, 3, 12, 16), outputs={"heatmap": "maps", "offset": "shifts"}),
            r"outputs: expected names of the 1 tensors returned, got \['maps', 'shifts'\]",
        ),
    ],
)
def test_outputs_that_are_not_as_described(make, message):
    with pytest.raises(InputError, match=message) as caught:
        make()(torch.zeros(1, 3, *SIZE, dtype=torch.uint8))
    assert "\n" not in str(caught.value)


def test_crops_of_another_size_are_refused():
    teacher = heatmaps(torch.zeros(1, 3, 12, 16))
    with pytest.raises(InputError, match=r"teacher_images: expected uint8 crops \(B, 3, 48, 64\), got"):
        teacher(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
