"""Checkpoints from one code base to another."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cdkd_ext.checkpoints.foreign import export_checkpoint, load_checkpoint
from cdkd_ext.checkpoints.native import describes_itself, load_model, save_model
from cdkd_ext.checkpoints.run_files import check_no_run_file
from cdkd_ext.errors import check, check_option, fail
from cdkd_ext.joints import named_joints
from cdkd_ext.models import ModelOptions, create_model


def convert_checkpoint(
    weights: str,
    output: str,
    *,
    layout: Literal["cdkd", "official", "mmpose"] = "cdkd",
    model: ModelOptions | None = None,
    joints: str | None = None,
) -> str:
    """Write the weights of a network as another code base names them; return what was read and written.

    Args:
        weights: a checkpoint of this package, or the folder of a run, of which `model` and `joints` can only say the same;
            with these one of any code base that `load_checkpoint` reads.
        output: the new file; for "cdkd" a .safetensors file.
        layout: "cdkd" describes its network and joints, which training, distilling and evaluating need;
            "official" and "mmpose" are those of `export_checkpoint`.
        model: the network of a checkpoint that does not describe it.
        joints: the joints of a checkpoint that does not describe them: "coco", "mpii" or a YAML file.

    Raises:
        InputError: a file that cannot be read or written, weights that are not the network's, no network or joints.
    """
    check_option("layout", layout, ("cdkd", "official", "mmpose"))
    target = Path(output)
    check(
        layout != "cdkd" or target.suffix == ".safetensors", "output", output, "a file ending in .safetensors"
    )
    check_no_run_file("output", output)
    check(
        target.resolve() != Path(weights).resolve(),
        "output",
        f"{output}, the weights themselves",
        "a file of its own",
    )
    check(Path(weights).exists(), weights, "no such file", "a weights file, or the folder of a run")
    if Path(weights).is_dir() or describes_itself(weights):
        network = load_model(weights)
        network.spec.check_options(model, weights)
        own = network.spec.joints
        same = joints is None or (own is not None and own.names == named_joints(joints).names)
        check(same, "joints", joints, f"nothing: {weights} says what its joints are")
        report = f"{weights}: {network.name}"
    else:
        if model is None:
            fail(
                "model",
                f"nothing for {weights}",
                "the network of the weights, which the file does not describe",
            )
        if joints is None:
            fail("joints", "nothing", "the joints of the weights: coco, mpii or a YAML file")
        # the code bases that they come from sample bilinearly
        network = create_model(model.spec(named_joints(joints), resample="linear"))
        report = str(load_checkpoint(network, weights))
    if layout == "cdkd":
        save_model(network, target)
    else:
        export_checkpoint(network, target, layout=layout)
    return f"{report}; written to {output} ({layout} names)"
