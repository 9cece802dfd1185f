"""When a function is captured, when it is called plainly; the capture itself needs a GPU."""

from __future__ import annotations

import pytest
import torch

from cdkd_ext.captured import CapturedFunction
from cdkd_ext.models import create_model
from cdkd_ext.teachers import FrozenTeacher

needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


class Recorder:
    """A function and its capture, both of which note their calls."""

    def __init__(self, fails=False):
        self.calls, self.captures, self.fails = [], [], fails

    def function(self, x):
        self.calls.append(tuple(x.shape))
        return (2 * x,)

    def capture(self, function, example):
        self.captures.append(tuple(example.shape))
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        return lambda x: (2 * x,)

    def captured(self, **options):
        return CapturedFunction(self.function, capture=self.capture, on_gpu=lambda x: True, **options)


def test_a_shape_is_captured_when_it_comes_again():
    recorder = Recorder()
    call = recorder.captured()
    for _ in range(4):
        assert torch.equal(call(torch.ones(3))[0], torch.full((3,), 2.0))
    assert recorder.calls == [(3,)]
    assert recorder.captures == [(3,)]


def test_a_last_smaller_batch_costs_no_capture():
    recorder = Recorder()
    call = recorder.captured()
    for size in (4, 4, 1, 4):
        call(torch.ones(size))
    assert recorder.captures == [(4,)]
    assert recorder.calls == [(4,), (1,)]


def test_only_so_many_shapes_are_kept():
    recorder = Recorder()
    call = recorder.captured(most_shapes=1)
    for size in (4, 4, 2, 2, 2):
        call(torch.ones(size))
    assert recorder.captures == [(4,)]
    assert recorder.calls == [(4,), (2,), (2,), (2,)]


def test_another_memory_format_or_type_is_another_shape():
    recorder = Recorder()
    call = recorder.captured(most_shapes=9)
    images = torch.zeros(2, 3, 4, 4)
    for _ in range(2):
        for given in (images, images.contiguous(memory_format=torch.channels_last), images.double()):
            call(given)
    assert len(recorder.captures) == 3


def test_after_a_failed_capture_calls_are_plain(caplog):
    recorder = Recorder(fails=True)
    call = recorder.captured()
    for size in (4, 4, 4, 2, 2):
        assert torch.equal(call(torch.ones(size))[0], torch.full((size,), 2.0))
    assert recorder.captures == [(4,)]
    assert len(recorder.calls) == 5
    assert "no CUDA graph" in caplog.text


def test_nothing_is_captured_on_the_cpu():
    recorder = Recorder()
    call = CapturedFunction(recorder.function, capture=recorder.capture)
    for _ in range(3):
        call(torch.ones(3))
    assert recorder.captures == []


@pytest.fixture
def teacher_images():
    return torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)


def given(output):
    """The tensors of an output."""
    tensors = [value for value in output if value is not None]
    assert len(tensors) == 3
    return tensors


def gpu_teacher(precision):
    torch.manual_seed(0)
    network = create_model("hrnet_w8_small", input_size=(64, 64), num_joints=17).eval()
    return network, FrozenTeacher(network, "cuda", precision)


@pytest.mark.parametrize(
    "precision", [pytest.param(name, marks=needs_gpu) for name in ("float32", "bfloat16", "auto")]
)
def test_a_graph_computes_what_the_plain_call_does(precision, teacher_images):
    _, teacher = gpu_teacher(precision)
    images = teacher_images.cuda()
    plain = given(teacher(images))
    teacher(images)
    replayed = given(teacher(images))
    for value, expected in zip(replayed, plain, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-3)
    kept = [value.clone() for value in replayed]
    teacher(255 - images)
    for value, expected in zip(replayed, kept, strict=True):
        assert torch.equal(value, expected)


@pytest.mark.parametrize("_", [pytest.param(None, marks=needs_gpu)])
def test_a_replay_does_not_wait(_, teacher_images):
    _, teacher = gpu_teacher("auto")
    images = teacher_images.cuda()
    for _ in range(3):
        teacher(images)
    torch.cuda.set_sync_debug_mode("error")
    try:
        teacher(images)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    ("capability", "chosen"), [((9, 0), "bfloat16"), ((8, 0), "bfloat16"), ((7, 5), "float16")]
)
def test_auto_follows_the_gpu(monkeypatch, capability, chosen):
    from cdkd_ext.teachers import frozen

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert frozen.fast_precision(torch.device("cuda")) == chosen
