"""Where the product is taken to: Triton and SageMaker."""
