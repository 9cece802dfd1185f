"""Predict poses in an image and draw them."""

from pathlib import Path

import cdkd_ext
from cdkd_ext.data import DataConfig
from cdkd_ext.inference import draw_pose, read_image, save_image
from cdkd_ext.synthetic import draw_people
from cdkd_ext.training import TrainingConfig

RUN = "runs/alone"  # any run of `cdkd train` or `cdkd distill`
if not Path(RUN).exists():  # a network to try this with, trained for seconds
    cdkd_ext.train(TrainingConfig(output=RUN, data=DataConfig(synthetic_people=320, workers=0), epochs=2))
if not Path("people").exists():
    draw_people("people", 1)

image = read_image("people/images/000000.jpg")
predictor = cdkd_ext.Predictor.load(RUN)
poses = predictor(image, boxes=[(10, 5, 100, 120)])  # x, y, width, height of each person

for name, (x, y), score in zip(predictor.joints.names, poses.keypoints[0], poses.scores[0], strict=True):
    print(f"{name:15} {x:6.1f} {y:6.1f}  {score:.2f}")
save_image(draw_pose(image, poses.keypoints[0], predictor.joints), "pose.png")
