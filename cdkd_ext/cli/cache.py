"""`cdkd cache`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from jsonargparse import ArgumentParser

from cdkd_ext.cli.configured import parse_configuration
from cdkd_ext.cli.parsing import COMMANDS, plain_parser
from cdkd_ext.training import DistillationConfig, prepare_views
from cdkd_ext.training.build import cache_folder
from cdkd_ext.training.cache_check import check_cache
from cdkd_ext.training.cache_plan import CacheRates, plan_cache, plan_text


def run(arguments: Sequence[str]) -> None:
    """Say what a cache will take or lose, or fill it."""
    actions = {"plan": _plan, "build": _build, "check": _check}
    if arguments and arguments[0] in actions:
        actions[arguments[0]](arguments[1:])
        return
    parser = plain_parser("cache")
    parser.add_argument(
        "action",
        choices=list(actions),
        help="all take the options of `cdkd distill`; see `cdkd cache plan --help`",
    )
    parser.parse_args(list(arguments))


def _plan(arguments: Sequence[str]) -> None:
    parser = _parser("plan", "print bytes and hours of a cache, for COCO and for ten million crops")
    parser.add_class_arguments(CacheRates, "rates")
    config, options = parse_configuration(parser, DistillationConfig, arguments)
    print(plan_text(plan_cache(config, options.rates)))


def _build(arguments: Sequence[str]) -> None:
    parser = _parser(
        "build", "fill a cache; several of these may run at a time, and a killed one goes on where it was"
    )
    config, _ = parse_configuration(parser, DistillationConfig, arguments)
    with _progress_shown():
        people = len(prepare_views(config))
    print(f"{config.data.views} views of each of {people} people are stored in {cache_folder(config)}")


def _check(arguments: Sequence[str]) -> None:
    parser = _parser("check", "measure what is lost where a teacher's outputs are stored, dense or compact")
    parser.add_argument("--people", type=int, default=300, help="at most so many of those to validate on")
    config, options = parse_configuration(parser, DistillationConfig, arguments)
    print(check_cache(config, options.people))


@contextmanager
def _progress_shown() -> Iterator[None]:
    """Print a line for each shard that is written in the block."""
    logger, handler = logging.getLogger("cdkd_ext.data.shard_writing"), logging.StreamHandler()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _parser(action: str, purpose: str) -> ArgumentParser:
    example = COMMANDS["cache"].example.replace(" plan ", f" {action} ")
    return ArgumentParser(
        prog=f"cdkd cache {action}",
        description=f"{purpose[0].upper()}{purpose[1:]}.  Example: {example}",
        exit_on_error=False,
        allow_abbrev=False,
    )
