"""Hosting on NVIDIA Triton and Amazon SageMaker. Only `cli`, the composition root, imports this package."""
