"""A teacher's compact outputs: what comes back, in how many bytes, and which students share them."""

from __future__ import annotations

import pytest
import torch

from cdkd_ext.data import PoseDataset, load_coco_persons
from cdkd_ext.data.cached_views import FixedViews
from cdkd_ext.data.sharded_views import ShardedViews, build_sharded_views
from cdkd_ext.distillation import TeacherOutput
from cdkd_ext.errors import InputError
from cdkd_ext.joints import COCO_JOINTS, MPII_JOINTS
from cdkd_ext.teachers import (
    CompactOutputs,
    ForeignTeacher,
    TeacherDescription,
    TeacherOptions,
    build_compact_outputs,
)
from cdkd_ext.teachers.compact import compact_columns


@pytest.fixture
def dataset(drawn_people):
    persons, joints = load_coco_persons(drawn_people / "val/annotations.json", drawn_people / "val/images")
    return PoseDataset(persons[:5], joints, size=(32, 32), teacher_size=(64, 64), seed=3)


def teacher(images, joints=2, bins=(768, 576)):
    """Any callable teaches: this one's peaks follow the means of its crops, and none is in the middle of two bins."""
    centers = (
        images.float().mean((1, 2, 3)).floor()[:, None, None] * torch.arange(1, joints + 1)[:, None] + 0.3
    )
    logits = (-(torch.arange(float(count)) - centers).square() / 50 for count in bins)
    return TeacherOutput(centers.round()[..., None].expand(-1, -1, 3, 3), *logits)


def test_a_batch_holds_what_the_teacher_said(dataset, tmp_path):
    folder = build_compact_outputs(dataset, 2, tmp_path, teacher, "peaks", features=True)
    views = FixedViews(ShardedViews(build_sharded_views(dataset, 2, tmp_path)), CompactOutputs(folder))
    keys = [(4, 1), (0, 0), (2, 1)]
    output = views.batch(keys)["teacher_output"].to("cpu").widened()
    expected = teacher(torch.stack([dataset[key]["teacher_image"] for key in keys]))
    assert isinstance(output, TeacherOutput)
    assert torch.equal(output.feature, expected.feature)
    for decoded, given in ((output.logits_x, expected.logits_x), (output.logits_y, expected.logits_y)):
        assert torch.equal(decoded.argmax(-1), given.argmax(-1))
        assert (decoded.softmax(-1) - given.softmax(-1)).abs().sum(-1).max() < 0.02


def test_features_are_left_out_unless_asked_for(dataset, tmp_path):
    folders = [build_compact_outputs(dataset, 1, tmp_path, teacher, "p", features=f) for f in (False, True)]
    assert folders[0] != folders[1]
    assert CompactOutputs(folders[0])([(1, 0)]).widened().feature is None


def test_a_view_takes_three_kibibytes(dataset):
    output = teacher(torch.zeros(4, 3, 256, 256), joints=17, bins=(768, 768))
    columns = compact_columns(output, features=False)
    row = sum(column[0].nbytes for column in columns.values())
    confidence, checksum = 2 * 17, 4
    assert row + confidence + checksum <= 3072


def test_a_teacher_of_features_alone_has_them_stored(dataset, tmp_path):
    def heatmaps(images):
        return TeacherOutput(teacher(images).feature)

    folder = build_compact_outputs(dataset, 1, tmp_path, heatmaps, "maps", features=True)
    output = CompactOutputs(folder)([(1, 0)]).widened()
    assert output.feature.dtype == torch.float32 and output.logits_x is None
    with pytest.raises(InputError, match=r"data\.teacher_cache: expected SAPE"):
        build_compact_outputs(dataset, 1, tmp_path, heatmaps, "maps", features=False)


def test_a_folder_is_reused_for_the_same_teacher_and_views_alone(dataset, tmp_path):
    asked = []

    def counting(images):
        asked.append(len(images))
        return teacher(images)

    first = build_compact_outputs(dataset, 1, tmp_path, counting, "a")
    larger = PoseDataset(dataset.persons, dataset.joints, size=(48, 48), teacher_size=(64, 64), seed=3)
    # of another student: half as large again
    assert build_compact_outputs(larger, 1, tmp_path, counting, "a") == first
    assert asked == [5]
    others = [
        build_compact_outputs(dataset, 1, tmp_path, counting, "b"),
        build_compact_outputs(dataset, 2, tmp_path, counting, "a"),
    ]
    dataset.teacher_size = (96, 96)
    others.append(build_compact_outputs(dataset, 1, tmp_path, counting, "a"))
    assert len({first, *others}) == 4


def test_another_teacher_s_cache_under_this_name_is_refused(dataset, tmp_path):
    first, second = (build_compact_outputs(dataset, 1, tmp_path, teacher, name) for name in ("a", "b"))
    for path in first.iterdir():
        path.unlink()
    first.rmdir()
    second.rename(first)
    with pytest.raises(InputError, match=r"manifest\.json: teacher: expected a .*something else.*, got b"):
        build_compact_outputs(dataset, 1, tmp_path, teacher, "a")


def test_a_teacher_without_sense_leaves_nothing(dataset, tmp_path):
    def broken(images):
        return TeacherOutput(teacher(images).feature, *(torch.full((len(images), 2, 9), torch.nan),) * 2)

    with pytest.raises(InputError, match="teacher: expected logits below infinity"):
        build_compact_outputs(dataset, 1, tmp_path, broken, "nan")
    assert not list(tmp_path.glob("*/*.npy"))


def test_a_batch_passes_through_a_loader_s_pinning_and_sending(dataset, tmp_path):
    """What moves batches takes tuples with names and dictionaries apart and puts them together again."""
    from accelerate.utils import send_to_device
    from torch.utils.data import default_convert

    outputs = CompactOutputs(build_compact_outputs(dataset, 1, tmp_path, teacher, "a", features=True))
    given = outputs([(0, 0), (3, 0)])
    moved = send_to_device({"teacher_output": default_convert(given)}, torch.device("cpu"), non_blocking=True)
    for value, wanted in zip(moved["teacher_output"].widened()[:3], given.widened()[:3], strict=True):
        assert torch.equal(value, wanted)


@pytest.mark.parametrize("targets", ["marginals", "keypoints"])
def test_a_network_of_any_origin_is_stored_with_its_confidences(dataset, tmp_path, targets):
    torch.manual_seed(0)
    described = TeacherDescription(kind="heatmap", input_size=(64, 64), values="logits", joints="coco")
    options = TeacherOptions(targets=targets, confidence=True)
    foreign = ForeignTeacher.of(torch.nn.Conv2d(3, 17, 4, 4), described, options=options)
    folder = build_compact_outputs(dataset, 1, tmp_path, foreign, targets)
    keys = [(4, 0), (1, 0)]
    output = CompactOutputs(folder)(keys).widened()
    expected = foreign(torch.stack([dataset[key]["teacher_image"] for key in keys]))
    assert torch.allclose(output.confidence, expected.confidence, atol=1e-3)
    for decoded, given in ((output.logits_x, expected.logits_x), (output.logits_y, expected.logits_y)):
        assert (decoded.softmax(-1) - given.softmax(-1)).abs().sum(-1).max() < 0.03


def test_students_share_what_is_not_drawn_for_their_classes():
    described = TeacherDescription(kind="heatmap", input_size=(64, 64), values="logits", joints="coco")

    def drawn_for(targets, joints=COCO_JOINTS):
        network, options = torch.nn.Conv2d(3, 17, 4, 4), TeacherOptions(targets=targets)
        return ForeignTeacher.of(network, described, joints, options, student_bins=(64, 48)).drawn_for

    assert drawn_for("marginals") is None
    assert drawn_for("keypoints") == (64, 48)
    # whose pelvis is the middle of two hips
    assert drawn_for("marginals", MPII_JOINTS) == (64, 48)
