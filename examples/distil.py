"""Distil one network into another in a training loop of your own."""

import torch

import cdkd_ext

torch.manual_seed(0)
teacher = cdkd_ext.create_model("hrnet_w16_small", input_size=(128, 128), num_joints=14)
student = cdkd_ext.create_model("hrnet_w8_small", input_size=(32, 32), num_joints=14)

# sizes, joints and bins come from the networks
task = cdkd_ext.DistillationTask(student, teacher)
# the student, and what only its training needs
optimizer = torch.optim.AdamW(task.parameters(), lr=2e-3)

# the same four people for both, RGB uint8; a real loop reads them from a data loader
images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
teacher_images = torch.randint(0, 256, (4, 3, 128, 128), dtype=torch.uint8)
keypoints = torch.rand(4, 14, 2) * 31  # pixels of the student's crops
annotated = torch.ones(4, 14)

for step in range(5):
    losses = task(images, teacher_images, keypoints, annotated)
    optimizer.zero_grad()
    losses["total"].backward()
    optimizer.step()
    print(f"step {step}:", {name: round(loss.item(), 3) for name, loss in losses.items()})

# nothing of the task is needed to use the student
torch.save(student.state_dict(), "student.pth")
