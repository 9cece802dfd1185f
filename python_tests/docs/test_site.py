"""The site builds without a warning, asks no other server for anything, and leaves no package out."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def site(checkout, tmp_path_factory):
    for name in ("mkdocs", "material", "mkdocstrings", "latex2mathml"):
        pytest.importorskip(name, reason="the documentation needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=checkout,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def pages(site):
    return {path.relative_to(site).as_posix(): path.read_text() for path in site.rglob("*.html")}


def test_nothing_comes_from_another_server(site):
    for name, page in pages(site).items():
        loaded = re.findall(
            r"<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=\"(https?:[^\"]*)\"", page
        )
        assert loaded == [], name
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?https?:", style.read_text()), style


def test_every_page_of_the_source_is_in_the_navigation(site, checkout):
    page = (site / "index.html").read_text()
    for source in (checkout / "docs").rglob("*.md"):
        name = source.relative_to(checkout / "docs").with_suffix("").as_posix()
        place = name.removesuffix("index")
        assert f'href="{place.rstrip("/") + "/" if place else "."}"' in page, name


def test_every_public_package_has_its_reference(site, checkout):
    internal = {"emulation", "cli"}
    for package in (checkout / "cdkd_ext").glob("*/__init__.py"):
        name = package.parent.name
        if name not in internal:
            assert (site / "api" / name / "index.html").is_file(), name


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("api/ops", 'id="cdkd_ext.ops.cca_kl.cca_kl"'),
        ("api/training", 'id="cdkd_ext.training.task.DistillationTask"'),
        ("method", "<math"),
        ("method", "cdkd_ext/ops/reference.py"),
    ],
)
def test_what_the_build_adds_is_there(site, page, expected):
    assert expected in (site / page / "index.html").read_text()


def test_no_marker_is_left(site):
    for name, page in pages(site).items():
        assert not re.search(r"<!-- (?:source|package):|^\$\$$", page, re.M), name
