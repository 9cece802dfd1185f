"""What the commands share and what needs no extra."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterable
from difflib import get_close_matches
from typing import NamedTuple, NoReturn

from cdkd_ext.errors import InputError

# a shell's statuses of what these signals end
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
PIPE_CLOSED = 128 + signal.SIGPIPE


class Command(NamedTuple):
    """A command's line in the help of `cdkd`, and its example.

    Attributes:
        purpose: what it does.
        example: a whole command line.
    """

    purpose: str
    example: str

    @property
    def description(self) -> str:
        """The head of the command's own help."""
        return f"{self.purpose[0].upper()}{self.purpose[1:]}.  Example: {self.example}"


# each is run by the module of its name
COMMANDS = {
    "demo": Command(
        "draw people, train students with few and many labels, alone and distilled, and write a report",
        "cdkd demo --output runs/demo",
    ),
    "train": Command(
        "train a teacher or a plain student",
        "cdkd train --recipe lsp_teacher --data.root lsp",
    ),
    "distill": Command(
        "train a student with a teacher",
        "cdkd distill --recipe lsp_student --data.root lsp --teacher runs/lsp_teacher",
    ),
    "adapt": Command(
        "teach a pose network of any origin to see people from afar",
        "cdkd adapt movenet.onnx --size 24-96 --data.images footage --data.detector yolo.onnx",
    ),
    "teacher": Command(
        "try a teacher that is not of this package on a few people",
        "cdkd teacher check movenet.onnx --data.root lsp --people 16",
    ),
    "cache": Command(
        "plan, build or check the store of a teacher's outputs that many students learn from",
        "cdkd cache plan --data.root coco --data.views 1 --teacher runs/teacher",
    ),
    "eval": Command(
        "measure PCKh or COCO average precision of a checkpoint or an ONNX file",
        "cdkd eval hrnet.pth --recipe coco_w48_64 --data.root coco --data.boxes boxes.json",
    ),
    "predict": Command(
        "predict poses in images, folders, videos, cameras and streams",
        "cdkd predict runs/student street.mp4 --detector detector.onnx --output predictions",
    ),
    "export": Command(
        "write a trained network as an ONNX file that takes crops and returns keypoints",
        "cdkd export runs/student --output student.onnx --precision int8",
    ),
    "study": Command(
        "train many students, side by side and resumable, and compare them with intervals",
        "cdkd study lsp --data.root lsp --teacher movenet_thunder.onnx --jobs 2",
    ),
    "report": Command(
        "write one HTML page about runs: what they see and say, how right they are, how they were trained",
        "cdkd report runs/student runs/alone --output report.html",
    ),
    "table": Command(
        "list a table of the paper, train what is missing of it, and print both side by side",
        "cdkd table 1 --scale small --data.root lsp --jobs 2",
    ),
    "models": Command(
        "list the networks with their parameters and costs",
        "cdkd models --input_size [256,192] --head heatmap",
    ),
    "info": Command("show the build, the devices and the registered operators", "cdkd info"),
    "convert": Command(
        "read a checkpoint of another code base, or write one for it",
        "cdkd convert pose_hrnet_w32_256x256.pth w32.safetensors --joints mpii --model.name hrnet_w32 "
        "--model.head heatmap --model.input_size [256,256]",
    ),
}


class CommandError(Exception):
    """What ends a command with one line and a status of its own.

    Args:
        message: the line.
        status: of the process.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are InputErrors."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of exiting."""
        raise InputError(with_suggestions(message, self._option_string_actions))

    def knows(self, option: str) -> bool:
        """Whether an option is one of the parser's."""
        return option in self._option_string_actions


def with_suggestions(message: str, options: Iterable[str]) -> str:
    """What a parser says of unknown arguments, with the options that look most like them."""
    if "unrecognized arguments" not in message.lower():
        return message
    unknown = [word.partition("=")[0] for word in message.split() if word.startswith("--")]
    return message + suggestion(unknown, options)


def suggestion(unknown: Iterable[str], options: Iterable[str]) -> str:
    """What to say behind unknown options: those that look most like them; nothing where none does."""
    known = list(options)
    found = [near for name in unknown for near in get_close_matches(name, known, 1)]
    return f"; perhaps {' and '.join(dict.fromkeys(found))} is meant" if found else ""


def plain_parser(name: str) -> Parser:
    """The parser of a command without configuration."""
    return Parser(prog=f"cdkd {name}", description=COMMANDS[name].description, allow_abbrev=False)
