"""Export a network and run the file with onnxruntime and OpenCV alone, as on a device without torch."""

import json
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

from cdkd_ext import create_model
from cdkd_ext.checkpoints import save_model
from cdkd_ext.deployment import export_network
from cdkd_ext.joints import COCO_JOINTS
from cdkd_ext.synthetic import draw_people

if not Path("student.safetensors").exists():  # any run or checkpoint will do; this one has learnt nothing
    network = create_model("lowres_small", input_size=(32, 32), num_joints=17, joints=COCO_JOINTS)
    save_model(network, "student.safetensors")
    draw_people("people", 1)
print(export_network("student.safetensors", "student.onnx"))

# from here on, what the device does
session = onnxruntime.InferenceSession("student.onnx")
metadata = session.get_modelmeta().custom_metadata_map
height, width = json.loads(metadata["input_size"])

image = cv2.cvtColor(cv2.imread("people/images/000000.jpg"), cv2.COLOR_BGR2RGB)
x, y, w, h = 10, 5, 100, 120  # the person's box
scale = min(width / w, height / h) / json.loads(metadata["padding"])
to_crop = np.array([[scale, 0, width / 2], [0, scale, height / 2]])
to_crop[:, 2] -= scale * np.array([x + w / 2, y + h / 2])
samples = (
    max(1, round(1 / scale + 0.5)) if metadata["resample"] == "area" else 1
)  # a pixel's mean, or its middle
finer = samples * to_crop + np.array([[0, 0, (samples - 1) / 2]])
crop = cv2.warpAffine(image, finer, (samples * width, samples * height))
crop = cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA)

keypoints, scores = session.run(["keypoints", "scores"], {"images": crop[None]})
in_image = (keypoints[0] - to_crop[:, 2]) / scale
for name, point, score in zip(json.loads(metadata["joints"])["keypoints"], in_image, scores[0], strict=True):
    print(f"{name:15} {point[0]:6.1f} {point[1]:6.1f}  {score:.2f}")
