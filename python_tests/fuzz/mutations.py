"""Damage to files, from a seed."""

from __future__ import annotations

import random

_NUMBERS = tuple(
    value.to_bytes(size, order)
    for size in (1, 2, 4, 8)
    for order in ("little", "big")
    for value in (0, 1, (1 << 8 * size - 1) - 1, 1 << 8 * size - 1, (1 << 8 * size) - 1)
)
# what a writer of text could have put where something else belongs
_WORDS = (
    b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-1", b"0", b"[]", b"{}", b'"x"', b'""', b"9" * 400, b"1e-400",
    b"[[[]]]", b"[" * 3000, b'{"a":' * 3000, b"\xff\xfe", b"\x00", b"'", b"\n", b": ", b"- ", b"!!python/object:os.system ",
    b"!!int x", b"!!timestamp x", b"2001-99-99", b"&a [*a]", b"*a", b"? ", b"\t", b"1:2:3", b"!!binary x",
    b"[1000000, 32]", b"1000000000000", b'"\\ud800"', b"..", b"~", b".inf",
)  # fmt: skip


def mutate(content: bytes, rng: random.Random, *, text: bool) -> bytes:
    """Return the content with one to four kinds of damage.

    Args:
        content: an intact file's.
        rng: decides.
        text: whether words as well as bytes are replaced.
    """
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        _damage(damaged, rng, text and rng.random() < 0.7)
    return bytes(damaged)


def _damage(content: bytearray, rng: random.Random, text: bool) -> None:
    # headers are near the beginning, and there damage matters most
    reach = len(content) if rng.random() < 0.5 else min(len(content), 600)
    at = rng.randrange(reach + 1)
    length = rng.choice((1, 2, 4, 8, rng.randint(1, 64), rng.randint(1, max(1, len(content)))))
    if text:
        _replace_token(content, at, rng)
        return
    kind = rng.choice(("flip", "flip", "number", "number", "cut", "remove", "repeat", "noise", "swap"))
    if kind == "flip" and at < len(content):
        content[at] ^= 1 << rng.randrange(8)
    elif kind == "number":
        number = rng.choice(_NUMBERS)
        content[at : at + len(number)] = number
    elif kind == "cut":
        del content[at:]
    elif kind == "remove":
        del content[at : at + length]
    elif kind == "repeat":
        content[at:at] = content[at : at + length]
    elif kind == "noise":
        content[at : at + min(length, 64)] = rng.randbytes(min(length, 64))
    else:
        source = rng.randrange(len(content) + 1)
        content[at : at + length] = content[source : source + length]


def _replace_token(content: bytearray, at: int, rng: random.Random) -> None:
    """Put a word in the place of what stands between two delimiters."""
    delimiters = b' ,:[]{}\n"'
    first = at
    while first > 0 and content[first - 1] not in delimiters:
        first -= 1
    last = at
    while last < len(content) and content[last] not in delimiters:
        last += 1
    content[first:last] = rng.choice(_WORDS)
