"""`python -m bench --all`, or the names of some benchmarks."""

from __future__ import annotations

import argparse

from bench.harness.benchmark import load, names
from bench.harness.run import add_options, run


def main() -> None:
    """Run several benchmarks into one table and one file."""
    known = names()
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}")
    parser.add_argument("--all", action="store_true", help="every benchmark")
    add_options(parser)
    options = parser.parse_args()
    chosen = known if options.all else tuple(options.names)
    if not chosen or set(chosen) - set(known):
        parser.error(f"name some of {', '.join(known)}, or --all")
    run([load(name) for name in chosen], options)


if __name__ == "__main__":
    main()
