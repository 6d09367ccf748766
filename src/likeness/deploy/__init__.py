"""Hosting on NVIDIA Triton, Ray Serve and Amazon SageMaker. Only `cli`, the composition root, imports this package."""
