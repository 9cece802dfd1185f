"""Train a teacher, distil a student and measure it, on drawn people: the commands `cdkd train, distill, eval`."""

import cdkd_ext
from cdkd_ext.data import DataConfig
from cdkd_ext.evaluation import table
from cdkd_ext.training import DistillationConfig, ModelConfig, TrainingConfig


def main() -> None:
    # small and short: seconds instead of hours; DataConfig(root=...) reads a data set of your own
    teacher = TrainingConfig(
        output="runs/teacher",
        model=ModelConfig(name="hrnet_w8_small", input_size=(64, 64)),
        data=DataConfig(synthetic_people=64, workers=0),
        epochs=1,
    )
    cdkd_ext.train(teacher)

    data = DataConfig(root="runs/teacher/synthetic", workers=0)
    student = DistillationConfig(
        output="runs/student",
        teacher="runs/teacher",
        model=ModelConfig(name="hrnet_w8_small", input_size=(32, 32)),
        data=data,
        epochs=2,
    )
    cdkd_ext.distill(student)

    print(table(cdkd_ext.evaluate("runs/student", data=data)))


if __name__ == "__main__":  # for the processes that load images
    main()
