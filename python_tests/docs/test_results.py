"""What is said in short about results is what the sections with measurements say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
SHORT = "In short"
NUMBER = re.compile(r"(?<![\d.,])[+−]?\d+\.\d+(?!\.?\d)")
INTERVAL = re.compile(r"\[[+−]?\d+\.\d+, [+−]?\d+\.\d+\]")


def sections(page: str) -> dict[str, str]:
    """Text by title, of a page's second level."""
    parts = re.split(r"^## (.+)\n", (CHECKOUT / page).read_text(), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def numbers(text: str) -> set[str]:
    """Numbers with a point, and whole intervals: a limit of one is no result."""
    return {*NUMBER.findall(INTERVAL.sub("", text)), *INTERVAL.findall(text)}


@pytest.fixture(scope="module")
def measured() -> set[str]:
    """The numbers of the sections with measurements, with and without their sign."""
    texts = [text for title, text in sections("docs/results.md").items() if title != SHORT]
    found = numbers("\n".join(texts))
    return found | {number.lstrip("+−") for number in found}


def summaries() -> list[tuple[str, str]]:
    """Rows of the tables that say results in short, and the README's sentence about differences."""
    short = sections("docs/results.md")[SHORT]
    readme = sections("README.md")["What it gives"]
    (sentence,) = re.findall(r"^What a teacher adds .+\n.+$", readme, re.M)
    sentence = re.sub(r"(\d\.\d) to (\d\.\d)", r"[+\1, +\2]", sentence)
    return [
        *(("docs/results.md", row) for row in rows(short) if numbers(row)),
        *(("README.md", row) for row in rows(readme) if numbers(row)),
        ("README.md", sentence),
    ]


@pytest.mark.parametrize(("page", "summary"), summaries())
def test_each_number_was_measured(page: str, summary: str, measured: set[str]) -> None:
    unknown = numbers(summary) - measured
    assert not unknown, f"{page}: {sorted(unknown)} in no section with measurements"


def test_there_is_something_to_check() -> None:
    assert {page for page, _ in summaries()} == {"docs/results.md", "README.md"}
    assert len(summaries()) > 18
    assert numbers("| **43.7** ¹ [41.7, 45.6] | −3.6, p = 0.009 | 1,220 M, 1.04 M |") == {
        "43.7", "[41.7, 45.6]", "−3.6", "0.009", "1.04",
    }  # fmt: skip
