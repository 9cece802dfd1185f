from __future__ import annotations

import re
import subprocess
import sys
from xml.etree import ElementTree


def test_the_pictures_are_what_the_script_draws(checkout, tmp_path):
    subprocess.run([sys.executable, str(checkout / "docs" / "draw"), str(tmp_path)], check=True)
    drawn = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert drawn == {path.name: path.read_text() for path in (checkout / "docs" / "images").glob("*.svg")}
    for name, text in drawn.items():
        root = ElementTree.fromstring(text)
        assert root.find("{http://www.w3.org/2000/svg}title").text, name


def test_the_drawn_results_are_those_of_the_page(checkout):
    page = (checkout / "docs" / "results.md").read_text()
    source = (checkout / "docs" / "draw" / "results.py").read_text()
    numbers = re.findall(r"\d\d\.\d\d", source.partition("_ROWS")[2].partition("_LEFT")[0])
    assert len(numbers) == 14
    for number in numbers:
        assert number in page


def test_the_drawn_costs_are_those_of_the_page(checkout):
    page = (checkout / "docs" / "results.md").read_text()
    source = (checkout / "docs" / "draw" / "costs.py").read_text()
    found = re.findall(r"_Network\(\"[^\"]+\", (\d+), (\d\d\.\d)", source)
    assert len(found) == 14
    for macs, accuracy in found:
        assert f"{int(macs):,} M" in page and accuracy in page


def test_the_drawn_layers_are_the_packages(checkout):
    drawn = re.findall(r'\("(\w+)", "', (checkout / "docs" / "draw" / "layers.py").read_text())
    packages = {path.parent.name for path in (checkout / "cdkd_ext").glob("*/__init__.py")}
    assert sorted(drawn) == sorted([*packages, "csrc"])
