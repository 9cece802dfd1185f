"""From an image and boxes to poses in the image's pixels."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from cdkd_ext.checkpoints import save_model
from cdkd_ext.codecs import decode_heatmaps
from cdkd_ext.errors import InputError
from cdkd_ext.inference import Predictor, predict_crops, read_image
from cdkd_ext.joints import COCO_JOINTS, MPII_JOINTS
from cdkd_ext.models import HeatmapOutput, ModelSpec, SimCCOutput, create_model


class BrightestPixel(nn.Module):
    """A network that finds the brightest column and row: what it should answer is known."""

    def __init__(self, num_joints=17, size=64, split_ratio=2.0):
        super().__init__()
        self.num_joints = num_joints
        self.spec = ModelSpec(
            name="brightest", input_size=(size, size), num_joints=num_joints, split_ratio=split_ratio
        )

    def forward(self, images):
        light = images.float().mean(1) / 60
        rows = []
        for axis in (1, 2):
            profile = light.amax(axis).repeat_interleave(int(self.spec.split_ratio), -1)
            # the label of pixel i is bin 2i, and bin 2i + 1 is a lesser guess
            profile[..., 1::2] -= 1e-3
            rows.append(20 * profile[:, None].expand(-1, self.num_joints, -1))
        return SimCCOutput(light[:, None], rows[0], rows[1])


def picture_with_a_spot(x, y, height=240, width=320):
    image = np.zeros((height, width, 3), np.uint8)
    cv2.circle(image, (x, y), 6, (255, 255, 255), -1)
    return cv2.GaussianBlur(image, (0, 0), 3)


@pytest.mark.parametrize("flip_test", [False, True])
@pytest.mark.parametrize(("x", "y"), [(160, 120), (120, 90), (200, 140)])
def test_a_spot_is_found_where_it_is_in_the_picture(x, y, flip_test):
    predictor = Predictor(BrightestPixel(), COCO_JOINTS, flip_test=flip_test)
    poses = predictor(picture_with_a_spot(x, y), [(80, 40, 160, 160), (100, 60, 120, 120)])
    assert poses.keypoints.shape == (2, 17, 2) and poses.scores.shape == (2, 17)
    # a crop pixel is 200 / 64 and 150 / 64 picture pixels wide
    for keypoints, pixel in zip(poses.keypoints, (200 / 64, 150 / 64), strict=True):
        assert np.abs(keypoints - [x, y]).max() <= pixel


@pytest.mark.parametrize("head", ["simcc", "heatmap"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_of_another_precision_predicts_the_same_poses(head, dtype):
    torch.manual_seed(0)
    model = create_model(
        "hrnet_w8_small",
        input_size=(64, 64),
        num_joints=17,
        head=head,
        joints=COCO_JOINTS,
        color_order="bgr",
        resample="linear",
    )
    for module in model.modules():
        # outputs of the size that trained weights give: the maxima of fresh ones' maps are ties
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    image = picture_with_a_spot(160, 120)
    expected = Predictor(model)(image, [(80, 40, 160, 160)])
    poses = Predictor(model.to(dtype))(image, [(80, 40, 160, 160)])
    assert poses.keypoints.dtype == poses.scores.dtype == np.float32
    tolerance = (1e-5 if dtype == torch.float64 else 0.05) * np.abs(expected.scores).max()
    np.testing.assert_allclose(poses.scores, expected.scores, rtol=0, atol=tolerance)
    # rounding may decide between two equal maxima, for a joint or two
    assert np.median(np.abs(poses.keypoints - expected.keypoints)) <= 1e-3


def test_scores_are_probabilities_and_no_boxes_give_no_poses():
    model = create_model("hrnet_w8_small", input_size=(32, 32), num_joints=16)
    predictor = Predictor(model, MPII_JOINTS)
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    poses = predictor(image, [(5, 5, 30, 40)])
    assert ((poses.scores > 0) & (poses.scores <= 1)).all()
    assert predictor(image, []).keypoints.shape == (0, 16, 2)


PLACES = [(80.0, 40.0, 160.0, 160.0), (100.0, 60.0, 120.0, 120.0)]


@pytest.mark.parametrize(
    ("boxes", "scores"),
    [
        (PLACES, [1, 1]),
        (np.array(PLACES), [1, 1]),
        (torch.tensor(PLACES), [1, 1]),
        (torch.tensor(PLACES, dtype=torch.bfloat16), [1, 1]),
        (list(torch.tensor(PLACES)), [1, 1]),
        (tuple(map(list, PLACES)), [1, 1]),
        ((box for box in PLACES), [1, 1]),
        (np.column_stack([PLACES, [0.75, 0.5]]), [0.75, 0.5]),
        ([(*PLACES[0], 0.75), PLACES[1]], [0.75, 1]),
        ([{"bbox": PLACES[0], "score": 0.25, "category_id": 1}, {"bbox": list(PLACES[1])}], [0.25, 1]),
        (PLACES[0], [1]),
        (np.array([*PLACES[0], 0.5]), [0.5]),
        ({"bbox": PLACES[0], "score": 0.5}, [0.5]),
    ],
)
def test_boxes_in_every_form(boxes, scores):
    predictor = Predictor(BrightestPixel(), COCO_JOINTS)
    image = picture_with_a_spot(160, 120)
    expected = predictor(image, PLACES[: len(scores)])
    poses = predictor(image, boxes)
    assert np.array_equal(poses.keypoints, expected.keypoints)
    assert poses.box_scores.dtype == np.float32 and poses.box_scores.tolist() == scores
    keypoints, joint_scores = poses
    assert keypoints is poses.keypoints and joint_scores is poses.scores


@pytest.mark.parametrize(
    "boxes", [[], (), np.zeros((0, 4)), np.zeros((0, 5)), torch.zeros(0, 4), np.zeros(0)]
)
def test_no_boxes_in_every_form(boxes):
    poses = Predictor(BrightestPixel(), COCO_JOINTS)(picture_with_a_spot(9, 9), boxes)
    assert poses.keypoints.shape == (0, 17, 2) and poses.scores.shape == (0, 17)
    assert poses.box_scores.shape == (0,)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([*PLACES, (3, 4, 0, 5)], r"boxes\[2\], the box: expected finite .*got \[3\.0, 4\.0, 0\.0, 5\.0\]"),
        ([PLACES[0], (3, 4, float("nan"), 5)], r"boxes\[1\], the box: expected finite"),
        ([PLACES[0], (3, 4, 5)], r"boxes\[1\]: expected \(x, y, width, height\), or .*got tuple \(3, 4, 5\)"),
        (np.zeros((2, 6)), r"boxes\[0\]: expected .*got shape \(6,\)"),
        (np.zeros((1, 2, 4)), r"boxes: expected a list of .*got shape \(1, 2, 4\)"),
        ([PLACES[0], ("a", "b", "c", "d")], r"boxes\[1\]: expected"),
        ([("1", "2", "3", "4")], r"boxes\[0\]: expected"),
        (
            [PLACES[0], {"box": PLACES[0]}],
            r"boxes\[1\]: expected the key 'bbox', got a mapping with \['box'\]",
        ),
        (
            [{"bbox": PLACES[0], "score": "high"}],
            r"boxes\[0\], the score: expected a finite number, got high",
        ),
        ([(*PLACES[0], float("inf"))], r"boxes\[0\], the score: expected a finite number, got inf"),
        ({"boxes": PLACES}, r"boxes\[0\]: expected the key 'bbox'"),
        ((1, 2, 3), r"boxes\[0\]: expected"),
        ([PLACES[0], None], r"boxes\[1\]: expected .*got NoneType"),
        ([[PLACES[0], PLACES[1]]], r"boxes\[0\]: expected"),
        (None, "boxes: expected a list of .*got NoneType None"),
        (5, "boxes: expected a list"),
        ("10 5 100 120", "boxes: expected a list"),
    ],
)
def test_what_is_no_box_is_named_by_its_index(boxes, message):
    with pytest.raises(InputError, match=message) as caught:
        Predictor(BrightestPixel(), COCO_JOINTS)(picture_with_a_spot(9, 9), boxes)
    assert "\n" not in str(caught.value)


def test_pictures_in_every_form(tmp_path):
    predictor = Predictor(BrightestPixel(), COCO_JOINTS)
    image = picture_with_a_spot(160, 120)
    image[..., 0] = image[..., 0] // 2
    expected = predictor(image, PLACES)
    cv2.imwrite(str(tmp_path / "spot.png"), image[..., ::-1])
    for path in (tmp_path / "spot.png", str(tmp_path / "spot.png")):
        assert np.array_equal(predictor(path, PLACES).keypoints, expected.keypoints)
    pil = pytest.importorskip("PIL.Image")
    for mode in ("RGB", "RGBA"):
        found = predictor(pil.fromarray(image).convert(mode), PLACES)
        assert np.array_equal(found.keypoints, expected.keypoints)
    deep = pil.fromarray(image[..., 1].astype(np.uint16) * 257)
    deep.save(tmp_path / "deep.png")
    for source in (tmp_path / "deep.png", pil.open(tmp_path / "deep.png")):
        assert np.array_equal(predictor(source, PLACES).keypoints, expected.keypoints)
    with pytest.raises(InputError, match=r"image: expected RGB uint8 .*, got a PIL image of the mode F"):
        predictor(deep.convert("F"), PLACES)


def test_a_path_is_read_upright(tmp_path):
    pil = pytest.importorskip("PIL.Image")
    image = pil.fromarray(picture_with_a_spot(200, 90))
    tag = image.getexif()
    # the sixth orientation: the rows as stored are the columns from the right
    tag[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=tag, quality=95)
    poses = Predictor(BrightestPixel(), COCO_JOINTS)(tmp_path / "turned.jpg", [(40, 80, 200, 200)])
    # (x, y) of 240 rows as stored is at (239 - y, x)
    assert np.abs(poses.keypoints - [149, 200]).max() <= 250 / 64


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((0, 5, 3), np.uint8), r"image: expected an image with pixels, got no pixels, \(0, 5, 3\)"),
        (np.zeros((5, 0, 3), np.uint8), "image: expected an image with pixels"),
        (np.zeros((5, 5, 3)), r"image: expected RGB uint8 \(H, W, 3\), .*got float64 \(5, 5, 3\)"),
        (np.zeros((5, 5, 4), np.uint8), r"got uint8 \(5, 5, 4\)"),
        (torch.zeros(3, 5, 5), "image: expected RGB uint8 .*got Tensor"),
        (None, "image: expected RGB uint8 .*got NoneType"),
        ("none.jpg", "none.jpg: expected an image"),
    ],
)
@pytest.mark.parametrize("boxes", [PLACES, []])
def test_what_is_no_picture_is_named(image, message, boxes):
    with pytest.raises(InputError, match=message):
        Predictor(BrightestPixel(), COCO_JOINTS)(image, boxes)


@pytest.mark.parametrize("image", [np.zeros((5, 5, 3), np.uint8), ["a.jpg"], None])
def test_boxes_are_missed_at_once(image):
    with pytest.raises(
        InputError, match=r"boxes: expected those of the people in the image; .*, got nothing"
    ):
        Predictor(BrightestPixel(), COCO_JOINTS)(image)
    with pytest.raises(InputError, match="source: expected a path, a camera's number or a stream's address"):
        Predictor(BrightestPixel(), COCO_JOINTS).follow(image)


def test_a_crowd_is_predicted_in_parts():
    sizes = []

    class Recorded(BrightestPixel):
        def forward(self, images):
            sizes.append(len(images))
            return super().forward(images)

    image = picture_with_a_spot(100, 120)
    boxes = [(20 + i / 10, 20, 160, 200) for i in range(150)]
    predictor = Predictor(Recorded(), COCO_JOINTS, flip_test=False)
    poses = predictor(image, boxes)
    assert sizes == [64, 64, 22]
    one_by_one = [predictor(image, box) for box in boxes[62:66]]
    np.testing.assert_array_equal(poses.keypoints[62:66], [pose.keypoints[0] for pose in one_by_one])
    assert poses.keypoints.shape == (150, 17, 2) and len(poses.scores) == len(poses.box_scores) == 150


class LightMap(nn.Module):
    """A network whose heatmaps are the light in the picture, smoothed."""

    def __init__(self, decoding, num_joints=17, size=64):
        super().__init__()
        self.num_joints = num_joints
        self.spec = ModelSpec(
            name="light", input_size=(size, size), num_joints=num_joints, head="heatmap", decoding=decoding
        )

    def forward(self, images):
        light = images.float().mean(1, keepdim=True) / 57
        cells = torch.nn.functional.avg_pool2d(light, 9, stride=4, padding=4)
        return HeatmapOutput(cells.expand(-1, self.num_joints, -1, -1))


@pytest.mark.parametrize("decoding", ["quarter", "dark"])
@pytest.mark.parametrize("flip_test", [False, True])
@pytest.mark.parametrize(("x", "y"), [(160, 120), (120, 90), (200, 140)])
def test_heatmaps_find_a_spot_where_it_is_in_the_picture(x, y, flip_test, decoding):
    predictor = Predictor(LightMap(decoding), COCO_JOINTS, flip_test=flip_test)
    poses = predictor(picture_with_a_spot(x, y), [(80, 40, 160, 160), (100, 60, 120, 120)])
    # a cell is four crop pixels, of 200 / 64 and 150 / 64 picture pixels; half of it is left, and the flip's eighth
    for keypoints, pixel in zip(poses.keypoints, (200 / 64, 150 / 64), strict=True):
        assert np.abs(keypoints - [x, y]).max() <= 2.5 * pixel


def test_heatmaps_are_decoded_as_the_network_says():
    crops = torch.from_numpy(picture_with_a_spot(33, 30, 64, 64)).permute(2, 0, 1)[None].contiguous()
    found = {}
    for decoding in ("quarter", "dark"):
        model = LightMap(decoding)
        found[decoding], _ = predict_crops(model, crops)
        maps = model(crops).heatmaps
        torch.testing.assert_close(found[decoding], decode_heatmaps(maps, (64, 64), method=decoding)[0])
    assert (found["quarter"] - found["dark"]).abs().max() > 0.05


def test_flip_test_is_symmetric_for_the_mirrored_picture():
    torch.manual_seed(0)
    model = create_model("hrnet_w8_small", input_size=(32, 32), num_joints=16, split_ratio=2.0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    predictor = Predictor(model, MPII_JOINTS)
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    # this box is the whole picture after padding, centred so that its mirror image is the crop's
    box = [(3.2, 3.2, 25.6, 25.6)]
    straight = predictor(image, box)
    mirrored = predictor(np.ascontiguousarray(image[:, ::-1]), box)
    permutation = list(MPII_JOINTS.flip_permutation)
    np.testing.assert_allclose(mirrored.scores[:, permutation], straight.scores, rtol=1e-3)
    # a joint that is its own mirror image averages to a symmetric distribution, whose maximum is a tie
    paired = [joint for joint, mirror in enumerate(permutation) if mirror != joint]
    expected = 31 - straight.keypoints[:, paired, 0]
    np.testing.assert_allclose(mirrored.keypoints[:, permutation, 0][:, paired], expected, atol=0.51)


def test_wrong_input_is_named(tmp_path):
    model = create_model("hrnet_w8_small", input_size=(32, 32), num_joints=16)
    with pytest.raises(InputError, match="joints: expected the model's 16 joints, got 17"):
        Predictor(model, COCO_JOINTS)
    predictor = Predictor(model, MPII_JOINTS)
    with pytest.raises(InputError, match=r"image: expected RGB uint8 \(H, W, 3\)"):
        predictor(np.zeros((4, 4), np.uint8), [(0, 0, 2, 2)])
    with pytest.raises(InputError, match="box: expected"):
        predictor(np.zeros((40, 40, 3), np.uint8), [(0, 0, 0, 2)])
    with pytest.raises(InputError, match=r"nothing\.png"):
        read_image(tmp_path / "nothing.png")
    with pytest.raises(InputError, match="joints: expected the joint set of a network that does not"):
        Predictor(model)
    with pytest.raises(InputError, match=r"path: expected an existing checkpoint, got .*nowhere"):
        Predictor.load(tmp_path / "nowhere")


def test_a_run_is_predicted_on_crops_as_it_was_trained(tmp_path):
    options = {"input_size": (32, 32), "num_joints": 16, "split_ratio": 2.0, "joints": MPII_JOINTS}
    network = create_model("hrnet_w8_small", **options, resample="linear")
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    save_model(network, tmp_path / "best.safetensors")
    image = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    boxes = [(20, 20, 150, 150)]
    own = Predictor.load(tmp_path)(image, boxes)
    np.testing.assert_array_equal(
        own.keypoints, Predictor(network, resample="linear")(image, boxes).keypoints
    )
    assert (own.scores != Predictor(network, resample="area")(image, boxes).scores).any()


def test_a_run_is_predicted_with_the_padding_and_joints_it_was_trained_with(tmp_path):
    network = create_model(
        "hrnet_w8_small", input_size=(32, 32), num_joints=16, split_ratio=2.0, padding=1.5, joints=MPII_JOINTS
    )
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    save_model(network, tmp_path / "best.safetensors")
    image = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    predictor = Predictor.load(tmp_path)
    assert predictor.joints == MPII_JOINTS and predictor.padding == 1.5
    # a box of 30 pixels padded by 1.5 is one of 36 padded by 1.25
    poses = predictor(image, [(15, 15, 30, 30)])
    other = Predictor(network, padding=1.25)(image, [(12, 12, 36, 36)])
    np.testing.assert_allclose(poses.keypoints, other.keypoints, atol=1e-4)
    assert (
        np.abs(poses.keypoints - Predictor(network, padding=1.25)(image, [(15, 15, 30, 30)]).keypoints).max()
        > 1
    )


def test_other_joints_than_the_description_s_can_be_given():
    network = create_model("hrnet_w8_small", input_size=(32, 32), num_joints=16, joints=MPII_JOINTS)
    renamed = replace(MPII_JOINTS, names=tuple(f"{name}_2" for name in MPII_JOINTS.names))
    assert Predictor(network, renamed).joints is renamed


@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16", "float16"])
def test_fused_layers_predict_the_same(precision, tmp_path):
    torch.manual_seed(0)
    network = create_model("hrnet_w8_small", input_size=(64, 64), num_joints=16, joints=MPII_JOINTS)
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
    save_model(network, tmp_path / "best.safetensors")
    image = picture_with_a_spot(160, 120)
    expected = Predictor.load(tmp_path)(image, [(80, 40, 160, 160)])
    poses = Predictor.load(tmp_path, precision=precision)(image, [(80, 40, 160, 160)])
    assert np.median(np.abs(poses.keypoints - expected.keypoints)) <= 1e-3
    assert np.abs(poses.scores - expected.scores).max() < (1e-4 if precision == "float32" else 0.1)


def test_a_precision_that_is_none_is_named(tmp_path):
    network = create_model("hrnet_w8_small", input_size=(32, 32), num_joints=16, joints=MPII_JOINTS)
    save_model(network, tmp_path / "best.safetensors")
    with pytest.raises(InputError, match="precision: expected one of None, 'auto'"):
        Predictor.load(tmp_path, precision="int8")
