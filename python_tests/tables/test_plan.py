"""From rows to runs: commands, sources, seeds and the search for a learning rate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser

from cdkd_ext.cli.configured import parse_configuration, training_parser
from cdkd_ext.errors import InputError
from cdkd_ext.studies import StudyRun
from cdkd_ext.studies.runs import REQUEST, check_request, check_runs
from cdkd_ext.tables import RATES, Plan, list_tables, load_runs, load_table, study_runs
from cdkd_ext.training import DistillationConfig, TrainingConfig


def configured(run: StudyRun) -> TrainingConfig:
    kind = DistillationConfig if run.kind == "distill" else TrainingConfig
    return parse_configuration(training_parser(run.kind), kind, run.command[1:])[0]


@pytest.mark.parametrize("number", list_tables())
@pytest.mark.parametrize("scale", ["full", "small"])
def test_sources_come_first_and_once(number: str, scale: str) -> None:
    runs = study_runs(load_table(number), Plan(root="/d", seeds=(0, 1), scale=scale, search=scale == "small"))  # type: ignore[arg-type]
    seen: set[str] = set()
    for run in runs:
        assert set(run.waits_for) <= seen, run.name
        seen.add(run.name)
    assert len(check_runs(runs)) == len(runs)


def test_a_run_is_recipes_options_and_what_it_starts_from() -> None:
    runs = study_runs(load_table(2), Plan(root="/coco", weights="/imagenet"), ["distilpose_64", "pct_32"])
    assert [run.name for run in runs] == [
        "coco_swin_32",
        "coco_tokenizer_32",
        "coco_pct_32_seed0",
        "coco_tokens_64",
        "coco_distilpose_64_seed0",
    ]
    assert runs[4].command == (
        "distill", "--recipe=coco_w32_32", "--recipe=distilpose", "--model.input_size=[64, 64]",
        "--teacher={study}/coco_tokens_64/last.safetensors", "--model.weights=/imagenet/hrnet_w32-36af842e.pth",
        "--data.root=/coco", "--seed=0",
    )  # fmt: skip
    config = configured(runs[4])
    assert isinstance(config, DistillationConfig)
    assert (config.model.head, config.model.input_size) == ("distilpose", (64, 64))
    assert config.teaching.enabled and not config.sape.enabled and not config.cca.enabled
    assert (config.epochs, config.batch_size, config.optimizer.milestones) == (300, 256, [200, 260])
    tokenizer, classifier = configured(runs[1]), configured(runs[2])
    assert tokenizer.label_loss.stage == "tokenizer" and tokenizer.data.val is None
    assert tokenizer.model.weights == "{study}/coco_swin_32/last.safetensors"
    assert classifier.label_loss.stage == "classifier" and classifier.data.val is not None
    assert classifier.model.weights == "{study}/coco_tokenizer_32/last.safetensors"


def test_the_equalised_protocol_has_the_same_epochs_and_batch_for_all() -> None:
    plan = Plan(root="/mpii", equalised=True)
    names = ["prtr_64", "okdhp_64", "cal_64"]
    for run in study_runs(load_table(1), plan, names):
        config = configured(run)
        assert (config.epochs, config.batch_size, config.optimizer.milestones) == (210, 32, [170, 200])
        assert config.optimizer.milestone_factor == 0.1
        settings = load_runs("full")[run.row].settings(equalised=True)
        assert (settings["epochs"], settings["batch_size"]) == (210, 32)
        assert settings["optimizer"]["learning_rate"] == config.optimizer.learning_rate
    pct = {run.row: run for run in study_runs(load_table(2), Plan(root="/coco", equalised=True), ["pct_32"])}
    assert configured(pct["coco_tokenizer_32"]).epochs == 50


def test_small_runs_differ_in_the_method_alone() -> None:
    names = ["simcc_64", "tokenpose_64", "prtr_64", "cdkd_64"]
    runs = study_runs(load_table(1), Plan(root="/lsp", scale="small", seeds=(3,)), names)
    configs = {run.name: configured(run) for run in runs}
    assert configs.keys() == {
        "simcc_128", "tokenpose_l_64_seed3", "prtr_64_seed3", "simcc_64_seed3", "cdkd_64_seed3"
    }  # fmt: skip
    for name, config in configs.items():
        assert config.model.name == "hrnet_w16_small"
        assert (config.epochs, config.batch_size) == (20, 32)
        assert config.data.views == (0 if name == "simcc_128" else 8)
        assert config.data.cache == "{study}/views"
        assert config.optimizer == configs["simcc_128"].optimizer, name
        assert config.data.augmentation == configs["simcc_128"].data.augmentation
        assert config.label_loss.scale == 1
    taught = configs["cdkd_64_seed3"]
    assert isinstance(taught, DistillationConfig)
    assert taught.teacher == "{study}/simcc_128/last.safetensors" and taught.temperature.adversarial


def test_the_search_is_the_same_for_every_system_and_decides(tmp_path: Path) -> None:
    plan = Plan(root="/lsp", scale="small", seeds=(0,), search=True, options=("--epochs=8",))
    runs = {run.name: run for run in study_runs(load_table(3), plan, ["simcc", "projector"])}
    tried = [run for run in runs.values() if "_rate" in run.name]
    assert [run.name for run in tried] == [
        f"{row}_rate{rate:g}" for row in ("simcc_64", "cdkd_64") for rate in RATES
    ]
    for run, rate in zip(tried, [*RATES, *RATES], strict=True):
        config = configured(run)
        assert (config.epochs, config.optimizer.learning_rate, config.seed) == (2, rate, 1000)
    shown = runs["projector_64_seed0"]
    assert shown.after == ("simcc_128",)
    assert shown.tried == tuple(f"cdkd_64_rate{rate:g}" for rate in RATES)
    assert shown.later is not None
    with pytest.raises(
        InputError, match=r"search: expected at least one that finished, got none of cdkd_64_rate0\.0005"
    ):
        shown.later.find(tmp_path)
    for run, value in zip(tried[3:], (20.0, 30.5, 30.5), strict=True):
        own = tmp_path / run.name
        own.mkdir()
        (own / "config.yaml").write_text("epochs: 1")
        (own / "metrics.json").write_text(json.dumps({"epochs": [{"pckh": value}]}))
    assert shown.later.find(tmp_path) == [f"--optimizer.learning_rate={RATES[1]:g}"]


@pytest.fixture(scope="module")
def parsers() -> dict[str, ArgumentParser]:
    """Of the configurations of both commands."""
    kinds = {"train": TrainingConfig, "distill": DistillationConfig}
    made = {name: ArgumentParser(exit_on_error=False) for name in kinds}
    for name, kind in kinds.items():
        made[name].add_class_arguments(kind)
    return made


@pytest.mark.parametrize("scale", ["full", "small"])
def test_all_that_a_run_sets_is_an_option(scale: Any, parsers: dict[str, ArgumentParser]) -> None:
    runs = load_runs(scale)
    # one of those that add the same recipes and options to another base
    different = {
        (run.kind, run.recipes[len(run.recipes) > 1 :], tuple(run.options)): run for run in runs.values()
    }
    for run in different.values():
        settings = parsers[run.kind].parse_object(run.settings())
        height, width = settings.model.input_size
        assert height == width and settings.epochs > 0, run.name
    for run in runs.values():
        assert {*run.sources, run.search or run.name} <= runs.keys()


@pytest.mark.parametrize(
    ("run", "options"),
    [
        ("projector", {"sape.num_projectors": 1, "sape.use_sau": False, "cca.enabled": False}),
        ("ensemble", {"sape.num_projectors": 3, "sape.use_sau": False, "cca.enabled": False}),
        ("sape", {"sape.use_sau": True, "sape.enabled": True, "cca.enabled": False}),
        ("necm", {"sape.enabled": False, "temperature.adversarial": False, "temperature.tau": 1}),
        ("cca", {"sape.enabled": False, "temperature.adversarial": True, "cca.enabled": True}),
        ("strided", {"sape.alignment": "strided", "cca.enabled": False}),
        ("connected_features", {"sape.alignment": "connected", "cca.enabled": False}),
        ("connected_classes", {"cca.alignment": "connected", "sape.enabled": False}),
        ("same_classes", {"sape.enabled": False, "temperature.adversarial": False}),
        ("k2", {"sape.num_projectors": 2, "cca.enabled": True}),
        ("k5", {"sape.num_projectors": 5, "sape.use_sau": True}),
        ("kernels_1110", {"sape.kernels": [3, 5, 7]}),
        ("kernels_3110", {"sape.kernels": [3, 3, 3, 5, 7]}),
        ("kernels_1111", {"sape.kernels": [3, 5, 7, 9]}),
        ("cdkd", {"sape.kernels": [3, 5, 7, 7], "sape.num_projectors": 3, "temperature.adversarial": True}),
        ("learn_alpha", {"temperature.learn_alpha": True, "temperature.adversarial": True}),
        ("learn_weights", {"temperature.learn_weights": True, "temperature.adversarial": True}),
    ],
)
def test_the_ablations_are_what_the_rows_say(run: str, options: dict[str, Any]) -> None:
    """At both scales alike, and as printed: with ReLU, and without centring."""
    for scale, name in (("full", f"mpii_{run}_64"), ("small", f"{run}_64")):
        settings = load_runs(scale)[name].settings()  # type: ignore[arg-type]
        for option, value in options.items():
            section, field = option.split(".")
            assert settings[section][field] == value, (name, option)
        assert settings["sape"]["activation"] == "relu" and not settings["sape"]["center_teacher"]


def test_as_many_classes_on_both_sides() -> None:
    """A student's bins at 64x64 are its teacher's."""
    for scale, student, teacher in (
        ("full", "mpii_same_classes_64", "mpii_w32_256"),
        ("small", "same_classes_64", "simcc_128"),
    ):
        runs = load_runs(scale)  # type: ignore[arg-type]
        assert runs[student].teacher == teacher
        assert runs[student].spec(16).num_bins == runs[teacher].spec(16).num_bins


def test_sape_of_other_methods_has_a_teacher_of_the_method() -> None:
    for scale in ("full", "small"):
        runs = load_runs(scale)  # type: ignore[arg-type]
        for row in load_table(10).rows:
            run = runs[row.run(scale) or ""]  # type: ignore[arg-type]
            if run.teacher:
                assert runs[run.teacher].spec(16).head == run.spec(16).head
                assert not run.settings()["cca"]["enabled"]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="seeds: expected one or more different numbers, got 1 1"):
        Plan(root="/d", seeds=(1, 1))
    with pytest.raises(InputError, match="protocol: expected the small scale's own"):
        Plan(root="/d", scale="small", equalised=True)
    with pytest.raises(InputError, match="search: expected false at full scale"):
        Plan(root="/d", search=True)
    with pytest.raises(InputError, match="weights: expected none at small scale"):
        Plan(root="/d", scale="small", weights="/imagenet")
    for words in (("--seed", "7"), ("--seed=7",)):
        with pytest.raises(InputError, match="seed: expected --seeds, got one for all"):
            Plan(root="/d", options=words)
    rate = ("--optimizer.learning_rate", "0.01")
    Plan(root="/d", scale="small", options=rate)
    with pytest.raises(
        InputError, match=r"learning_rate: expected none beside --search, .*, got one for all"
    ):
        Plan(root="/d", scale="small", search=True, options=rate)
    with pytest.raises(InputError, match="rows: expected rows that the small scale has, got simcc_64_k4"):
        study_runs(load_table(2), Plan(root="/d", scale="small"), ["simcc_64_k4"])


@pytest.mark.parametrize("searched", [False, True])
def test_runs_with_and_without_a_search_are_not_taken_for_each_other(tmp_path: Path, searched: bool) -> None:
    first, second = (
        study_runs(load_table(3), Plan(root="/lsp", scale="small", search=search), ["simcc"])
        for search in (searched, not searched)
    )
    for run in first:
        words = {
            "command": list(run.command),
            "later": ["--optimizer.learning_rate=0.1"] if run.later else [],
        }
        (tmp_path / run.name).mkdir()
        (tmp_path / run.name / REQUEST).write_text(json.dumps(words))
        (tmp_path / run.name / "config.yaml").touch()
        check_request(run, tmp_path)
    held = "what was found for it" if searched else "nothing"
    (other,) = [run for run in second if run.name == "simcc_64_seed0"]
    with pytest.raises(InputError, match=f"simcc_64_seed0: expected {held} beside its command, as in"):
        check_request(other, tmp_path)


@pytest.mark.parametrize("inline", [False, True])
def test_the_search_takes_a_quarter_of_the_epochs_that_a_file_says(tmp_path: Path, inline: bool) -> None:
    (tmp_path / "own.yaml").write_text("epochs: 12\nbatch_size: 4\n")
    given = json.dumps({"epochs": 12}) if inline else str(tmp_path / "own.yaml")
    for options, expected in (
        (("--config", given), 3),
        (("--config", given, "--epochs", "8"), 2),
        (("--epochs=8", f"--config={given}"), 3),
    ):
        plan = Plan(root="/lsp", scale="small", search=True, options=options)
        runs = {run.name: run for run in study_runs(load_table(3), plan, ["simcc"])}
        assert configured(runs["simcc_64_rate0.0005"]).epochs == expected
