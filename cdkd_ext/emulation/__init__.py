"""What can be known of the CUDA kernels without a GPU: they run on the CPU, and their machine code can be read."""
