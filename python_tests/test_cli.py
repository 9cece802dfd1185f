"""The command line as a user types it: results, help, and one line for every mistake."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.utils.data import get_worker_info

from cdkd_ext.cli import main
from cdkd_ext.data import PoseDataset

SMALL = ["--model.name=hrnet_w8_small", "--data.workers=0", "--batch_size=16", "--epochs=1"]
# the command beside this interpreter, as a user types it
COMMAND = str(Path(sys.executable).with_name("cdkd"))
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def cdkd(*arguments, **options):
    return subprocess.run(
        [COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        **options,
    )


@pytest.fixture(scope="module")
def teacher(drawn_people, tmp_path_factory):
    output = tmp_path_factory.mktemp("cli") / "teacher"
    done = cdkd(
        "train", *SMALL, "--data.root", drawn_people, "--model.input_size=[64,64]", "--output", output
    )
    assert done.returncode == 0, done.stderr
    return output


def test_train_distill_eval_chain(drawn_people, teacher, tmp_path):
    done = cdkd(
        "distill",
        *SMALL,
        "--sape.enabled=true",
        "--data.root",
        drawn_people,
        "--teacher",
        teacher,
        "--output",
        tmp_path / "student",
    )
    assert done.returncode == 0, done.stderr
    assert "sape" in done.stdout and "samples_per_second" in done.stdout and "left" in done.stdout
    report = tmp_path / "report.json"
    done = cdkd("eval", tmp_path / "student", "--data.root", drawn_people, "--output", report)
    assert done.returncode == 0, done.stderr
    result = json.loads(report.read_text())
    assert f"{result['pckh']:.2f}" in done.stdout
    assert "12 people" in done.stdout and "head_size" in done.stdout
    assert {"head", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"} <= result["pckh_per_joint"].keys()


def test_two_processes_train_and_count_each_person_once(drawn_people, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [
        *launcher,
        "-m",
        "cdkd_ext.cli",
        "train",
        *SMALL,
        "--data.root",
        drawn_people,
        "--output",
        tmp_path / "run",
    ]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=ENVIRONMENT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run/metrics.json").read_text())["epochs"][-1]
    # 48 people in batches of 16 on two processes: one step each
    assert record["step"] == 1
    assert record["people"] == 12
    again = cdkd("eval", tmp_path / "run", "--data.root", drawn_people)
    assert f"{record['pckh']:.2f}" in again.stdout


@pytest.mark.parametrize(
    ("number", "status", "word", "workers"),
    [
        (signal.SIGINT, 130, "interrupted", 0),
        pytest.param(signal.SIGTERM, 143, "terminated", 0, marks=pytest.mark.long),
        (signal.SIGTERM, 143, "terminated", 2),
    ],
)
def test_control_c_and_sigterm_keep_the_last_checkpoint_and_say_how_to_resume(
    drawn_people, tmp_path, number, status, word, workers
):
    output = tmp_path / "run"
    command = [
        COMMAND,
        "train",
        *SMALL[:3],
        f"--data.workers={workers}",
        "--epochs=1000",
        "--data.root",
        str(drawn_people),
    ]
    process = subprocess.Popen(
        [*command, "--output", str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        # a shell's background jobs ignore Ctrl-C, and so would what they start
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not (output / "metrics.json").exists() and time.monotonic() < deadline and process.poll() is None:
        process.stdout.readline()
    process.send_signal(number)
    try:
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == status
    assert error.strip().splitlines()[-1].startswith(f"cdkd: {word} in step")
    assert number == signal.SIGINT or len(error.strip().splitlines()) == 1, error
    assert f"cdkd train --resume {output}" in error
    assert not list(output.glob(".*"))
    finished = len(json.loads((output / "metrics.json").read_text())["epochs"])
    assert main(["train", "--resume", str(output), f"--epochs={finished + 1}"]) == 0
    assert len(json.loads((output / "metrics.json").read_text())["epochs"]) == finished + 1


def test_sigterm_before_training_leaves_nothing_half_written(drawn_people, tmp_path, monkeypatch, capsys):
    def terminated(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("not terminated")

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("cdkd_ext.training.state.torch.save", terminated)
    output = tmp_path / "run"
    assert main(["train", *SMALL, f"--data.root={drawn_people}", f"--output={output}"]) == 143
    lines = capsys.readouterr().err.strip().splitlines()
    kept = (
        f"no epoch was finished, so there is no checkpoint yet; `cdkd train --resume {output}` begins again"
    )
    assert lines == [f"cdkd: terminated in step 3; {kept}"]
    assert not list(output.glob(".*")) and not (output / "state.pt").exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_killed_loading_process_is_one_line_that_names_the_kept_checkpoint(
    drawn_people, tmp_path, monkeypatch, capsys
):
    view = PoseDataset.view

    def killed(self, index, number):
        if number == 1 and get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return view(self, index, number)

    monkeypatch.setattr(PoseDataset, "view", killed)
    output = tmp_path / "run"
    options = ["--data.workers=1", "--epochs=2", f"--data.root={drawn_people}", f"--output={output}"]
    assert main(["train", *SMALL[:1], *SMALL[2:3], *options]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("cdkd: data.workers: expected fewer loading processes, or more memory")
    assert line.endswith(f"the checkpoint of epoch 1 is kept; go on with `cdkd train --resume {output}`")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_picture_is_named_whoever_loads_it(workers, drawn_people, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(drawn_people, tmp_path / "data")
    broken = tmp_path / "data/train/images/000003.jpg"
    broken.write_bytes(broken.read_bytes()[:500])
    assert main(["train", *SMALL, f"--data.workers={workers}", "--data.root=data", "--output=run"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith(
        "cdkd: data/train/images/000003.jpg: expected a whole image, got "
    )


def test_models_prints_sizes_and_both_conventions(capsys):
    assert main(["models", "--input_size=[256,192]", "--head=heatmap"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (w32,) = [line.split() for line in lines if line.startswith("hrnet_w32 ")]
    # HRNet's paper prints 28.5M parameters and 7.1 GFLOPs for this input
    assert w32[:3] == ["hrnet_w32", "256x192", "28.536"] and w32[-1] == "7.120"
    assert not any("upsample_free" in line for line in lines)
    assert main(["models", "resnet50", "hrnet_w48", "--json"]) == 0
    profiles = {profile["name"]: profile for profile in json.loads(capsys.readouterr().out)}
    assert list(profiles) == ["resnet50", "hrnet_w48"]
    assert profiles["resnet50"]["paper_gflops"] * 2**30 > profiles["resnet50"]["macs"]
    assert f"{profiles['hrnet_w48']['paper_gflops']:.3f}" == "1.218"


def test_heatmap_networks_go_the_whole_way(drawn_people, tmp_path, capsys):
    teacher, student = str(tmp_path / "teacher"), str(tmp_path / "student")
    shared = [*SMALL, "--data.root", str(drawn_people), "--model.head=heatmap"]
    assert main(["train", *shared, "--model.input_size=[64,64]", "--output", teacher]) == 0
    assert main(["distill", *shared, "--cca.enabled=false", "--teacher", teacher, "--output", student]) == 0
    assert main(["eval", student, "--data.root", str(drawn_people)]) == 0
    assert "12 people" in capsys.readouterr().out


def test_info_lists_every_operator_with_its_kernels(capsys):
    assert main(["info", "--json"]) == 0
    operators = json.loads(capsys.readouterr().out)["operators"]
    assert operators.keys() == {"cca_kl", "sau_select", "projector_cosine", "simcc_decode", "simcc_kl"}
    assert all("CPU" in kernels for kernels in operators.values())


@pytest.mark.parametrize(
    "command", ["demo", "train", "distill", "teacher", "eval", "convert", "models", "info"]
)
def test_help_explains_itself_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"Example: cdkd {command}" in printed


def test_a_recipe_sets_what_it_names_and_later_options_win(capsys):
    with pytest.raises(SystemExit):
        main(["distill", "--recipe", "lsp_student", "--recipe=paper_losses", "--epochs=7", "--print_config"])
    printed = capsys.readouterr().out
    assert "epochs: 7" in printed and "activation: relu" in printed and "views: 16" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--epochs", "many"], "epochs"),
        (["train", "--nonsense", "1"], "nonsense"),
        (["train", "--recipe", "unheard_of"], "recipe: expected one of"),
        (["train", "--resume", "nowhere"], "resume: expected the folder of a run"),
        (["models", "--input_size=[30,30]"], "input_size: expected"),
        (["train", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["train", "--data.root", "nowhere"], "data.root: expected an existing folder, got nowhere"),
        (["train", "--model.input_size", "[30,32]", "--data.root", "DRAWN"], "input_size: expected"),
        (["distill", "--data.root", "DRAWN"], "teacher: expected the path of a checkpoint"),
        (
            ["distill", "--data.root", "DRAWN", "--teacher", "none.safetensors"],
            "teacher: expected an existing",
        ),
        (["eval", "none.safetensors", "--data.root", "DRAWN"], "weights: expected an existing checkpoint"),
        (["eval", "none.safetensors"], "data.root: expected the folder of a data set"),
        (["train", "--data.augmentation.scale", "5", "--data.root", "DRAWN"], "scale"),
        (["demo", "--seeds", "1"], "seeds: expected at least 2"),
        ([], "command"),
    ],
)
def test_a_mistake_is_one_clear_line(arguments, message, drawn_people, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([str(drawn_people) if argument == "DRAWN" else argument for argument in arguments]) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("cdkd: ") and message in lines[0]


TRAIN = ("accelerate", "jsonargparse", "matplotlib", "pycocotools", "rich", "scipy", "tensorboard", "yaml")
EXTRAS = (*TRAIN, "cv2", "safetensors")
RUN = "from cdkd_ext.cli import main\nsys.exit(main(sys.argv[1:]))"
# several commands in one process, for the time that it takes to import torch
RUN_EACH = """
import contextlib, io, json
from cdkd_ext.cli import main

for arguments in json.loads(sys.argv[1]):
    printed, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(error):
        try:
            status = main(arguments)
        except SystemExit as ended:
            status = ended.code or 0
    print(json.dumps([status, printed.getvalue(), error.getvalue()]))
"""


@pytest.fixture
def each_without(run_without):
    """Runs commands where some packages are not installed: status, what is printed and what is said of errors, of each."""

    def run(packages, commands):
        done = run_without(packages, RUN_EACH, json.dumps(commands))
        assert done.returncode == 0 and done.stderr == "", done.stderr
        results = [json.loads(line) for line in done.stdout.splitlines()]
        return list(zip(commands, results, strict=True))

    return run


def test_what_torch_and_numpy_alone_can_do(each_without):
    expected = {
        "--help": "show the build",
        "--version": "cdkd-ext ",
        "info": "operators:",
        "models hrnet_w8_small --head heatmap": "hrnet_w8_small",
        "models --help": "Example: cdkd models",
        "info --help": "Example: cdkd info",
    }
    for command, (status, printed, error) in each_without(EXTRAS, [words.split() for words in expected]):
        assert (status, error) == (0, ""), command
        assert expected[" ".join(command)] in printed


@pytest.mark.parametrize("packages", [EXTRAS, TRAIN, ("rich",), ("accelerate",)])
def test_a_missing_extra_is_named_in_one_line(each_without, packages):
    commands = [[command, "--help"] for command in ("demo", "train", "distill", "eval", "convert")]
    for (command, _), (status, printed, error) in each_without(packages, commands):
        if status == 0:
            # a package that only the work itself needs
            assert len(packages) == 1 and f"Example: cdkd {command}" in " ".join(printed.split())
            continue
        assert status == 2 and printed == ""
        (line,) = error.splitlines()
        package = line.removeprefix("cdkd: ").partition(" ")[0]
        assert package in packages
        assert line == f"cdkd: {package} is missing; `cdkd {command}` needs `pip install 'cdkd-ext[train]'`"


def test_a_module_of_no_extra_is_an_error_of_the_installation(run_without):
    done = run_without(["numpy"], RUN, "models")
    assert done.returncode == 1 and "No module named 'numpy'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["models", "--input_size=[64"], "--input_size: expected height and width"),
        (["models", "hrnet_w33"], "name: expected one of 'hourglass_4'"),
        (["models", "--head=offsets"], "--head: invalid choice: 'offsets'"),
        (["info", "--launch-plan", "--sizes.batch=0"], "batch: expected a positive integer, got 0"),
        (["info", "--launch-plan", '--sizes={"batches": 2}'], "sizes: expected one of 'batch'"),
        (["predict", "a", "b", "--evry", "3"], "--evry 3; perhaps --every is meant"),
        (["train", "--epoch", "1"], "--epoch 1; perhaps --epochs is meant"),
        (["train", "--epochs", "x"], "epochs: expected a whole number, got x"),
        (
            ["train", "--optimizer.learning_rate", "fast"],
            "optimizer.learning_rate: expected a number, got fast",
        ),
        (
            ["train", "--model.input_size", "32"],
            'model.input_size: expected a list, such as "[32, 32]", got 32',
        ),
        (["train", "--flip_test", "maybe"], "flip_test: expected true or false, got maybe"),
        (
            ["export", "m", "--precision", "int4"],
            "precision: expected one of 'float32', 'float16', 'int8', got int4",
        ),
        (["table", "1", "--scale", "small", "--data.rot", "x"], "perhaps --data.root is meant"),
        (["export", "student.onnx"], "weights: expected an existing checkpoint, got student.onnx"),
        (
            ["info", "--launch-plan", '--sizes={"batch": "x"}'],
            "sizes.batch: expected a value of type int, got 'x'",
        ),
        (
            ["info", "--launch-plan", '--sizes={"joints": 1.5}'],
            "sizes.joints: expected a value of type int, got 1.5",
        ),
        (["info", "--launch-plan", "--sizes=2"], "--sizes: expected sizes by name as JSON"),
        (["unheard-of"], "invalid choice: 'unheard-of'"),
    ],
)
def test_mistakes_of_the_plain_commands(arguments, message, capsys):
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cdkd: ") and message in line


def test_sizes_of_the_launch_plan_come_one_by_one_or_together(capsys):
    assert main(["info", "--launch-plan", "--sizes.batch=2", "--sizes.joints", "3"]) == 0
    alone = capsys.readouterr().out
    assert main(["info", "--launch-plan", '--sizes={"batch": 2, "joints": 3}']) == 0
    assert capsys.readouterr().out == alone and alone.startswith("pass and kernel")


@pytest.mark.parametrize("words", [["table", "3", "--list"], ["models", "hrnet_w8_small"]])
def test_nobody_has_to_read_to_the_end(words):
    process = subprocess.Popen(
        [COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    )
    process.stdout.close()
    assert (process.wait(60), process.stderr.read()) == (141, b"")
    process.stderr.close()
