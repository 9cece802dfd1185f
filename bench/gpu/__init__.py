"""What there is to learn from a GPU, in one command of at most five minutes: `python -m bench.gpu`."""
