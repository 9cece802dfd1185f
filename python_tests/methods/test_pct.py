"""PCT: sizes to the unit, mixers, tokenizer and code book, the losses of both stages, decoding, and a training of both."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cdkd_ext.codecs import codec_for
from cdkd_ext.errors import InputError
from cdkd_ext.methods import LabelLossOptions
from cdkd_ext.methods.pct import (
    PCT,
    Mixer,
    PCTCodec,
    PCTLayout,
    PCTLoss,
    PCTOutput,
    Tokenizer,
    joint_features,
)
from cdkd_ext.models import (
    PoseNetwork,
    count_macs,
    count_parameters,
    create_model,
    normalize_images,
    paper_gflops,
)
from cdkd_ext.training import DistillationTask

SMALL = PCTLayout(
    tokens=8, codes=32, code_width=16, conv_width=16, conv_blocks=1, classifier_width=16, classifier_blocks=1,
    encoder_width=32, encoder_blocks=2, decoder_width=32, mixer_width=32,
)  # fmt: skip


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[..., PoseNetwork]:
    """Creates PCT networks of a small shape."""
    monkeypatch.setattr(PCT, "layout", SMALL)

    def make(joints: int = 3, side: int = 64) -> PoseNetwork:
        torch.manual_seed(0)
        return create_model("swin_v2_w16", input_size=(side, side), num_joints=joints, head="pct")

    return make


def small_tokenizer(joints: int = 3, channels: int = 5) -> Tokenizer:
    torch.manual_seed(0)
    return Tokenizer(SMALL, channels, (64, 64), joints).double()


@pytest.mark.parametrize(("side", "parameters"), [(32, 93_040_142), (64, 94_711_310), (256, 128_134_670)])
def test_published_sizes(side: int, parameters: int) -> None:
    with torch.device("meta"):
        network = create_model("swin_v2_base", input_size=(side, side), num_joints=17, head="pct")
    assert count_parameters(network) == parameters
    assert len(network.state_dict()) == 471 + 170
    expected = {
        "conv_trans.1.running_var": (256,), "conv_head.0.1.conv2.weight": (256, 256, 3, 3),
        "mixer_trans.ff.1.weight": (34 * 64,), "mixer_head.3.MLP_token.ff.3.weight": (34, 64),
        "mixer_head.0.MLP_channel.ff.0.weight": (256, 64), "mixer_norm_layer.ff.0.weight": (64, 64),
        "cls_pred_layer.weight": (2048, 64), "tokenizer.invisible_token": (1, 1, 512),
        "tokenizer.start_img_embed.weight": (256, 1024), "tokenizer.start_embed.weight": (256, 2),
        "tokenizer.encoder.3.layernorm2.bias": (512,), "tokenizer.encoder_layer_norm.weight": (512,),
        "tokenizer.token_mlp.weight": (34, 17), "tokenizer.feature_embed.weight": (512, 512),
        "tokenizer.codebook": (2048, 512), "tokenizer.ema_cluster_size": (2048,), "tokenizer.ema_w": (2048, 512),
        "tokenizer.decoder_token_mlp.weight": (17, 34), "tokenizer.decoder_start.weight": (32, 512),
        "tokenizer.decoder.0.MLP_channel.ff.0.weight": (64, 32), "tokenizer.recover_embed.weight": (2, 32),
    }  # fmt: skip
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert {name: shapes.get(name) for name in expected} == expected


@pytest.mark.parametrize(("side", "gflops"), [(32, 1.676286), (64, 2.300320)])
def test_the_rows_of_the_tables_count_the_backbone(side: int, gflops: float) -> None:
    with torch.device("meta"):
        network = create_model("swin_v2_base", input_size=(side, side), num_joints=17, head="pct")
    assert paper_gflops(network) == pytest.approx(gflops, abs=5e-7)
    assert count_macs(network) > 2.5 * 1e9


def test_a_mixer_by_its_formula() -> None:
    torch.manual_seed(0)
    mixer = Mixer(rows=3, width=4, row_width=5, hidden_width=6).double()
    x = torch.randn(2, 3, 4, dtype=torch.float64)

    def mlp(x: Tensor, part: Any) -> Tensor:
        first, last = part.ff[0], part.ff[3]
        return functional.gelu(x @ first.weight.T + first.bias) @ last.weight.T + last.bias

    y = mlp(mixer.layernorm1(x).transpose(1, 2), mixer.MLP_token).transpose(1, 2)
    expected = x + y + mlp(mixer.layernorm2(x + y), mixer.MLP_channel)
    torch.testing.assert_close(mixer(x), expected)


@torch.no_grad()
def test_the_head_by_its_formula(small: Callable[..., PoseNetwork]) -> None:
    network = small().double().eval()
    features = torch.randn(2, 128, 2, 2, dtype=torch.float64)
    output = network.spec.method.read(network, features)
    convolved = network.conv_head[0](network.conv_trans(features))
    cells = torch.cat([convolved[:, :, row, column] for row in (0, 1) for column in (0, 1)], 1)
    tokens = network.mixer_trans(cells).view(2, 8, 16)
    logits = network.cls_pred_layer(network.mixer_norm_layer(network.mixer_head(tokens)))
    torch.testing.assert_close(output.logits, logits)
    torch.testing.assert_close(output.token_scores, logits.max(-1).values)
    embedded = logits.softmax(-1) @ network.tokenizer.codebook
    torch.testing.assert_close(output.coordinates, network.tokenizer.decode(embedded))


def test_the_decoder_by_its_formula() -> None:
    tokenizer = small_tokenizer()
    embedded = torch.randn(2, 8, 16, dtype=torch.float64)
    mixed = torch.einsum("jt,btc->bjc", tokenizer.decoder_token_mlp.weight, embedded)
    mixed = mixed + tokenizer.decoder_token_mlp.bias[:, None]
    joints = tokenizer.decoder[0](tokenizer.decoder_start(mixed))
    expected = tokenizer.recover_embed(tokenizer.decoder_layer_norm(joints))
    torch.testing.assert_close(tokenizer.decode(embedded), expected)


def test_what_the_encoder_does_not_see_changes_nothing() -> None:
    tokenizer = small_tokenizer()
    keypoints = torch.rand(1, 3, 2, dtype=torch.float64) * 63
    guide = torch.randn(1, 3, 5, dtype=torch.float64)
    visible = torch.tensor([[True, False, True]])
    first = tokenizer.encode(keypoints, visible, guide).embedded
    keypoints[0, 1], guide[0, 1] = 1.0, 1.0
    torch.testing.assert_close(tokenizer.encode(keypoints, visible, guide).embedded, first)
    keypoints[0, 0] += 1.0
    assert not torch.allclose(tokenizer.encode(keypoints, visible, guide).embedded, first)


def test_the_nearest_code() -> None:
    tokenizer = small_tokenizer()
    embedded = torch.randn(2, 8, 16, dtype=torch.float64)
    distances = (embedded[:, :, None] - tokenizer.codebook).square().sum(-1)
    assert torch.equal(tokenizer.nearest(embedded), distances.argmin(-1))


def test_codes_move_to_the_mean_of_what_chose_them() -> None:
    tokenizer = small_tokenizer()
    embedded, codes = torch.randn(2, 8, 16, dtype=torch.float64), torch.randint(0, 32, (2, 8))
    sizes, sums = tokenizer.ema_cluster_size.clone(), tokenizer.ema_w.clone()
    for code in range(32):
        chosen = embedded[codes == code]
        sizes[code] = 0.9 * sizes[code] + 0.1 * len(chosen)
        sums[code] = 0.9 * sums[code] + 0.1 * chosen.sum(0)
    total = sizes.sum()
    sizes = (sizes + 1e-5) / (total + 32 * 1e-5) * total
    tokenizer.move_codes(embedded, codes)
    torch.testing.assert_close(tokenizer.ema_cluster_size, sizes)
    torch.testing.assert_close(tokenizer.codebook, sums / sizes[:, None])


@pytest.mark.parametrize("trained", [False, True])
def test_codes_stay_where_nobody_is_labelled(trained: bool) -> None:
    tokenizer, output, keypoints, weights = case()
    loss = PCTLoss(tokenizer, (64, 64), stage="tokenizer")
    if trained:
        loss(output, keypoints, weights)
    kept = {name: value.clone() for name, value in tokenizer.named_buffers()}
    for _ in range(3):
        loss(output, keypoints, 0 * weights)
        assert all(torch.equal(value, kept[name]) for name, value in tokenizer.named_buffers())
    loss(output, keypoints, weights)
    assert not torch.equal(tokenizer.codebook, kept["codebook"]) and tokenizer.codebook.isfinite().all()


def test_the_feature_at_a_joint() -> None:
    feature = torch.arange(16.0).view(1, 1, 4, 4)
    keypoints = torch.tensor([[[0.0, 0.0], [7.9, 24.1], [8.0, 40.0], [-99.0, 99.0]]])
    # cells of 16 pixels: the nearest of cell 0 are pixels up to 8
    found = joint_features(feature, keypoints, (64, 64))[0, :, 0]
    assert found.tolist() == [0, 0 + 4 * 2, 1 + 4 * 3, 0 + 4 * 3]


def smooth(distance: float, beta: float = 0.05) -> float:
    return 0.5 * distance**2 / beta if distance < beta else distance - 0.5 * beta


def plain_distance(recovered: Tensor, keypoints: Tensor, weights: Tensor) -> float:
    batch, joints = weights.shape
    total = 0.0
    for b in range(batch):
        for j in range(joints):
            for axis in (0, 1):
                if weights[b, j] > 0:
                    distance = abs(float(recovered[b, j, axis]) - float(keypoints[b, j, axis]))
                    total += float(weights[b, j]) * smooth(distance)
    return total / (2 * batch * joints)


def case(joints: int = 3) -> tuple[Tokenizer, PCTOutput, Tensor, Tensor]:
    tokenizer = small_tokenizer(joints)
    logits = torch.randn(2, 8, 32, dtype=torch.float64, requires_grad=True)
    guide = torch.randn(2, 5, 2, 2, dtype=torch.float64)
    output = PCTOutput(tokenizer.recover(logits), logits.amax(-1), logits, guide)
    keypoints = torch.rand(2, joints, 2, dtype=torch.float64) * 63
    weights = torch.tensor([[1.0, 0.5, 0.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    keypoints[0, 2] = math.nan
    return tokenizer, output, keypoints, weights


def test_the_tokenizers_loss_against_plain_loops() -> None:
    tokenizer, output, keypoints, weights = case()
    loss = PCTLoss(tokenizer, (64, 64), stage="tokenizer", scale=2.0).eval()
    guide = joint_features(output.guide, keypoints.nan_to_num(), (64, 64))
    embedded, codes = tokenizer.encode(keypoints.nan_to_num(), weights > 0, guide)
    nearest = tokenizer.codebook[codes]
    recovered = tokenizer.decode(nearest)
    apart = sum(
        (a - b) ** 2 for a, b in zip(embedded.flatten().tolist(), nearest.flatten().tolist(), strict=True)
    )
    expected = 2 * (plain_distance(recovered.detach(), keypoints, weights) + 15 * apart / embedded.numel())
    result = loss(output, keypoints, weights)
    assert float(result) == pytest.approx(expected, rel=1e-12)
    result.backward()
    # straight through the codes to the encoder; the classifier learns nothing
    assert tokenizer.start_embed.weight.grad.abs().sum() > 0
    assert output.logits.grad is None


def test_the_classifiers_loss_against_plain_loops() -> None:
    tokenizer, output, keypoints, weights = case()
    weights[1] = 0.0
    loss = PCTLoss(tokenizer, (64, 64), stage="classifier")
    guide = joint_features(output.guide, keypoints.nan_to_num(), (64, 64))
    codes = tokenizer.encode(keypoints.nan_to_num(), weights > 0, guide).codes
    entropy = 0.0
    for token in range(8):  # the second person has no label
        row = output.logits[0, token].tolist()
        entropy += math.log(sum(math.exp(value) for value in row)) - row[int(codes[0, token])]
    expected = entropy / 16 + plain_distance(output.coordinates.detach(), keypoints, weights)
    result = loss(output, keypoints, weights)
    assert float(result) == pytest.approx(expected, rel=1e-12)
    result.backward()
    assert output.logits.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in tokenizer.parameters())


def test_people_without_labels_teach_the_tokenizer_nothing() -> None:
    tokenizer, output, keypoints, weights = case()
    kept = {name: value.clone() for name, value in tokenizer.state_dict().items()}
    books = []
    for given in (keypoints, torch.cat([keypoints[:1], 5 * keypoints[1:]])):
        tokenizer.load_state_dict(kept)
        loss = PCTLoss(tokenizer, (64, 64), stage="tokenizer")
        loss(output, given, torch.cat([weights[:1], 0 * weights[1:]])).backward()
        books.append(tokenizer.codebook.clone())
    assert torch.equal(books[0], books[1]) and not torch.equal(books[0], kept["codebook"])
    tokenizer.zero_grad()
    nothing = loss(output, keypoints, torch.zeros_like(weights))
    nothing.backward()
    assert nothing == 0
    assert all(value.grad is None or not value.grad.any() for value in tokenizer.parameters())


def test_a_share_of_the_joints_is_hidden_in_training_and_the_same_when_resumed() -> None:
    tokenizer, output, keypoints, weights = case()
    loss = PCTLoss(tokenizer, (64, 64), stage="tokenizer")
    kept = {name: value.clone() for name, value in tokenizer.state_dict().items()}
    values = []
    for progress in (0.25, 0.5, 0.25):
        tokenizer.load_state_dict(kept)
        values.append(float(loss(output, keypoints, weights, progress)))
        assert not torch.equal(tokenizer.codebook, kept["codebook"])
    assert values[0] == values[2] != values[1]


def test_other_joints_are_hidden_in_each_step_of_who_gives_no_progress() -> None:
    tokenizer, output, keypoints, weights = case()
    kept = {name: value.clone() for name, value in tokenizer.state_dict().items()}

    def values(*progress: float) -> list[float]:
        loss, found = PCTLoss(tokenizer, (64, 64), stage="tokenizer"), []
        for place in progress:
            tokenizer.load_state_dict(kept)
            found.append(loss(output, keypoints, weights, place).item())
        return found

    default = values(*[0.0] * 6)
    assert len(set(default)) > 2
    # a training that is resumed knows no earlier steps
    assert values(*[0.0] * 6, 0.5)[-1] == values(0.5)[0]


@pytest.mark.parametrize("stage", ["both", "tokenizer", "classifier"])
def test_what_a_stage_trains(small: Callable[..., PoseNetwork], stage: str) -> None:
    network = small()
    for frozen in (True, False):
        network.spec.method.label_loss(network, LabelLossOptions(stage=stage, frozen_backbone=frozen))  # type: ignore[arg-type]
        trained = {name.split(".")[0] for name, value in network.named_parameters() if value.requires_grad}
        assert ("patch_embed" in trained) is not frozen
        assert ("tokenizer" in trained) is (stage != "classifier")
        assert ("cls_pred_layer" in trained) is (stage != "tokenizer")


@pytest.mark.parametrize("begun", ["by train()", "at once"])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_backbone_keeps_its_statistics(frozen: bool, begun: str) -> None:
    network = create_model("hrnet_w8_small", input_size=(32, 32), num_joints=5, head="pct")
    label_loss = network.spec.method.label_loss(
        network, LabelLossOptions(stage="tokenizer", frozen_backbone=frozen)
    )
    task = DistillationTask(network, label_loss=label_loss)
    if begun == "by train()":
        task.train()
    before = {name: value.clone() for name, value in network.named_buffers()}
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    task(images, None, torch.rand(4, 5, 2) * 31, torch.ones(4, 5))
    changed = {
        name.split(".")[0] for name, value in network.named_buffers() if not torch.equal(value, before[name])
    }
    assert ("bn1" in changed) is not frozen and "tokenizer" in changed
    assert network.bn1.training is not frozen and network.tokenizer.training
    assert not any(module.training for module in network.eval().modules())


def test_one_training_of_both_stages(small: Callable[..., PoseNetwork]) -> None:
    network = small()
    task = DistillationTask(network)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    for progress, learns, rests in (
        (0.2, "tokenizer.", "cls_pred_layer."),
        (0.5, "cls_pred_layer.", "tokenizer."),
    ):
        task.zero_grad()
        task(images, None, torch.rand(2, 3, 2) * 63, torch.ones(2, 3), progress=progress)["total"].backward()
        grads = {name: value.grad for name, value in network.named_parameters()}
        assert any(name.startswith(learns) and grad is not None for name, grad in grads.items())
        assert all(grad is None for name, grad in grads.items() if name.startswith(rests))


def test_decoding_and_its_flip_test() -> None:
    torch.manual_seed(0)
    codec, swap = PCTCodec((64, 64)), torch.tensor([1, 0, 2])
    coordinates = torch.randint(0, 64, (2, 3, 2)).double()
    output = PCTOutput(coordinates, torch.rand(2, 6).double(), torch.zeros(2, 6, 4), torch.zeros(2, 1, 2, 2))
    moved = torch.tensor([[[0.0, 2.0, 3.0], [1.0, 0.0, 4.0]]]).expand(2, 2, 3)
    keypoints, scores = codec.decode(output, to_image=moved)
    expected = torch.stack([2 * coordinates[..., 1] + 3, coordinates[..., 0] + 4], -1)
    assert torch.equal(keypoints, expected)
    torch.testing.assert_close(scores, output.token_scores.mean(1, keepdim=True).expand(2, 3))
    back = torch.stack([63 - coordinates[..., 0], coordinates[..., 1]], -1)[:, swap]
    averaged = codec.decode(output, flipped=(output._replace(coordinates=back), swap), to_image=moved)
    assert torch.equal(averaged[0], keypoints) and torch.equal(averaged[1], scores)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_outputs_are_decoded_in_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    codec, swap = PCTCodec((64, 64)), torch.tensor([1, 0, 2])
    moved = torch.tensor([[[1.3, 0.0, 1500.3], [0.0, 1.3, 1000.7]]]).expand(2, 2, 3)
    outputs = [
        PCTOutput(63 * torch.rand(2, 3, 2), torch.randn(2, 6), torch.zeros(2, 6, 4), torch.zeros(2, 1, 2, 2))
        for _ in range(2)
    ]
    narrow = [PCTOutput(*(value.to(dtype) for value in output)) for output in outputs]
    wide = [PCTOutput(*(value.float() for value in output)) for output in narrow]
    found = codec.decode(narrow[0], flipped=(narrow[1], swap), to_image=moved)
    expected = codec.decode(wide[0], flipped=(wide[1], swap), to_image=moved)
    for value, wanted in zip(found, expected, strict=True):
        assert value.dtype == torch.float32 and torch.equal(value, wanted)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ([0, 0, 0], r"a permutation of 0 to 2, got \[0, 0, 0\]"),
        ([0, 1, 9], r"a permutation of 0 to 2, got \[0, 1, 9\]"),
        ([0], r"shape \(3,\), got \(1,\)"),
    ],
)
def test_a_flip_test_needs_a_permutation(order: list[int], expected: str) -> None:
    output = PCTOutput(torch.rand(2, 3, 2), torch.rand(2, 6), torch.zeros(2, 6, 4), torch.zeros(2, 1, 2, 2))
    with pytest.raises(InputError, match=r"flipped\[1\]: expected " + expected):
        PCTCodec((64, 64)).decode(output, flipped=(output, torch.tensor(order)))


def test_finer_maps_are_averaged(small: Callable[..., PoseNetwork]) -> None:
    network = create_model("hrnet_w8_small", input_size=(64, 64), num_joints=3, head="pct").eval()
    assert network(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).coordinates.shape == (1, 3, 2)
    assert network.mixer_trans.ff[0].in_features == 4 * SMALL.conv_width
    assert codec_for(network.spec) == PCTCodec((64, 64))


def test_refusals(small: Callable[..., PoseNetwork]) -> None:
    with pytest.raises(InputError, match=r"input_size: expected a square: PCT .*, got \(64, 32\)"):
        create_model("swin_v2_base", input_size=(64, 32), num_joints=17, head="pct")
    tokenizer = small_tokenizer()
    for change in ({"stage": "third"}, {"commitment": -1.0}, {"beta": 0.0}, {"scale": 0.0}):
        with pytest.raises(InputError, match=next(iter(change))):
            PCTLoss(tokenizer, (64, 64), **change)  # type: ignore[arg-type]
    loss = PCTLoss(tokenizer, (32, 32))
    with pytest.raises(InputError, match=r"label_loss.input_size: expected the student's \(64, 64\)"):
        loss.check_student(small().spec)


@pytest.mark.long
def test_both_stages_learn(small: Callable[..., PoseNetwork], crops_of: Callable[..., Any]) -> None:
    """The tokenizer learns to recover poses, then the classifier to find them in what a frozen backbone sees."""
    images, keypoints, annotated = (part[:8] for part in crops_of((64, 64)))
    network = small(keypoints.shape[1])
    method = network.spec.method
    with torch.no_grad():
        features = network.features(normalize_images(images))
    for stage, rate, steps in (("tokenizer", 1e-2, 600), ("classifier", 5e-3, 300)):
        loss = method.label_loss(network, LabelLossOptions(stage=stage))  # type: ignore[arg-type]
        optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], rate)
        losses = []
        for step in range(steps):
            total = loss(method.read(network, features), keypoints, annotated, step / steps)
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            losses.append(total.item())
        # what the classifier can reach hangs on the tokenizer: cut short at 250 steps, rounding decides
        assert losses[-1] < 0.3 * losses[0], stage
    with torch.no_grad():
        found = network.eval()(images).coordinates
    middle = (keypoints * annotated[..., None]).sum(0) / annotated.sum(0)[:, None]
    errors = [((points - keypoints).norm(dim=-1) * annotated).sum() for points in (found, middle)]
    assert errors[0] < 0.75 * errors[1]
