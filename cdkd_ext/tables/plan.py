"""From rows to the runs of a study: seeds, teachers, and the search for a learning rate."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from cdkd_ext.errors import check
from cdkd_ext.files import read_yaml
from cdkd_ext.studies import LaterWords, StudyRun
from cdkd_ext.studies.runs import run_metrics
from cdkd_ext.tables.rows import PaperTable, Row, Scale
from cdkd_ext.tables.runs import TableRun, load_runs
from cdkd_ext.training.config import check_seeds

# the same three for every system
RATES = (0.0005, 0.0015, 0.0045)
# of the search: a seed that no row shows, and a quarter of the epochs
SEARCH_SEED = 1000
SEARCH_SHARE = 4
_VIEWS = "views"
# in commands that are shown, where nobody has said whose they are
ROOT = "DATA"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How rows are trained.

    Args:
        root: folder of the people, as `--data.root`; an absolute path.
        seeds: of the networks that rows show; teachers and other sources are trained once, with seed 0.
        scale: "full" as published, "small" on one small trunk.
        equalised: the same epochs, schedule and batch for all at full scale; at small scale they always are.
        search: find each system's learning rate at small scale: of `RATES` the one whose run, of a seed of its own and a
            quarter of the epochs, measures best.
        weights: folder of ImageNet weights for the backbones, an absolute path; None begins with random ones.
        options: further words of every training's command.

    Raises:
        InputError: there are no seeds, or an option belongs to the other scale.
    """

    root: str
    seeds: tuple[int, ...] = (0,)
    scale: Scale = "full"
    equalised: bool = False
    search: bool = False
    weights: str | None = None
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        distinct = len(self.seeds) > 0 and len(set(self.seeds)) == len(self.seeds)
        check(distinct, "seeds", " ".join(map(str, self.seeds)) or "none", "one or more different numbers")
        check_seeds("seeds", self.seeds)
        small = self.scale == "small"
        check(not (small and self.equalised), "protocol", "equalised", "the small scale's own, which is")
        check(
            small or not self.search,
            "search",
            "true",
            "false at full scale, where rates are the published ones",
        )
        check(not (small and self.weights), "weights", self.weights, "none at small scale")
        given = {word.partition("=")[0] for word in self.options}
        check("--seed" not in given, "seed", "one for all", "--seeds")
        rate = "--optimizer.learning_rate"
        check(
            not self.search or rate not in given, rate, "one for all", "none beside --search, which finds it"
        )

    def common(self) -> list[str]:
        """The words of every training's command that name its people and what is the user's."""
        words = [f"--data.root={self.root}"]
        if self.scale == "small":
            # one folder for all: views are drawn once for each geometry
            words.append(f"--data.cache={{study}}/{_VIEWS}")
        return [*words, *self.options]


def study_runs(table: PaperTable, plan: Plan, rows: Sequence[str] | None = None) -> list[StudyRun]:
    """The runs behind a table's rows, with all that they start from, in an order in which they can run.

    Args:
        table: whose rows.
        plan: how they are trained.
        rows: names of some of them; None takes all that there are at the plan's scale.

    Raises:
        InputError: there is no such row, or it does not exist at the plan's scale.

    Example:
        >>> from cdkd_ext.tables import Plan, load_table, study_runs
        >>> plan = Plan(root="/mpii", seeds=(0, 1))
        >>> print(*(run.name for run in study_runs(load_table("III"), plan, ["all"])))
        mpii_w32_256 mpii_cdkd_64_seed0 mpii_cdkd_64_seed1
    """
    planner, needed = _Planner(plan), dict[str, StudyRun]()
    for row in table.chosen(rows):
        name = row.run(plan.scale)
        if name is None:
            check(rows is None, "rows", row.name, f"rows that the {plan.scale} scale has")
            continue
        for run in planner.with_sources(name):
            needed.setdefault(run.name, run)
    return list(needed.values())


def row_runs(row: Row, plan: Plan) -> list[StudyRun]:
    """The runs of a row, one for each seed; none where the plan's scale does not have it."""
    name = row.run(plan.scale)
    return [] if name is None else _Planner(plan).seeded(name)


class _Planner:
    """Makes runs of a study from those of the tables.

    Args:
        plan: how they are trained.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._runs = load_runs(plan.scale)

    def with_sources(self, name: str) -> Iterator[StudyRun]:
        """What a row's run needs, and the run with every seed."""
        run = self._runs[name]
        yield from self._sources(run)
        if self._plan.search:
            searched = self._runs[run.search or run.name]
            yield from self._sources(searched)
            yield from self._tried(searched)
        yield from self.seeded(name)

    def seeded(self, name: str) -> list[StudyRun]:
        """A row's run with every seed."""
        run, later, tried = self._runs[name], None, tuple[StudyRun, ...]()
        if self._plan.search:
            tried = tuple(self._tried(self._runs[run.search or run.name]))
            shown = f"--optimizer.learning_rate=BEST_OF_{'_'.join(f'{rate:g}' for rate in RATES)}"
            later = LaterWords(shown, _BestRate(tried))
        names = tuple(one.name for one in tried)
        return [
            self._made(run, f"{run.name}_seed{seed}", [f"--seed={seed}"], seed, names, later)
            for seed in self._plan.seeds
        ]

    def _sources(self, run: TableRun) -> Iterator[StudyRun]:
        for name in run.sources:
            source = self._runs[name]
            yield from self._sources(source)
            yield self._made(source, source.name, ["--seed=0"], None)

    def _tried(self, run: TableRun) -> Iterator[StudyRun]:
        epochs = max(1, self._epochs(run) // SEARCH_SHARE)
        for rate in RATES:
            words = [f"--optimizer.learning_rate={rate:g}", f"--epochs={epochs}", f"--seed={SEARCH_SEED}"]
            yield self._made(run, f"{run.name}_rate{rate:g}", words, SEARCH_SEED)

    def _made(
        self,
        run: TableRun,
        name: str,
        words: Sequence[str],
        seed: int | None,
        tried: tuple[str, ...] = (),
        later: LaterWords | None = None,
    ) -> StudyRun:
        plan = self._plan
        given = run.words(equalised=plan.equalised)
        if run.teacher:
            given.append(f"--teacher={{study}}/{run.teacher}/last.safetensors")
        file = run.imagenet() if plan.weights else None
        if run.weights:
            given.append(f"--model.weights={{study}}/{run.weights}/last.safetensors")
        elif plan.weights and file:
            given.append(f"--model.weights={Path(plan.weights) / file}")
        return StudyRun(
            name=name,
            row=run.name,
            seed=seed,
            size=run.settings()["model"]["input_size"][0],
            command=(*given, *plan.common(), *words),
            after=run.sources,
            # a rate that is too large for a system ends its trial, not the system
            tried=tried,
            later=later,
            cache=_VIEWS if plan.scale == "small" else None,
        )

    def _epochs(self, run: TableRun) -> int:
        """Of a whole training; what the user says comes last."""
        epochs = run.settings()["epochs"]
        words = [part for word in self._plan.options for part in word.split("=", 1)]
        for name, value in pairwise(words):
            if name == "--epochs" and value.isdecimal():
                epochs = int(value)
            elif name == "--config":
                epochs = (read_yaml(value) if Path(value).is_file() else json.loads(value)).get(
                    "epochs", epochs
                )
        return int(epochs)


@dataclass(frozen=True)
class _BestRate:
    """The learning rate of the run that measures best, as words of a command; of equals the lowest.

    Args:
        tried: the runs, of one rate of `RATES` each.
    """

    tried: tuple[StudyRun, ...]

    def __call__(self, folder: Path) -> list[str]:
        found = [run_metrics(run, folder) or {} for run in self.tried]
        names = ", ".join(run.name for run in self.tried)
        check(any(found), "search", f"none of {names}", "at least one that finished")
        values = [metrics.get("pckh", metrics.get("AP", -1.0)) for metrics in found]
        return [f"--optimizer.learning_rate={RATES[values.index(max(values))]:g}"]
