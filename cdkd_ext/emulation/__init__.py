"""What can be known of the CUDA kernels without a GPU: they run on the CPU, and their machine code can be read.

Every op has a module with its call in numpy and its passes of the launch plan; the other modules are the harness.
"""
