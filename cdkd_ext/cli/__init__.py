"""The command `cdkd`: finds the command, turns what goes wrong into one line and an exit status."""

from __future__ import annotations

import io
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import FrameType

from cdkd_ext.cli.parsing import COMMANDS, INTERRUPTED, PIPE_CLOSED, TERMINATED, CommandError, Parser
from cdkd_ext.errors import InputError, Terminated, one_line
from cdkd_ext.extras import missing_extra
from cdkd_ext.signals import drop_output


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0, 1 for a study with runs that failed, 2 for a mistake in the input or a missing extra, 3 for a loss that is not
        finite, 130 for Ctrl-C, 141 where nobody reads what is printed any more, 143 for SIGTERM.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    # names of files need not be text
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with _terminations_raised():
            _run(given)
            sys.stdout.flush()
    except BrokenPipeError:
        drop_output()
        return PIPE_CLOSED
    except CommandError as error:
        status, message = error.status, str(error)
    except InputError as error:
        status, message = 2, one_line(error)
    except ModuleNotFoundError as error:
        extra = {"predict": None, "adapt": "adapt"}.get(given[0], "train")
        sentence = missing_extra(error, f"`cdkd {given[0]}`", extra)
        if sentence is None:
            raise
        status, message = 2, sentence
    except Terminated:
        status, message = TERMINATED, "terminated"
    except KeyboardInterrupt:
        status, message = INTERRUPTED, "interrupted"
    else:
        return 0
    print(f"cdkd: {message}", file=sys.stderr)
    return status


@contextmanager
def _terminations_raised() -> Iterator[None]:
    """Let SIGTERM raise `Terminated` in the block, so that nothing is left half written; unless it is handled already."""
    handled = signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    if handled or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _run(arguments: list[str]) -> None:
    if arguments and arguments[0] in COMMANDS:
        # only now: the other commands may need packages that are not there
        import_module(f"cdkd_ext.cli.{arguments[0]}").run(arguments[1:])
        return
    from cdkd_ext import __version__

    parser = Parser(
        prog="cdkd",
        description="Low-resolution human pose estimation by cross-domain knowledge distillation.",
    )
    parser.add_argument("--version", action="version", version=f"cdkd-ext {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.purpose)
    parser.parse_args(arguments)
