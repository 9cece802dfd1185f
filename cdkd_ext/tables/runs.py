"""The trainings behind the tables' rows, each as recipes and options of a command."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

from cdkd_ext.errors import check_option
from cdkd_ext.files import read_yaml
from cdkd_ext.models import ModelOptions, ModelSpec
from cdkd_ext.recipes import combine_recipes
from cdkd_ext.tables.rows import DATA, Scale

# ImageNet weights of HRNet's authors and of torchvision, as their files are called
IMAGENET = {
    "hrnet_w32": "hrnet_w32-36af842e.pth",
    "hrnet_w48": "hrnet_w48-8ef0771d.pth",
    "resnet50": "resnet50-19c8e357.pth",
    "resnet152": "resnet152-b121ed2d.pth",
}


@dataclass(frozen=True, kw_only=True)
class TableRun:
    """A training that a row shows, or that another training starts from.

    Args:
        name: unique at its scale.
        recipes: each one changes those before it.
        options: that change the recipes, by their names on the command line.
        teacher: the run whose network teaches; with one it is `cdkd distill`, else `cdkd train`.
        weights: the run whose network it starts from.
        search: the run whose learning-rate search it takes; None has its own.
        own_schedule: keep its epochs where all others are equalised.
    """

    name: str
    recipes: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    teacher: str | None = None
    weights: str | None = None
    search: str | None = None
    own_schedule: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the runs that it needs."""
        return tuple(name for name in (self.teacher, self.weights) if name)

    @property
    def kind(self) -> str:
        """The command: "train" or "distill"."""
        return "distill" if self.teacher else "train"

    def settings(self, *, equalised: bool = False) -> dict[str, Any]:
        """All options that recipes and options set, in sections."""
        settings = combine_recipes(self.recipes)
        for name, value in self.options.items():
            *sections, last = name.split(".")
            place = settings
            for section in sections:
                place = place.setdefault(section, {})
            place[last] = value
        if equalised and not self.own_schedule:
            changed = combine_recipes(["equalised"])
            settings = settings | changed | {"optimizer": settings["optimizer"] | changed["optimizer"]}
        return settings

    def words(self, *, equalised: bool = False) -> list[str]:
        """The command's first words: what it is, its recipes and its options."""
        words = [self.kind, *(f"--recipe={name}" for name in self.recipes)]
        words += [f"--{name}={_written(value)}" for name, value in self.options.items()]
        if equalised and not self.own_schedule:
            words.append("--recipe=equalised")
        return words

    def spec(self, num_joints: int) -> ModelSpec:
        """The description of its network.

        Raises:
            InputError: an option is out of range.
        """
        known = {option.name for option in fields(ModelOptions)}
        model = self.settings()["model"]
        chosen = {name: value for name, value in model.items() if name in known}
        chosen["input_size"] = tuple(chosen["input_size"])
        return ModelSpec(**chosen, num_joints=num_joints)

    def imagenet(self) -> str | None:
        """The file of ImageNet weights that it starts from, where there is one for its backbone."""
        return None if self.weights else IMAGENET.get(self.settings()["model"]["name"])


def load_runs(scale: Scale) -> dict[str, TableRun]:
    """Read the trainings of a scale, by name.

    Args:
        scale: "full" is the paper's, "small" one small trunk for all.

    Raises:
        InputError: an unknown scale.
    """
    check_option("scale", scale, ("full", "small"))
    content = _content(scale)
    return {
        name: TableRun(name=name, **run | {"recipes": tuple(run["recipes"])}) for name, run in content.items()
    }


@cache
def _content(scale: Scale) -> dict[str, dict[str, Any]]:
    content: dict[str, dict[str, Any]] = read_yaml(DATA / f"{scale}.yaml")
    return content


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
