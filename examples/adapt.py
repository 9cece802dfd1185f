"""Teach a pose network in an ONNX file, network.onnx, to see people who are 24 pixels tall, without a single label."""

from pathlib import Path

from cdkd_ext.adaptation import AdaptationConfig, adapt
from cdkd_ext.data import DataConfig
from cdkd_ext.synthetic import draw_people

DESCRIPTION = """
file: network.onnx
kind: heatmap           # one map per joint
values: probabilities
range: [0, 1]           # what pixel values become
joints: mpii
"""


def main() -> None:
    if not Path("people").exists():
        draw_people("people/train", 64, seed=0)
        draw_people("people/val", 16, seed=1)
    Path("network.yaml").write_text(DESCRIPTION)

    # footage would do (images=, detector=); labels of the validation people are for the report alone
    data = DataConfig(root="people", workers=0)
    options = {"steps": 20, "check_every": 10, "batch_size": 8}
    config = AdaptationConfig(output="runs/adapted", model="network.yaml", size="24", data=data, **options)
    # a second call goes on where the first one ended
    report = adapt(config, resume=Path(config.output).exists())
    print(report)  # the same as a page: runs/adapted/report.html
    print([f"{row.height or 'full'}: {row.agreement:.0f} %" for row in report.after])


if __name__ == "__main__":
    main()
