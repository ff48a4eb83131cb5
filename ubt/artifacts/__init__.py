"""Artifacts, the results of stages: the store, what an artifact says of itself, and tensors in it."""
