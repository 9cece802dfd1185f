"""Shards: what comes back, who writes what, and what is said of a folder that is not whole."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import threading

import numpy as np
import pytest

from cdkd_ext.data import shard_writing
from cdkd_ext.data.shard_writing import write_shards
from cdkd_ext.data.shards import Manifest, Shards, shard_path
from cdkd_ext.errors import InputError

MANIFEST = Manifest.of({"teacher": "a", "size": (64, 48)}, rows=25, shard_rows=10)


def text(row):
    return f"{row} ".encode() * (row % 4)


def rows(start, stop):
    """Chunks of four rows of every kind of column."""
    for first in range(start, stop, 4):
        index = np.arange(first, min(first + 4, stop))
        yield {
            "square": index**2,
            "image": text_list(index),
            "matrix": np.stack([index, index + 0.5], 1).astype(np.float16),
            "code": (index % 256).astype(np.uint8),
            "name": [str(row).encode() for row in index],
        }


def text_list(index):
    return [text(row) for row in index]


def assert_rows(read, wanted):
    assert set(read) == {"square", "image", "matrix", "code", "name"}
    assert read["square"].tolist() == [row**2 for row in wanted]
    assert read["matrix"].dtype == np.float16
    assert read["matrix"].tolist() == [[row, row + 0.5] for row in wanted]
    assert read["code"].tolist() == list(wanted)
    assert read["image"] == text_list(wanted)
    assert read["name"] == [str(row).encode() for row in wanted]


@pytest.fixture
def folder(tmp_path):
    return write_shards(tmp_path / "rows", MANIFEST, rows)


def test_rows_come_back_in_the_order_asked_for(folder):
    shards = Shards(folder, MANIFEST)
    assert len(shards) == 25
    for wanted in ([24, 0, 9, 10, 0], [], range(25)):
        assert_rows(shards.read(list(wanted)), wanted)
    assert sorted(path.name for path in folder.iterdir() if path.suffix == ".npy") == [
        "00000.npy",
        "00001.npy",
        "00002.npy",
    ]
    # what other programs read, too
    assert np.load(folder / "00002.npy")["square"].tolist() == [400, 441, 484, 529, 576]


@pytest.mark.parametrize("row", [-1, 25])
def test_a_row_that_is_not_there_is_named(folder, row):
    with pytest.raises(IndexError, match="rows: expected 0 to 24"):
        Shards(folder).read([3, row])


def test_there_are_at_most_as_many_shards_as_a_process_may_open():
    assert Manifest.of({}, 10_000_000).shards <= 512
    assert Manifest.of({}, 150_000).shards == 147
    assert Manifest.of({}, 1).shards == 1
    with pytest.raises(InputError, match="shard_rows: expected a positive number, got 0"):
        Manifest.of({}, 1, 0)


def test_a_fingerprint_depends_on_what_is_stored_and_not_on_how_it_is_split():
    same = Manifest.of({"size": [64, 48], "teacher": "a"}, 25, 7)
    assert same.fingerprint == MANIFEST.fingerprint
    for other in (Manifest.of({"teacher": "b", "size": (64, 48)}, 25), Manifest.of(MANIFEST.identity, 26)):
        assert other.fingerprint != MANIFEST.fingerprint


def test_whole_shards_are_kept_and_only_the_others_are_made(tmp_path):
    made = []

    def broken(start, stop):
        made.append(start)
        if start == 20:
            raise KeyboardInterrupt
        return rows(start, stop)

    with pytest.raises(KeyboardInterrupt):
        write_shards(tmp_path / "rows", MANIFEST, broken)
    assert not list((tmp_path / "rows").glob(".0*.npy"))
    with pytest.raises(InputError, match=r"00002\.npy: expected a whole shard; .*, got no such file"):
        Shards(tmp_path / "rows")

    def noted(start, stop):
        made.append(start)
        return rows(start, stop)

    for _ in range(2):
        write_shards(tmp_path / "rows", MANIFEST, noted)
    assert made == [0, 10, 20, 20]
    assert_rows(Shards(tmp_path / "rows", MANIFEST).read(range(25)), range(25))


def killed(folder, begun):
    def dies(start, stop):
        yield from rows(start, start + 4)
        if start == 10:
            begun.set()
            threading.Event().wait()
        yield from rows(start + 4, stop)

    write_shards(folder, MANIFEST, dies)


@pytest.fixture
def writer_at_shard_1(tmp_path):
    """Another process that has written shard 0 and half of shard 1, and waits."""
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    process = context.Process(target=killed, args=(tmp_path / "rows", begun), daemon=True)
    process.start()
    assert begun.wait(60)
    yield process
    process.kill()
    process.join()


def test_what_a_killed_writer_had_begun_is_made_again(tmp_path, writer_at_shard_1):
    remains = list((tmp_path / "rows").glob(".00001-*.npy"))
    assert len(remains) == 1
    os.kill(writer_at_shard_1.pid, signal.SIGKILL)
    writer_at_shard_1.join()
    made = []

    def noted(start, stop):
        made.append(start)
        return rows(start, stop)

    write_shards(tmp_path / "rows", MANIFEST, noted)
    assert made == [10, 20]
    assert not remains[0].exists()
    assert_rows(Shards(tmp_path / "rows").read(range(25)), range(25))


def test_a_second_writer_takes_what_the_first_is_not_at(tmp_path, writer_at_shard_1):
    """And waits for the rest: here until the first one dies."""
    made = []

    def noted(start, stop):
        made.append(start)
        if start == 20:
            writer_at_shard_1.kill()
        return rows(start, stop)

    write_shards(tmp_path / "rows", MANIFEST, noted)
    assert made == [20, 10]
    assert_rows(Shards(tmp_path / "rows").read(range(25)), range(25))


def count_in(folder, made, manifest):
    def noted(start, stop):
        made.put(start)
        return rows(start, stop)

    write_shards(folder, manifest, noted)
    made.put(None)


def test_no_shard_is_made_twice(tmp_path):
    """Whatever split the writers think of: the first one's holds."""
    context = multiprocessing.get_context("fork")
    made = context.Queue()
    processes = [
        context.Process(
            target=count_in, args=(tmp_path / "rows", made, Manifest.of(MANIFEST.identity, 25, size))
        )
        for size in (2, 2, 3)
    ]
    for process in processes:
        process.start()
    starts, ends = [], 0
    while ends < 3:
        start = made.get(timeout=60)
        ends += start is None
        starts += [] if start is None else [start]
    for process in processes:
        process.join()
    assert len(starts) == len(set(starts)) == Shards(tmp_path / "rows").manifest.shards
    assert_rows(Shards(tmp_path / "rows", MANIFEST).read(range(25)), range(25))


def test_a_full_disk_is_one_line_and_leaves_whole_shards(tmp_path, monkeypatch):
    calls = []

    def fsync(number):
        calls.append(number)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shard_writing.os, "fsync", fsync)
    with pytest.raises(
        InputError, match=r"rows: expected room on the disk; whole shards are kept, .*, got No space"
    ) as found:
        write_shards(tmp_path / "rows", MANIFEST, rows)
    assert "\n" not in str(found.value)
    left = sorted(path.name for path in (tmp_path / "rows").glob("*.npy"))
    assert left == ["00000.npy"] and not list((tmp_path / "rows").glob(".0*-*"))
    write_shards(tmp_path / "rows", MANIFEST, rows)
    assert_rows(Shards(tmp_path / "rows").read(range(25)), range(25))


@pytest.mark.parametrize("keep", [0, 9, 60, 128, 400, -1])
def test_a_truncated_shard_is_named(folder, keep):
    path = shard_path(folder, 1)
    content = path.read_bytes()
    path.write_bytes(content[:keep])
    expected = (
        r"00001\.npy: expected a whole shard; delete it and run the same command to make it again, got .+"
    )
    for open_it in (lambda: Shards(folder, MANIFEST), lambda: write_shards(folder, MANIFEST, rows)):
        with pytest.raises(InputError, match=expected) as found:
            open_it()
        assert "\n" not in str(found.value)
    path.unlink()
    write_shards(folder, MANIFEST, rows)
    assert path.read_bytes() == content


def test_every_changed_byte_behind_the_header_is_found(folder):
    path = shard_path(folder, 2)
    content = path.read_bytes()
    records = np.load(path)
    header = content.index(records.tobytes())
    for place in range(header, len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        with pytest.raises(InputError, match=r"00002\.npy: expected a whole shard"):
            Shards(folder).read(range(20, 25))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"identity": {"teacher": "b", "size": [64, 48]}},
            "manifest.json: teacher: expected a .*something else.*, got b",
        ),
        ({"identity": {"teacher": "a"}}, "manifest.json: size: expected .*, got None"),
        ({"rows": 24}, "manifest.json: rows: expected 25, got 24"),
        ({"format": 0}, "manifest.json: format: expected 1; delete .* and run the same command"),
        ({"rows": "many"}, "manifest.json: expected the manifest of stored rows; delete"),
        ({"identity": None}, "manifest.json: expected a folder's identity"),
    ],
)
def test_rows_of_something_else_are_refused(folder, change, message):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    for open_it in (lambda: Shards(folder, MANIFEST), lambda: write_shards(folder, MANIFEST, rows)):
        with pytest.raises(InputError, match=message):
            open_it()


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"format": 1}'])
def test_a_folder_without_a_manifest_is_named(folder, content):
    path = folder / "manifest.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(InputError, match=r"manifest\.json: expected the manifest of stored rows; delete"):
        Shards(folder)


def test_rows_that_do_not_come_are_missed(tmp_path):
    with pytest.raises(InputError, match=r"00000\.npy: rows: expected 10, got 9"):
        write_shards(tmp_path / "rows", MANIFEST, lambda start, stop: rows(start, stop - 1))
    assert not list((tmp_path / "rows").glob("*.npy"))
