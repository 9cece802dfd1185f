"""How crops are made of larger regions, in words; what crops and descriptions of networks share."""

from typing import Literal

Resample = Literal["area", "linear"]

RESAMPLINGS = ("area", "linear")
DEFAULT_RESAMPLE: Resample = "area"
SMALLEST_CROP = 8  # pixels of a crop's height that show anything of a pose
