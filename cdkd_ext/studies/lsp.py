"""The study of students for small crops: alone and with a teacher, at several sizes, at equal steps and equal time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from cdkd_ext.data import DataConfig
from cdkd_ext.errors import check, check_option, fail
from cdkd_ext.joints import JointSet
from cdkd_ext.models import count_macs, create_model, list_models
from cdkd_ext.studies.option_file import read_options
from cdkd_ext.studies.runs import REQUEST, LaterWords, StudyRun, run_history
from cdkd_ext.teachers.file import TeacherFile
from cdkd_ext.training.config import PRECISIONS, DistillationConfig, ModelConfig, TrainingConfig, check_seeds

SIZES = (32, 64)
_RECIPE = "lsp_student"
_QUARTER = 0.25
# of multiply-accumulates, forward and backward, to those of a forward pass
_TRAINING = 3
# what the study itself sets
_OWN = {
    "": ("teacher", "seed", "output", "epochs", "evaluate_every", "precision"),
    "model": ("name", "input_size"),
    "data": ("root", "cache", "views", "labelled_fraction", "mirror_views", "teacher_cache"),
}
# of students with a teacher, unless the file of options says otherwise
_TAUGHT = ("--teacher_options.flip", "true", "--teacher_options.threads", "1")
# of teachers that are no checkpoints: what they say of a person serves every view of every student
_ASKED_ONCE = ("--teacher_options.ask", "people")


class Row(NamedTuple):
    """A kind of student.

    Attributes:
        title: in words; ``{teacher}`` is the teacher's name.
        taught: whether it has a teacher.
        labelled: share of the people whose labels are used.
        longer: whether it trains for as long as the one with all labels and the teacher.
    """

    title: str
    taught: bool = False
    labelled: float = 1.0
    longer: bool = False


ROWS = {
    "alone": Row("labels"),
    "longer": Row("labels, for as long as with the teacher", longer=True),
    "taught": Row("labels + {teacher}", taught=True),
    "unlabelled": Row("{teacher}, no labels", taught=True, labelled=0.0),
    "quarter": Row("a quarter of the labels", labelled=_QUARTER),
    "quarter_taught": Row("a quarter of the labels + {teacher} on everybody", taught=True, labelled=_QUARTER),
}


class RowTitle(NamedTuple):
    """What the report calls a row.

    Attributes:
        kind: of students, in words.
        model: name of their network; empty where all are of one.
    """

    kind: str
    model: str = ""

    def __str__(self) -> str:
        return f"{self.model}: {self.kind}" if self.model else self.kind


class Comparison(NamedTuple):
    """Two rows whose difference the study is about.

    Attributes:
        title: what the difference tells.
        first: row of the plan.
        second: row that is to be better.
    """

    title: str
    first: str
    second: str


@dataclass(frozen=True)
class LspStudy:
    """The plan of `cdkd study lsp`.

    Args:
        root: folder of the data set, see `cdkd_ext.data.DataConfig`.
        train: annotations to train on, and `train_images` their images, within the root.
        train_images: see `train`.
        val: annotations to validate on, and `val_images` their images.
        val_images: see `val`.
        teachers: files of networks that teach: ONNX files, YAML files that describe one, or checkpoints. The first decides how
            long `longer` trains.
        rows: names among `ROWS`; empty are all.
        seeds: of the students.
        sizes: of their crops in pixels.
        models: names of the networks.
        epochs: of every student but `longer`; those without teacher on a part of the people have as many steps.
        views: stored views per person, each with its mirror image; 0 draws afresh in every epoch.
        precision: "no" (float32), or "bf16" on machines with instructions for it.
        options: YAML file of further options of `cdkd distill` for all students; those about the teacher and what is
            learnt from it concern students with a teacher alone. None has none.

    Raises:
        InputError: names the field.
    """

    root: str
    train: str = DataConfig.train or ""
    train_images: str = DataConfig.train_images
    val: str = DataConfig.val or ""
    val_images: str = DataConfig.val_images
    teachers: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    sizes: tuple[int, ...] = SIZES
    models: tuple[str, ...] = ("lowres_base",)
    epochs: int = 60
    views: int = 16
    precision: str = "no"
    options: str | None = None

    def __post_init__(self) -> None:
        for name in ("seeds", "sizes", "models"):
            values = getattr(self, name)
            unique = values and len(set(values)) == len(values)
            check(unique, name, list(values), "at least one, each once")
        check(self.epochs > 0, "epochs", self.epochs, "a positive number")
        check(self.views >= 0, "views", self.views, "zero or more")
        check_seeds("seeds", self.seeds)
        check_option("precision", self.precision, PRECISIONS)
        check(min(self.sizes) > 0, "sizes", min(self.sizes), "positive numbers of pixels")
        for model in self.models:
            check_option("models", model, list_models())
        for row in self.rows:
            check_option("rows", row, ROWS)
        for teacher in self.teachers:
            check(Path(teacher).exists(), "teacher", teacher, "an existing file")
        names = [name_of(teacher) for teacher in self.teachers]
        check(len(set(names)) == len(names), "teacher", ", ".join(names), "files of different names")
        taught = [row for row in self._rows() if ROWS[row].taught or ROWS[row].longer]
        expected = f"a file (--teacher FILE) for {', '.join(taught)}, or --rows without them"
        check(self.teachers or not taught, "teacher", "nothing", expected)
        if "longer" in self._rows():
            lacking = [row for row in ("alone", "taught") if row not in self._rows()]
            check(
                not lacking, "rows", f"longer without {', '.join(lacking)}", "alone and taught beside longer"
            )
        self._extra(taught=True)

    def data(self) -> DataConfig:
        """Where the people are."""
        names = ("root", "train", "train_images", "val", "val_images")
        return DataConfig(**{name: getattr(self, name) for name in names})

    def runs(self, people: int, joints: JointSet) -> list[StudyRun]:
        """All runs, in the order in which they start: seed by seed, the smaller crops first.

        Args:
            people: to train on, for the estimate of the work.
            joints: of the people, as well.
        """
        macs = {
            (model, size): count_macs(
                create_model(ModelConfig(name=model, input_size=(size, size)).spec(joints))
            )
            for model in self.models
            for size in self.sizes
        }
        return [
            self._run(model, size, row, teacher, seed, macs[model, size] * people)
            for seed in self.seeds
            for size in self.sizes
            for model in self.models
            # last those that wait for others
            for row, teacher in sorted(self._kinds(), key=lambda kind: ROWS[kind[0]].longer)
        ]

    def titles(self) -> dict[str, RowTitle]:
        """What the report calls each row of the plan."""
        several = len(self.models) > 1
        return {
            self._key(model, size, row, teacher): RowTitle(
                ROWS[row].title.format(teacher=teacher and name_of(teacher)), model if several else ""
            )
            for model in self.models
            for size in self.sizes
            for row, teacher in self._kinds()
        }

    def comparisons(self) -> list[Comparison]:
        """What is compared with what."""
        return [one for model in self.models for size in self.sizes for one in self._compared(model, size)]

    def _compared(self, model: str, size: int) -> Iterator[Comparison]:
        key = partial(self._key, model, size)
        for teacher in self.teachers:
            name = name_of(teacher)
            taught, quarter = key("taught", teacher), key("quarter_taught", teacher)
            yield Comparison(f"{name} beside labels, equal steps", key("alone", None), taught)
            yield Comparison(f"{name} beside labels, equal time", key("longer", None), taught)
            yield Comparison(f"{name} in place of labels", key("alone", None), key("unlabelled", teacher))
            yield Comparison(f"{name} beside a quarter of the labels", key("quarter", None), quarter)

    def _rows(self) -> tuple[str, ...]:
        return tuple(row for row in ROWS if row in self.rows) if self.rows else tuple(ROWS)

    def _kinds(self) -> list[tuple[str, str | None]]:
        """Rows with their teachers."""
        return [
            (row, teacher)
            for row in self._rows()
            for teacher in (self.teachers if ROWS[row].taught else (None,))
        ]

    @staticmethod
    def _key(model: str, size: int, row: str, teacher: str | None) -> str:
        return "-".join([model, str(size), row, *([] if teacher is None else [name_of(teacher)])])

    def _run(
        self, model: str, size: int, row: str, teacher: str | None, seed: int, epoch_work: float
    ) -> StudyRun:
        kind = ROWS[row]
        key = self._key(model, size, row, teacher)
        epochs = self._epochs(row)
        pair = () if not kind.longer else self._timed(model, size)
        share = kind.labelled if teacher is None else 1.0
        return StudyRun(
            name=f"{key}-{seed}",
            row=key,
            seed=seed,
            size=size,
            command=self._command(model, size, row, teacher, seed),
            after=tuple(f"{one}-{other}" for one in pair for other in self.seeds),
            later=self._later(key, pair) if kind.longer else None,
            # the first one asks about the people
            cache=None if teacher is None else name_of(teacher),
            # a person's views take turns from epoch to epoch
            work=_TRAINING * epoch_work * share * epochs,
        )

    def _epochs(self, row: str) -> int:
        """As many steps for all: a student alone passes over its part of the people more often."""
        kind = ROWS[row]
        return self.epochs if kind.taught else round(self.epochs / kind.labelled)

    def _command(self, model: str, size: int, row: str, teacher: str | None, seed: int) -> tuple[str, ...]:
        kind, epochs = ROWS[row], self._epochs(row)
        taught = {} if teacher is None else {"teacher": Path(teacher).absolute()}
        extra = self._extra(taught=kind.taught)
        own: dict[str, object] = {
            "model.name": model,
            "model.input_size": f"[{size},{size}]",
            **self._data_options(),
            "data.labelled_fraction": kind.labelled,
            **({} if kind.longer else {"epochs": epochs, "evaluate_every": epochs}),
            "precision": self.precision,
            "seed": seed,
            **taught,
        }
        return (
            *("distill" if taught else "train", "--recipe", _RECIPE),
            *(_TAUGHT if teacher else ()),
            *(_ASKED_ONCE if teacher and TeacherFile(teacher).is_foreign else ()),
            *(("--config", extra) if extra else ()),
            *(word for name, value in own.items() for word in (f"--{name}", str(value))),
        )

    def _data_options(self) -> dict[str, object]:
        given = self.data()
        default = DataConfig()
        names = ("train", "train_images", "val", "val_images")
        return {
            "data.root": Path(self.root).absolute(),
            **{f"data.{n}": getattr(given, n) for n in names if getattr(given, n) != getattr(default, n)},
            "data.cache": "{study}/views",
            "data.views": self.views,
            "data.mirror_views": str(self.views > 0).lower(),
            # which several runs fill together
            "data.teacher_cache": "compact",
            "data.workers": 0,
        }

    def _extra(self, *, taught: bool) -> str:
        """The options of the file as JSON, "" for none: what a run was begun with is to stay."""
        if self.options is None:
            return ""
        content = read_options("options", self.options)
        for section in filter(None, _OWN):
            value = content.get(section) or {}
            check(
                isinstance(value, dict), f"options: {self.options}: {section}", value, "a mapping of options"
            )
        own = [
            f"{section}.{name}".strip(".")
            for section, names in _OWN.items()
            for name in names
            if name in (content.get(section) or {} if section else content)
        ]
        if own:
            fail(f"options: {self.options}", ", ".join(own), "options that the study itself does not set")
        unknown = _unknown(content, DistillationConfig)
        check(not unknown, f"options: {self.options}", ", ".join(unknown), "options of `cdkd distill`")
        plain = {field.name for field in fields(TrainingConfig)}
        chosen = {name: value for name, value in content.items() if taught or name in plain}
        return json.dumps(chosen) if chosen else ""

    def _timed(self, model: str, size: int) -> tuple[str, str]:
        """The rows whose seconds are compared: alone, and with the first teacher."""
        return self._key(model, size, "alone", None), self._key(model, size, "taught", self.teachers[0])

    def _later(self, key: str, pair: Sequence[str]) -> LaterWords:
        find = partial(_equal_time, key, pair, self.seeds, self.epochs)
        return LaterWords("--epochs AS_LONG_AS_TAUGHT", find)


def name_of(file: str) -> str:
    """The short name of a network's file: what is before the suffix, as a folder can be called."""
    return re.sub(r"[^\w.+-]", "_", Path(file).absolute().stem)


def _equal_time(key: str, pair: Sequence[str], seeds: Sequence[int], epochs: int, folder: Path) -> list[str]:
    """Epochs in which a student alone takes as long as one with a teacher; the same for all seeds of the row."""
    for request in sorted(folder.glob(f"{key}-*/{REQUEST}")):
        return list(json.loads(request.read_text())["later"])
    alone, taught = (
        sum(record["seconds"] for seed in seeds for record in _history(folder, f"{row}-{seed}"))
        for row in pair
    )
    number = str(max(epochs, round(epochs * taught / alone)))
    return ["--epochs", number, "--evaluate_every", number]


def _history(folder: Path, name: str) -> list[dict[str, float]]:
    return run_history(StudyRun(name=name, row=name, command=("train",)), folder)


def _unknown(content: Mapping[str, Any], kind: type, section: str = "") -> list[str]:
    """Options, nested ones as ``section.name``, that a configuration does not have."""
    types, found = get_type_hints(kind), []
    names = {field.name for field in fields(kind)}
    for name, value in content.items():
        if name not in names:
            found.append(f"{section}{name}")
        elif isinstance(value, Mapping) and is_dataclass(types[name]):
            found += _unknown(value, types[name], f"{section}{name}.")
    return found
