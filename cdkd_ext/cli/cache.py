"""`cdkd cache`."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from jsonargparse import ArgumentParser

from cdkd_ext.cli.configured import parse_configuration
from cdkd_ext.cli.parsing import COMMANDS, plain_parser
from cdkd_ext.training import DistillationConfig, prepare_views
from cdkd_ext.training.build import cache_folder
from cdkd_ext.training.cache_plan import Rates, plan_cache, plan_text


def run(arguments: Sequence[str]) -> None:
    """Say what a cache will take, or fill it."""
    actions = {"plan": _plan, "build": _build}
    if arguments and arguments[0] in actions:
        actions[arguments[0]](arguments[1:])
        return
    parser = plain_parser("cache")
    parser.add_argument(
        "action",
        choices=list(actions),
        help="both take the options of `cdkd distill`; see `cdkd cache plan --help`",
    )
    parser.parse_args(list(arguments))


def _plan(arguments: Sequence[str]) -> None:
    parser = _parser("plan", "print bytes and hours of a cache, for COCO and for ten million crops")
    parser.add_class_arguments(Rates, "rates")
    config, options = parse_configuration(parser, DistillationConfig, arguments)
    print(plan_text(plan_cache(config, options.rates)))


def _build(arguments: Sequence[str]) -> None:
    parser = _parser(
        "build", "fill a cache; several of these may run at a time, and a killed one goes on where it was"
    )
    config, _ = parse_configuration(parser, DistillationConfig, arguments)
    logger = logging.getLogger("cdkd_ext.data.shard_writing")
    logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.INFO)
    people = len(prepare_views(config))
    print(f"{config.data.views} views of each of {people} people are stored in {cache_folder(config)}")


def _parser(action: str, purpose: str) -> ArgumentParser:
    example = COMMANDS["cache"].example.replace(" plan ", f" {action} ")
    return ArgumentParser(
        prog=f"cdkd cache {action}",
        description=f"{purpose[0].upper()}{purpose[1:]}.  Example: {example}",
        exit_on_error=False,
        allow_abbrev=False,
    )
