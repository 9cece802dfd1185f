"""What surrounds the steps of a training: caches, and students that share a loader."""
