"""The containers: AWS' images that ours are made from, and how to make them.

Account 763104351884 is that of AWS' Deep Learning Containers; other partitions have others. Sources: aws/deep-learning-
containers, 'available images'; sagemaker-python-sdk, image_uri_config, read in November 2026.
"""

from importlib import resources
from pathlib import Path

ACCOUNT = "763104351884"
TRITON = f"{ACCOUNT}.dkr.ecr.$AWS_REGION.amazonaws.com/sagemaker-tritonserver:26.05-py3"
DJL = f"{ACCOUNT}.dkr.ecr.$AWS_REGION.amazonaws.com/djl-inference:0.36.0-lmi27.0.0-cu130"
TARGETS = ("hosting", "fine-tuning", "alone")


def recipe() -> bytes:
    """The Dockerfile; its context is the project's folder."""
    return (resources.files(__package__) / "image" / "Dockerfile").read_bytes()


def build_lines(dockerfile: Path) -> list[str]:
    """Shell lines that build and push the images; AWS_REGION and AWS_ACCOUNT are whoever runs them to set."""
    own = "$AWS_ACCOUNT.dkr.ecr.$AWS_REGION.amazonaws.com"
    log_in = "aws ecr get-login-password | docker login --username AWS --password-stdin"
    lines = [f"{log_in} {ACCOUNT}.dkr.ecr.$AWS_REGION.amazonaws.com", f"{log_in} {own}"]
    for target in TARGETS[:2]:
        image = f"{own}/likeness-{target}:latest"
        lines += [
            f"aws ecr create-repository --repository-name likeness-{target}",
            f"docker build -f {dockerfile} --target {target} -t {image} "
            f"--build-arg TRITON_IMAGE={TRITON} --build-arg DJL_IMAGE={DJL} .",
            f"docker push {image}",
        ]
    return lines
