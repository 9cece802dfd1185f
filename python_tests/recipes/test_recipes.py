"""Every recipe is complete: it parses, finds the official files, and names a network of the published size."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from cdkd_ext import recipes
from cdkd_ext.cli import main
from cdkd_ext.data import load_mpii_persons
from cdkd_ext.data.loading import load_people
from cdkd_ext.errors import InputError
from cdkd_ext.joints import MPII_JOINTS
from cdkd_ext.models import count_parameters, create_model
from cdkd_ext.recipes import combine_recipes, list_recipes, load_recipe
from cdkd_ext.training import DistillationConfig, TrainingConfig

# millions of parameters as the paper and its sources print them
PUBLISHED = {
    "mpii_w32_256_teacher": 34.8,
    "mpii_w32_64": 28.6,
    "mpii_w32_32": 28.5,
    "mpii_w32_64_heatmap": 28.5,
    "mpii_w32_32_heatmap": 28.5,
    "mpii_w32_64_dark": 28.5,
    "mpii_w32_32_dark": 28.5,
    "mpii_r152_64_heatmap": 68.6,
    "mpii_r152_32_heatmap": 68.6,
    "mpii_r50_32_heatmap": 34.0,
    "coco_w48_256_teacher": None,
    "coco_w32_256_teacher": 34.8,
    "coco_w48_64": 63.7,
    "coco_w48_64_k4": 63.7,
    "coco_w32_32": 28.5,
    "coco_r50_64": 34.1,
    "coco_w48_64_heatmap": 63.6,
    "coco_w32_32_heatmap": 28.5,
    "coco_w48_64_dark": 63.6,
    "coco_w32_32_dark": 28.5,
    "coco_r152_64_heatmap": 68.6,
    "coco_r152_32_heatmap": 68.6,
}

# on top of another recipe: the method and the network that it makes of a 64x64 one
METHODS = {
    "heatmap": ("heatmap", "hrnet_w32"),
    "dark": ("heatmap", "hrnet_w32"),
    "cal": ("cal", "hrnet_w32"),
    "cal_mpii": ("cal", "hrnet_w32"),
    "rle": ("rle", "hrnet_w32"),
    "tokenpose_b": ("tokenpose_b", "hrnet_w32"),
    "tokenpose_l": ("tokenpose_l", "hrnet_w32"),
    "tokenpose_teacher": ("tokenpose_b", "hrnet_w32"),
    "distilpose": ("distilpose", "hrnet_w32"),
    "prtr": ("prtr", "hrnet_w32"),
    "okdhp": ("heatmap", "okdhp_4"),
    "pct_backbone": ("heatmap", "swin_v2_base"),
    "pct_tokenizer": ("pct", "swin_v2_base"),
    "pct": ("pct", "swin_v2_base"),
}
ABLATIONS = {
    "only_projector",
    "only_ensemble",
    "only_sape",
    "only_fixed_temperature",
    "only_cca",
    "only_strided_convolution",
    "only_connected_features",
    "only_connected_classes",
    "only_same_classes",
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_goes_on_top_of_a_data_set(name: str) -> None:
    """And the equalised protocol on top of both."""
    recipes = ["mpii_w32_64", name]
    parser = ArgumentParser(exit_on_error=False)
    kind = DistillationConfig if name == "distilpose" else TrainingConfig
    parser.add_class_arguments(kind)
    options = parser.instantiate(parser.parse_object(combine_recipes(recipes)))
    assert (options.model.head, options.model.name) == METHODS[name]
    assert options.model.spec(MPII_JOINTS).num_joints == 16
    assert options.label_loss.scale == 1
    options.optimizer.validate()
    equal = combine_recipes([*recipes, "equalised"])
    assert (equal["epochs"], equal["batch_size"], equal["optimizer"]["milestones"]) == (210, 32, [170, 200])
    assert equal["optimizer"]["learning_rate"] == options.optimizer.learning_rate


@pytest.mark.parametrize(
    ("name", "epochs", "batch", "rate", "milestones"),
    [
        ("cal", 210, 64, 1e-3, [170, 200]),
        ("rle", 270, 32, 1e-3, [170, 200]),
        ("tokenpose_l", 300, 512, 1e-3, [200, 260]),
        ("distilpose", 300, 256, 1e-3, [200, 260]),
        ("prtr", 200, 128, 1e-4, [60]),
        ("okdhp", 150, 112, 2.5e-4, [90, 120]),
        ("pct_tokenizer", 50, 32, 1e-2, None),
        ("pct", 210, 32, 8e-4, None),
    ],
)
def test_the_published_schedules_of_the_methods(
    name: str, epochs: int, batch: int, rate: float, milestones: list[int] | None
) -> None:
    recipe = combine_recipes(["coco_w32_32", name])
    optimizer = recipe["optimizer"]
    assert (recipe["epochs"], recipe["batch_size"], optimizer["learning_rate"]) == (epochs, batch, rate)
    if milestones is None:
        assert (optimizer["schedule"], optimizer["name"]) == ("cosine", "adamw")
    else:
        assert (optimizer["schedule"], optimizer["milestones"]) == ("step", milestones)


def test_cal_on_mpii_is_without_the_confidence_mask() -> None:
    """Its files for MPII set neither mask nor weights, those for COCO do."""
    found = {}
    for name in ("cal", "cal_mpii"):
        recipe = load_recipe(name)
        loss = recipe["label_loss"]
        found[name] = loss["confidence_mask"], loss["offset_weight"], recipe["model"]["offset_scale"]
    assert found == {"cal": (True, 0.7, 1.5), "cal_mpii": (False, 1.0, 1.0)}


def configured(name: str, config_class: type[TrainingConfig]) -> Any:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(config_class)
    options = parser.instantiate(parser.parse_object(load_recipe(name)))
    return config_class(**{field.name: options[field.name] for field in dataclasses.fields(config_class)})


def test_every_recipe_of_a_published_data_set_is_tested_here() -> None:
    others = {"lsp_student", "lsp_teacher", "paper_losses", "equalised", "small_32", "small_64", "small_128"}
    assert set(list_recipes()) == PUBLISHED.keys() | others | METHODS.keys() | ABLATIONS


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_is_complete(name: str, official_data: Path) -> None:
    for config_class in (TrainingConfig, DistillationConfig):
        config = configured(name, config_class)
        if isinstance(config, DistillationConfig):
            config.teacher = "teacher.safetensors"
        config.validate()
    assert config.output == f"runs/{name}"
    dataset, backbone, size, *_ = name.split("_")
    config.data.root = str(official_data / dataset)
    people = load_people(config.data, official_data / "unused")
    assert len(people.train) == 6 and len(people.val.persons) == 4
    assert people.val.metric == {"mpii": "pckh", "coco": "AP"}[dataset]

    assert config.model.input_size == (int(size), int(size))
    assert config.model.head == ("heatmap" if name.endswith(("heatmap", "dark")) else "simcc")
    assert config.model.decoding == ("dark" if name.endswith("dark") else "quarter")
    with torch.device("meta"):
        model = create_model(config.model.spec(people.joints))
    expected = {"w32": "hrnet_w32", "w48": "hrnet_w48", "r50": "resnet50", "r152": "resnet152"}[backbone]
    assert model.name == expected
    if PUBLISHED[name] is not None:
        assert round(count_parameters(model) / 1e6, 1) == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_schedule_and_augmentation_are_the_published_ones(name: str) -> None:
    config = configured(name, TrainingConfig)
    resnet = "_r50" in name or "_r152" in name
    optimizer = config.optimizer
    assert (optimizer.name, optimizer.learning_rate, optimizer.schedule) == ("adam", 1e-3, "step")
    assert (config.epochs, optimizer.milestones) == ((140, [90, 120]) if resnet else (210, [170, 200]))
    assert config.simcc_score == "max" and config.flip_test
    assert (optimizer.weight_decay, optimizer.warmup, config.batch_size) == (0, 0, 32)
    drawn = config.data.augmentation
    numbers = (drawn.scale, drawn.rotation, drawn.half_body)
    if name.startswith("mpii"):
        assert numbers == (0.25, 30, 0)
    else:
        assert numbers == ((0.3, 40, 0) if resnet else (0.35, 45, 0.3))
    assert config.data.resample == "linear"
    assert (drawn.flip, drawn.rotation_probability, drawn.half_body_min_joints) == (0.5, 0.6, 8)


def test_a_chain_of_bases_is_merged_section_by_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "_first": {"epochs": 1, "data": {"format": "mpii", "augmentation": {"scale": 0.1, "flip": 0.5}}},
        "_second": {"base": "_first", "epochs": 2, "optimizer": {"milestones": [1, 2]}},
        "third": {
            "base": "_second",
            "data": {"augmentation": {"scale": 0.2}},
            "optimizer": {"milestones": [3]},
        },
    }
    for name, content in files.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(recipes, "_FOLDER", tmp_path)
    assert list_recipes() == ["third"]
    assert load_recipe("third") == {
        "epochs": 2,
        "data": {"format": "mpii", "augmentation": {"scale": 0.2, "flip": 0.5}},
        "optimizer": {"milestones": [3]},
    }
    assert load_recipe("third", ("data",)).keys() == {"data"}
    with pytest.raises(InputError, match=r"recipe: expected one of 'third', got '_first'"):
        load_recipe("_first")
    (tmp_path / "fourth.yaml").write_text(yaml.safe_dump({"optimizer": {"name": "adam"}, "epochs": 4}))
    combined = combine_recipes(["third", "fourth"])
    assert combined["optimizer"] == {"milestones": [3], "name": "adam"} and combined["epochs"] == 4


def test_teacher_student_and_evaluation_by_recipe(
    official_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands of a person with the data, on a small network and for one epoch."""
    small = [
        "--model.name=hrnet_w8_small",
        "--epochs=1",
        "--batch_size=6",
        "--data.workers=0",
        f"--data.root={official_data}/mpii",
    ]
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    assert main(["train", "--recipe=mpii_w32_64", *small, f"--output={teacher}"]) == 0
    assert (
        main(["distill", "--recipe=mpii_w32_32", *small, f"--teacher={teacher}", f"--output={student}"]) == 0
    )
    capsys.readouterr()
    options = [small[0], small[-2], small[-1]]
    assert main(["eval", str(student), "--recipe=mpii_w32_32", *options]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()][:3] == ["head", "shoulder", "elbow"]
    persons, _ = load_mpii_persons(official_data / "mpii/annot/valid.json", official_data / "mpii/images")
    assert f"{len(persons)} people; head length: 0.6 x the diagonal of the head boxes in" in printed
