"""Export a network and run the file with onnxruntime and OpenCV alone, as on a device without torch."""

import json

import cv2
import numpy as np
import onnxruntime

from cdkd_ext import create_model
from cdkd_ext.checkpoints import save_model
from cdkd_ext.deployment import export_network
from cdkd_ext.joints import COCO_JOINTS
from cdkd_ext.synthetic import draw_people

network = create_model("lowres_small", input_size=(32, 32), num_joints=17, joints=COCO_JOINTS)
save_model(network, "student.safetensors")  # any run or checkpoint will do; this one has learnt nothing
draw_people("people", 1)
print(export_network("student.safetensors", "student.onnx"))

# from here on, what the device does
session = onnxruntime.InferenceSession("student.onnx")
metadata = session.get_modelmeta().custom_metadata_map
height, width = json.loads(metadata["input_size"])

image = cv2.imread("people/images/000000.jpg", cv2.IMREAD_COLOR_RGB)
x, y, w, h = 10, 5, 100, 120  # the person's box
scale = min(width / w, height / h) / json.loads(metadata["padding"])
sides = np.array([width, height]) - json.loads(metadata["unbiased_crop"])  # of some, from first to last pixel
scales = scale * sides / [width, height]
to_crop = np.column_stack([np.diag(scales), sides / 2 - scales * [x + w / 2, y + h / 2]])
area = metadata["resample"] == "area"  # the mean over what a pixel covers, or what lies in its middle
samples = max(1, round(1 / scale + 0.5)) if area else 1
finer = samples * to_crop + [0, 0, (samples - 1) / 2]
crop = cv2.warpAffine(image, finer, (samples * width, samples * height))
crop = cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA)

keypoints, scores = session.run(["keypoints", "scores"], {"images": crop[None]})
names = json.loads(metadata["joints"])["keypoints"]
for name, (x, y), score in zip(names, (keypoints[0] - to_crop[:, 2]) / scales, scores[0], strict=True):
    print(f"{name:15} {x:6.1f} {y:6.1f}  {score:.2f}")
