"""The operators in a training loop of your own: a student with 192 classes learns from a teacher with 768."""

import torch
from torch import nn

from cdkd_ext import ops

torch.manual_seed(0)
joints, teacher_bins, bins = 17, 768, 192  # 256 and 64 pixels, 3 bins each
student = nn.Linear(32, joints * bins)
optimizer = torch.optim.AdamW(student.parameters(), lr=1e-2)

features = torch.randn(8, 32)
teacher_logits = 3 * torch.randn(8, joints, teacher_bins)
coordinates = torch.rand(8, joints) * (bins - 1)  # in bins, not rounded

for step in range(20):
    logits = student(features).view(8, joints, bins)
    labels = ops.simcc_kl(logits, coordinates, sigma=4.0).mean()
    distillation = ops.cca_kl(logits, teacher_logits, 1.0).mean()
    loss = labels + 4 * distillation
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 5 == 0:
        print(f"step {step:2d}: labels {labels.item():.3f}, distillation {distillation.item():.3f}")

logits = student(features).view(8, joints, bins)
keypoints, scores = ops.simcc_decode(logits, logits, split_ratio=3.0)
print("keypoints", tuple(keypoints.shape), "in pixels, scores", tuple(scores.shape))
