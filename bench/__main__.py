"""`python -m bench --all`, or the names of some benchmarks."""

from __future__ import annotations

import argparse
import importlib

from bench.run import add_options, run

NAMES = ("cca_kl", "simcc_decode", "simcc_kl", "sau_select", "projector_cosine", "step")


def main() -> None:
    """Run several benchmarks into one table and one file."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--all", action="store_true", help="every benchmark")
    add_options(parser)
    options = parser.parse_args()
    chosen = NAMES if options.all else tuple(options.names)
    if not chosen or set(chosen) - set(NAMES):
        parser.error(f"name some of {', '.join(NAMES)}, or --all")
    run([importlib.import_module(f"bench.{name}").BENCH for name in chosen], options)


if __name__ == "__main__":
    main()
