"""What a person wears: fabrics painted over a tube's faces, skin, hair, the cut of the clothes.

Colours are RGB in [0, 255].
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray

_SKIN_TONES = np.array(
    [
        (245, 214, 190), (232, 190, 160), (214, 164, 128), (188, 134, 98),
        (150, 101, 70), (110, 72, 50), (78, 52, 40),
    ],
    float,
)  # fmt: skip
_HAIR_TONES = np.array(
    [(28, 22, 20), (52, 36, 26), (86, 56, 34), (130, 88, 48), (196, 160, 98), (150, 66, 34), (170, 168, 164)],
    float,
)


@dataclass(frozen=True)
class Fabric:
    """A colouring of a tube by the angle around it and the distance along it."""

    pattern: str  # plain, hoops, pinstripes, checks, gradient, speckles
    first: Array
    second: Array
    period: float  # statures
    phase: float

    def paint(self, angle: Array, along: Array) -> Array:
        """Colours (R, S, 3) of faces at `angle` (S,) degrees from the front and `along` (R,) statures."""
        hoop = np.sin(2 * np.pi * (along[:, None] / self.period + self.phase)) > 0
        stripe = np.sin(np.deg2rad(angle)[None, :] * 6 + self.phase) > 0.2
        shape = (len(along), len(angle))
        if self.pattern == "hoops":
            mix = hoop.astype(float)
        elif self.pattern == "pinstripes":
            mix = stripe.astype(float)
        elif self.pattern == "checks":
            mix = 0.5 * hoop + 0.5 * stripe
        elif self.pattern == "gradient":
            mix = (0.5 + 0.5 * np.sin(np.pi * along / (8 * self.period) + 6 * self.phase))[:, None]
        elif self.pattern == "speckles":
            around = np.sin(1.7 * angle[None, :] + 900 * self.phase)
            mix = around * np.sin(along[:, None] * 400 + self.phase) > 0.4
        else:
            mix = np.zeros((1, 1))
        weight = np.broadcast_to(mix, shape)[..., None].astype(float)
        return self.first * (1 - weight) + self.second * weight


@dataclass(frozen=True)
class Garment:
    """A shirt or trousers: how many limb segments its sleeves or legs reach down, and how wide it is cut."""

    fabric: Fabric
    reach: float
    looseness: float


@dataclass(frozen=True)
class Outfit:
    """The looks of one person."""

    skin: Array
    hair: Array
    lips: Array
    shoes: Array
    shirt: Garment
    trousers: Garment
    belt: Array
    cap: Array
    accent: Array
    hem: float  # where shirt meets trousers, in trunk lengths above the hips
    hairstyle: str  # short, long, tail, bald, cap
    front: str  # what marks the chest: plain, zip, logo, neckline, open
    beard: bool


def random_colour(rng: np.random.Generator) -> Array:
    """A colour (3,): vivid, muted or grey."""
    kind = rng.random()
    saturation = rng.uniform(0.45, 0.95) if kind < 0.4 else rng.uniform(0.1, 0.45) if kind < 0.75 else 0.03
    return 255.0 * np.array(colorsys.hsv_to_rgb(rng.random(), saturation, rng.uniform(0.12, 0.97)))


def random_surroundings_colour(rng: np.random.Generator) -> Array:
    """A colour (3,) of places: mostly muted greens, blues, browns and greys."""
    if rng.random() < 0.2:
        return random_colour(rng)
    hue = rng.choice([0.07, 0.1, 0.25, 0.33, 0.57, 0.6]) + rng.normal(0, 0.03)
    return 255.0 * np.array(colorsys.hsv_to_rgb(hue % 1.0, rng.uniform(0.0, 0.5), rng.uniform(0.2, 0.95)))


def random_outfit(rng: np.random.Generator) -> Outfit:
    """Draw everything that a person wears."""
    tone = rng.uniform(0, len(_SKIN_TONES) - 1)
    skin = _between(_SKIN_TONES, tone) + rng.normal(0, 5, 3)
    # dark skin goes with dark or grey hair
    hair_choices = len(_HAIR_TONES) if tone < 3 else 2
    hair = _HAIR_TONES[rng.integers(hair_choices)] * rng.uniform(0.8, 1.15)
    shirt = _random_fabric(rng)
    trousers = _random_fabric(rng, plainness=0.75)
    if rng.random() < 0.12:  # overalls, sportswear, a suit
        trousers = shirt
    sleeve = float(rng.choice([0.08, 0.5, 0.65, 1.3, 2.0], p=[0.14, 0.27, 0.15, 0.08, 0.36]))
    leg = float(rng.choice([0.3, 0.7, 1.4, 2.0], p=[0.13, 0.2, 0.1, 0.57]))
    return Outfit(
        skin=skin,
        hair=hair,
        lips=skin * (0.80, 0.55, 0.55),
        shoes=random_colour(rng),
        shirt=Garment(shirt, sleeve, rng.uniform(0.02, 0.28)),
        trousers=Garment(trousers, leg, rng.uniform(0.02, 0.28)),
        belt=random_colour(rng) * 0.5,
        cap=random_colour(rng),
        accent=random_colour(rng),
        hem=rng.uniform(-0.16, 0.12),
        hairstyle=str(rng.choice(["short", "long", "tail", "bald", "cap"], p=[0.45, 0.18, 0.12, 0.09, 0.16])),
        front=str(rng.choice(["plain", "zip", "logo", "neckline", "open"], p=[0.2, 0.2, 0.25, 0.2, 0.15])),
        beard=bool(rng.random() < 0.15),
    )


def _random_fabric(rng: np.random.Generator, plainness: float = 0.4) -> Fabric:
    patterns = ["hoops", "pinstripes", "checks", "gradient", "speckles"]
    pattern = "plain" if rng.random() < plainness else str(rng.choice(patterns))
    first = random_colour(rng)
    second = random_colour(rng)
    if rng.random() < 0.5:  # tone in tone
        second = first * rng.uniform(0.45, 0.8) if first.mean() > 90 else first * 0.5 + 110
    return Fabric(pattern, first, second, rng.uniform(0.045, 0.1), rng.random())


def _between(table: Array, position: float) -> Array:
    """Linear interpolation between the rows of `table`."""
    row = min(int(position), len(table) - 2)
    return table[row] + (position - row) * (table[row + 1] - table[row])
