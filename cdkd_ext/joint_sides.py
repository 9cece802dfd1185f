"""Which joints mirror each other, told by the sides in their names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from cdkd_ext.errors import check, fail

_TOKEN = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|[^A-Za-z\d]+")
# "lefteye" is one token; "cleft" and "upright" have no side
_SIDE = re.compile(r"^(left|right|l$|r$)", re.IGNORECASE)
_OTHER_SIDE = {"left": "right", "right": "left", "l": "r", "r": "l"}
_FUSED_SIDE = re.compile(r"left|right|lft|rgt|^[lr]|[lr]$", re.IGNORECASE)
_FUSED_OTHER_SIDE = _OTHER_SIDE | {"lft": "rgt", "rgt": "lft"}
# joints that a body has on its axis, where a series of numbers has no sides
_AXIS = frozenset({
    "mid", "middle", "median", "center", "centre", "axis", "spine", "vertebra", "back", "neck", "tail", "trunk",
    "torso", "chest", "thorax", "head", "nose", "pelvis",
})  # fmt: skip
# one pair of names such as l_hand and r_hand can be anything, two are a scheme
_FEWEST_LOWERCASE_PAIRS = 2


def mirrored_joints(names: Sequence[str], source: str) -> tuple[int, ...]:
    """Return the flip permutation that names tell by their sides.

    A side is the word left or right at the beginning of a word of the name, or the letter L or R as such a word or
    before it, in any case: ``left_eye``, ``eye_left``, ``Left eye``, ``leftEye``, ``lefteye``, ``L_eye``, ``l_eye``,
    ``LEye``, ``eye.L`` and ``leye``; or the word anywhere, and the letter at the end, where the partner shows it. In the
    partner's name every side is the other one.

    Args:
        names: J unique names.
        source: the file and field that messages name.

    Returns:
        J indices, see `JointSet.flip_permutation`.

    Raises:
        InputError: a name with a side has no partner, no name has a side, or names with numbers in place of sides
            stand beside pairs.
    """
    permutation = list(range(len(names)))
    proven = lowercase = 0
    for j, name in enumerate(names):
        mirror = _mirrored_name(name) or _mirrored_fused(name, names)
        if mirror is None:
            continue
        partner = _index(mirror, names)
        if partner is None:
            fail(f"{source}.keypoints", f"{name} alone", f"{mirror} too, or flip_pairs")
        permutation[j] = partner
        if _is_lowercase_letter(name, mirror):
            lowercase += 1
        else:
            proven += 1
    # without a single pair the names follow another scheme, and a flip would silently swap sides
    check(
        proven or lowercase >= 2 * _FEWEST_LOWERCASE_PAIRS,
        f"{source}.flip_pairs",
        f"none for joints {', '.join(names)}",
        "pairs of mirrored joints ([] for none), or names with sides such as left_eye and right_eye",
    )
    _check_partners(permutation, names, source)
    _check_numbers(permutation, names, source)
    return tuple(permutation)


def split_side(name: str) -> tuple[str | None, str]:
    """Return "left", "right" or None, the first side that a joint's name has, and the name without it.

    A letter that is fused with the rest of a name, as in ``lwrist``, is no side by itself.
    """
    tokens = _TOKEN.findall(name)
    for i, side in _sides(tokens):
        rest = [*tokens[:i], tokens[i][len(side) :], *tokens[i + 1 :]]
        return ("left" if side[0].lower() == "l" else "right"), "".join(rest).strip(" _-.")
    return None, name


def kind_of(name: str) -> str:
    """What a joint is, without its side and as the field spells it: ``Left Hip`` is a ``hip``, ``Head-Top`` a ``head_top``."""
    return re.sub(r"[\s.-]+", "_", split_side(name)[1].strip().lower())


def _mirrored_name(name: str) -> str | None:
    """The name with the other sides, or None if it has none."""
    tokens = _TOKEN.findall(name)
    sides = list(_sides(tokens))
    for i, side in sides:
        tokens[i] = _in_case_of(side, _OTHER_SIDE[side.lower()]) + tokens[i][len(side) :]
    return "".join(tokens) if sides else None


def _sides(tokens: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The places of tokens with sides, and the sides as they are spelt."""
    for i, token in enumerate(tokens):
        side = _SIDE.match(token)
        # L5 is a vertebra
        numbered = len(token) == 1 and i + 1 < len(tokens) and tokens[i + 1].isdigit()
        if side and not numbered:
            yield i, side[0]


def _mirrored_fused(name: str, names: Sequence[str]) -> str | None:
    """The name with the other side in a word without a beginning of its own, if it is among the names.

    Such are ``wristleft``, ``lft_wrist`` and the letter of ``lwrist`` and ``wristl``: only the partner shows that
    they have a side.
    """
    for side in _FUSED_SIDE.finditer(name):
        other = _in_case_of(side[0], _FUSED_OTHER_SIDE[side[0].lower()])
        mirror = name[: side.start()] + other + name[side.end() :]
        if mirror in names:
            return mirror
    return None


def _is_lowercase_letter(name: str, mirror: str) -> bool:
    """Whether l and r are all that tells the two apart."""
    return len(name) == len(mirror) and all(a.islower() for a, b in zip(name, mirror, strict=True) if a != b)


def _in_case_of(model: str, word: str) -> str:
    if model.isupper():
        return word.upper()
    return word.capitalize() if model[0].isupper() else word


def _index(mirror: str, names: Sequence[str]) -> int | None:
    """The place of a name, or of the only one that differs in case and separators alone."""
    if mirror in names:
        return names.index(mirror)
    alike = [j for j, name in enumerate(names) if _plain(name) == _plain(mirror)]
    return alike[0] if len(alike) == 1 else None


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def _check_partners(permutation: Sequence[int], names: Sequence[str], source: str) -> None:
    for j, partner in enumerate(permutation):
        check(
            permutation[partner] == j,
            f"{source}.keypoints",
            f"{names[j]}, {names[partner]} and {names[permutation[partner]]}",
            "one partner per name with a side, or flip_pairs",
        )


def _check_numbers(permutation: Sequence[int], names: Sequence[str], source: str) -> None:
    """Fail where joints of one stem differ in a number and have no sides: half of them may mirror the other half."""
    stems: dict[str, list[str]] = {}
    for j, name in enumerate(names):
        words = [token.lower() for token in _TOKEN.findall(name)]
        if permutation[j] == j and any(map(str.isdigit, words)) and not _AXIS.intersection(words):
            stems.setdefault(re.sub(r"\d+", "#", name), []).append(name)
    for series in stems.values():
        if len(series) > 1:
            shown = f"{series[0]} to {series[-1]} without sides"
            fail(f"{source}.flip_pairs", shown, "pairs of mirrored joints where names tell no sides")
