"""Comparisons of the package's ops with what people run today: `python -m bench --help` in a checkout."""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]

# python -m puts the working folder first, where the source folder cdkd_ext would hide the installed package
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != CHECKOUT]
