"""Stored fields: whole, or refused by their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cdkd_ext.data.cached_views import STUDENT_FIELDS, FixedViews, StoredArrays
from cdkd_ext.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in STUDENT_FIELDS:
        np.save(tmp_path / f"{name}.npy", np.arange(6 * 4, dtype=np.float32).reshape(3, 2, 4))
    return tmp_path


def test_fields_are_read_by_person_and_view(folder: Path) -> None:
    read = StoredArrays(folder, STUDENT_FIELDS).read([(2, 1), (0, 0)])
    assert {*read} == {*STUDENT_FIELDS}
    assert read["image"].tolist() == [[20, 21, 22, 23], [0, 1, 2, 3]]


@pytest.mark.parametrize("kept", [0, 40, -4])
def test_a_cut_file_is_named(folder: Path, kept: int) -> None:
    file = folder / "image.npy"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(
        InputError, match=rf"image\.npy: expected a whole store; delete {folder} and run the same"
    ):
        FixedViews(folder)


def test_missing_and_differing_fields_are_named(folder: Path) -> None:
    np.save(folder / "labelled.npy", np.zeros((2, 2)))
    with pytest.raises(
        InputError, match=r"expected a whole store.*got people and views \[\(2, 2\), \(3, 2\)\]"
    ):
        FixedViews(folder)
    (folder / "labelled.npy").unlink()
    with pytest.raises(InputError, match=r"expected a whole store.*got no labelled"):
        FixedViews(folder)
    with pytest.raises(InputError, match=r"expected a whole store.*got no arrays"):
        StoredArrays(folder / "nowhere")
