"""`cdkd adapt`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

from cdkd_ext.adaptation import AdaptationConfig, adapt
from cdkd_ext.cli.configured import check_filled, configured_parser, expand, gives_output, naming_stops, parse
from cdkd_ext.cli.memory import keep_freed_memory


def run(arguments: Sequence[str]) -> None:
    """Teach a network to see from afar.

    Raises:
        CommandError: the loss became infinite or NaN, Ctrl-C, or SIGTERM.
    """
    given = list(arguments)
    if given and not given[0].startswith("-"):
        given.insert(0, "--model")
    parser = configured_parser("adapt")
    parser.usage = "cdkd adapt MODEL [options]"
    parser.add_argument("--resume", type=str, help="folder of a run to go on with")
    parser.add_argument("--config", action="config", help="YAML file of the options below")
    parser.add_class_arguments(AdaptationConfig)
    options = parse(parser, expand(given))
    config = AdaptationConfig(**{field.name: options[field.name] for field in fields(AdaptationConfig)})
    check_filled(config)
    if options.resume and not gives_output(arguments):
        # not where the run says that it is: it may have been moved or copied
        config = replace(config, output=options.resume)
    keep_freed_memory()
    with naming_stops():
        adapt(config, resume=options.resume or False)
