"""`cdkd models`."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from collections.abc import Sequence
from dataclasses import asdict

from cdkd_ext.cli.parsing import plain_parser
from cdkd_ext.errors import check
from cdkd_ext.methods import list_heads
from cdkd_ext.models import describe_models, describe_published, format_profiles, profile_models

_HEAD = "the method; all lists every network with SimCC, and those that other methods were published or compared with"


def _numbers(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ArgumentTypeError(f"expected height and width, such as [64,64], got {text}") from error


def run(arguments: Sequence[str]) -> None:
    """List the networks with their parameters and costs."""
    parser = plain_parser("models")
    parser.add_argument("--input_size", type=_numbers, default=[64, 64], help="height and width: [64,64]")
    parser.add_argument("--num_joints", type=int, default=17, help="joints (default: 17)")
    parser.add_argument("--head", choices=[*list_heads(), "all"], default="simcc", help=_HEAD)
    parser.add_argument("--split_ratio", type=float, default=3.0, help="SimCC bins per pixel (default: 3)")
    parser.add_argument(
        "--channels_per_joint",
        type=int,
        default=32,
        help="SimCC feature maps per joint without upsampling (default: 32)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("names", nargs="*", help="which networks; all without")
    options = vars(parser.parse_args(list(arguments)))
    as_json, names = options.pop("json"), options.pop("names")
    if options["head"] == "all":
        check(not names, "names", " ".join(names), "none beside --head all")
        del options["head"]
        specs = describe_published(**options)
    else:
        specs = describe_models(names or None, **options)
    profiles = profile_models(specs)
    print(json.dumps(list(map(asdict, profiles)), indent=2) if as_json else format_profiles(profiles))
