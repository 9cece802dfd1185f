"""Teach a student with an ONNX file of any pose network, teacher.onnx, from people without a single label."""

from pathlib import Path

import cdkd_ext
from cdkd_ext.data import DataConfig
from cdkd_ext.evaluation import check_teacher, table
from cdkd_ext.synthetic import draw_people
from cdkd_ext.training import DistillationConfig, ModelConfig

DESCRIPTION = """
file: teacher.onnx
kind: heatmap           # one map per joint
values: probabilities
range: [0, 1]           # what pixel values become
cells: center           # what a cell stands for: the middle of its pixels
joints: mpii
"""


def main() -> None:
    if not Path("people").exists():
        draw_people("people/train", 64, seed=0)
        draw_people("people/val", 16, seed=1)
    data = DataConfig(root="people", labelled_fraction=0, views=1, workers=0)
    Path("teacher.yaml").write_text(DESCRIPTION)

    # what it says of a few people, as numbers and as teacher_check.png
    print(check_teacher("teacher.yaml", data, people=4))

    # its outputs are stored once, and the student learns from them
    model = ModelConfig(name="hrnet_w8_small", input_size=(32, 32))
    run = DistillationConfig(output="runs/student", teacher="teacher.yaml", model=model, data=data, epochs=2)
    cdkd_ext.distill(run, resume=True)  # a second call goes on where the first one ended
    print(table(cdkd_ext.evaluate("runs/student", data=data)))


if __name__ == "__main__":
    main()
