"""Outputs appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import tempfile

import numpy as np
import pytest

from cdkd_ext import files
from cdkd_ext.checkpoints import save_model
from cdkd_ext.errors import InputError
from cdkd_ext.files import (
    check_writable,
    content_digest,
    known_digest,
    new_folder,
    read_yaml,
    remove_leftovers,
    replacing,
    write_json,
)
from cdkd_ext.joints import COCO_JOINTS
from cdkd_ext.models import create_model


def test_a_file_appears_on_success_and_the_old_one_stays_on_failure(tmp_path):
    path = tmp_path / "folder" / "file.txt"
    with replacing(path) as temporary:
        assert temporary.suffix == ".txt" and not path.exists()
        temporary.write_text("first")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("second")
        raise RuntimeError
    assert path.read_text() == "first"
    assert os.listdir(path.parent) == ["file.txt"]


def test_a_folder_appears_on_success_only_and_is_never_merged(tmp_path):
    with pytest.raises(RuntimeError), new_folder(tmp_path / "data") as temporary:
        (temporary / "half").write_text("")
        raise RuntimeError
    assert os.listdir(tmp_path) == []
    with new_folder(tmp_path / "data") as temporary:
        (temporary / "whole").write_text("")
    with pytest.raises(InputError, match="data: expected a writable folder"), new_folder(tmp_path / "data"):
        pass
    assert os.listdir(tmp_path / "data") == ["whole"]


def test_outputs_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "file"):
            pass
        with new_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


def test_a_writer_that_replaces_the_file_does_not_decide_its_permissions(tmp_path):
    before = os.umask(0o022)
    try:
        with replacing(tmp_path / "weights.safetensors") as temporary:
            private = tmp_path / "private"
            private.touch(0o600)
            private.replace(temporary)
        save_model(
            create_model("hrnet_w8_small", input_size=(32, 32), num_joints=17, joints=COCO_JOINTS),
            tmp_path / "model.safetensors",
        )
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "weights.safetensors": 0o644,
        "model.safetensors": 0o644,
    }


@pytest.mark.parametrize("stem", ["n" * 251, "\u5c71" * 83 + "ab", "n" * 240])
def test_a_name_may_be_as_long_as_names_are(tmp_path, stem):
    path = tmp_path / f"{stem}.jpg"
    with replacing(path) as temporary:
        temporary.write_text("whole")
        assert temporary.suffix == ".jpg"
    assert path.read_text() == "whole"
    temporary.touch()  # as a killed process leaves it
    remove_leftovers(path)
    assert os.listdir(tmp_path) == [path.name]


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    left = [".state-0123abcd.pt", ".views-0123abcd"]
    stays = ["state.pt", ".state-0123abcd", ".state-0123abcd.txt", ".state-xyz.pt", ".other-0123abcd.pt"]
    for name in [*left, *stays]:
        (tmp_path / name).mkdir() if "views" in name else (tmp_path / name).touch()
    (tmp_path / left[1] / "half").touch()
    with new_folder(tmp_path / "views") as living:
        remove_leftovers(tmp_path / "state.pt", tmp_path / "views", tmp_path / "nowhere" / "file")
        assert living.is_dir()
    assert sorted(os.listdir(tmp_path)) == sorted([*stays, "views"])


def test_the_lock_of_a_folder_ends_with_its_process_though_forked_ones_go_on(tmp_path):
    with pytest.raises(RuntimeError), new_folder(tmp_path / "views") as folder:
        reading, writing = os.pipe()
        begun, begins = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(begins, b".")
            os.read(reading, 1)
            os._exit(0)
        os.read(begun, 1)
        (tmp_path / "kept").mkdir()
        folder.rename(tmp_path / "kept" / ".views-0123abcd")
        raise RuntimeError
    remove_leftovers(tmp_path / "kept" / "views")
    assert os.listdir(tmp_path / "kept") == []
    os.write(writing, b".")
    os.waitpid(child, 0)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_writer_that_fails_is_one_line_and_the_old_file_stays(tmp_path, number):
    path = tmp_path / "file.txt"
    path.write_text("first")
    message = f"file.txt: expected a disk that takes it, got {os.strerror(number)}"
    with pytest.raises(InputError, match=message), replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError(number, os.strerror(number))
    assert path.read_text() == "first" and os.listdir(tmp_path) == ["file.txt"]


def test_json_has_null_for_what_was_not_measured_and_refuses_infinity(tmp_path):
    path = tmp_path / "values.json"
    write_json({"a": [1.5, float("nan")], "b": {"c": (float("nan"), "x")}}, path)
    assert json.loads(path.read_text()) == {"a": [1.5, None], "b": {"c": [None, "x"]}}
    with pytest.raises(ValueError, match="Out of range"):
        write_json({"a": float("inf")}, path)
    assert json.loads(path.read_text())["a"] == [1.5, None]


def test_yaml_with_aliases_is_read(tmp_path):
    (tmp_path / "a.yaml").write_text("pairs: &pairs [[1, 2], [3, 4]]\nagain: *pairs\n")
    assert read_yaml(tmp_path / "a.yaml")["again"] == [[1, 2], [3, 4]]
    (tmp_path / "a.yaml").write_text("")
    assert read_yaml(tmp_path / "a.yaml") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "expected valid YAML"),
        ("a: 2001-99-99", "expected valid YAML, got month must be"),
        ("a: &a [*a]", "expected at most 100000 values, got inf values"),
        ("a: &a [1, 1]\nb: &b [*a, *a]\nc: " + "[" + "*b, " * 20000 + "]", "got 1.4e[+]05 values"),
    ],
)
def test_yaml_that_nobody_wrote(tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=rf"a\.yaml: .*{message}"):
        read_yaml(tmp_path / "a.yaml")


@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".PPM", ".mp4"])
@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 3_000_000])
def test_a_file_is_known_by_its_content(tmp_path, suffix, size):
    content = bytearray(np.random.default_rng(size).bytes(size))
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    first.write_bytes(content)
    second.write_bytes(content)
    os.utime(second, ns=(1, 1))
    assert content_digest(first) == content_digest(second)
    second.write_bytes(content + b"x")
    assert content_digest(first) != content_digest(second)
    if size:
        # without compression each byte may change alone
        places = [0, size - 1] + ([size // 3] if suffix in (".bmp", ".PPM") else [])
        for place in places:
            changed = bytearray(content)
            changed[place] ^= 1
            second.write_bytes(changed)
            assert content_digest(first) != content_digest(second)


def test_a_file_is_read_again_when_its_time_changes(tmp_path, monkeypatch):
    path, read = tmp_path / "a.jpg", []
    monkeypatch.setattr(files, "content_digest", lambda path: read.append(path) or content_digest(path))
    path.write_bytes(b"one")
    first = known_digest(path)
    assert first == known_digest(str(path)) == content_digest(path) and read == [path]
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert known_digest(path) == content_digest(path) != first and read == [path, path]
    with pytest.raises(FileNotFoundError):
        known_digest(tmp_path / "b.jpg")


def test_what_cannot_be_written_is_named_before_the_work(tmp_path):
    check_writable("output", tmp_path / "new/folder/file.json")
    (tmp_path / "file").write_text("")
    check_writable("output", tmp_path / "file")
    with pytest.raises(InputError, match="output: expected a file, got the folder"):
        check_writable("output", tmp_path)
    with pytest.raises(InputError, match=r"results: expected a file in a folder, got .*file is a file"):
        check_writable("results", tmp_path / "file/below/x.json")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_disk_that_takes_nothing_is_named_before_the_work(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(
        InputError, match=r"output: expected a file in a folder that can be written, got .*: Read-only"
    ):
        check_writable("output", tmp_path / "new/file.json")
