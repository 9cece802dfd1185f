"""Write a network's weights for other code bases, and read weights of theirs."""

import torch

import cdkd_ext
from cdkd_ext.checkpoints import load_checkpoint

network = cdkd_ext.create_model("hrnet_w8_small", input_size=(64, 64), num_joints=17, head="heatmap")

cdkd_ext.export(network, "official.pth")  # the names of HRNet, SimpleBaselines, SimCC and CDKD
cdkd_ext.export(network, "mmpose.pth", layout="mmpose")
print(next(iter(torch.load("official.pth", weights_only=True))))
print(next(iter(torch.load("mmpose.pth", weights_only=True)["state_dict"])))

other = cdkd_ext.create_model("hrnet_w8_small", input_size=(64, 64), num_joints=17, head="heatmap")
report = load_checkpoint(other, "mmpose.pth")  # whatever layout it has; nothing in the file is executed
print(report)
assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))
