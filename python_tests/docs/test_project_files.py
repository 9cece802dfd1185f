"""The files that people and services around the project read."""

from __future__ import annotations

import re

import pytest
import yaml


@pytest.fixture(scope="module")
def project(checkout):
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")
    return tomllib.loads((checkout / "pyproject.toml").read_text())


def load(path):
    return yaml.safe_load(path.read_text())


def test_citation(checkout, project):
    citation = load(checkout / "CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == project["project"]["version"]
    assert citation["license"] == project["project"]["license"]
    (paper,) = citation["references"]
    assert paper["authors"][0]["family-names"] == "Gu"


def test_changelog_has_the_version(checkout, project):
    text = (checkout / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## \[?([^\]\n ]+)", text, re.M)
    assert headings[0] == "Unreleased"
    assert project["project"]["version"] in headings


def test_workflows_run_what_exists_and_the_supported_pythons(checkout, project):
    targets = set(re.findall(r"^(\w+):", (checkout / "Makefile").read_text(), re.M))
    for path in (checkout / ".github" / "workflows").glob("*.yml"):
        workflow = load(path)
        assert True in workflow, "`on` is a boolean to YAML"
        for job in workflow["jobs"].values():
            commands = [step["run"] for step in job["steps"] if "run" in step]
            for command in commands:
                assert set(re.findall(r"^make (\w+)", command)) <= targets
    matrix = load(checkout / ".github" / "workflows" / "test.yml")["jobs"]["test"]["strategy"]["matrix"]
    prefix = "Programming Language :: Python :: 3."
    classified = [name.removeprefix(prefix) for name in project["project"]["classifiers"] if prefix in name]
    assert matrix["python"] == [f"3.{minor}" for minor in classified]
    assert project["project"]["requires-python"] == f">={matrix['python'][0]}"
    oldest = re.search(r"torch>=([\d.]+)", " ".join(project["project"]["dependencies"]))[1]
    assert f"torch=={oldest}.*" in matrix["torch"]
    built = project["tool"]["cibuildwheel"]["build"].split()
    assert built == [f"cp3{minor}-*" for minor in classified]


def test_the_hooks_run_the_linters_of_make_lint(checkout):
    (repository,) = load(checkout / ".pre-commit-config.yaml")["repos"]
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (checkout / "Makefile").read_text(), re.M)[1]
    linted = [line.split("/", 1)[1].split(" $$")[0] for line in recipe.splitlines()]
    hooks = [hook["entry"].removeprefix(".venv/bin/") for hook in repository["hooks"]]
    assert [line.removesuffix(" .") for line in linted] == hooks


def test_issue_forms(checkout):
    for path in (checkout / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = load(path)
        if path.name != "config.yml":
            assert {"name", "description", "body"} <= set(form)
            names = [part["id"] for part in form["body"]]
            assert len(set(names)) == len(names)
