"""Keys of a job's objects. All of them lie under one prefix, so that forgetting is one sweep.

<tenant>/jobs/<job>/photos            the archive as it came
                    prepared.zip
                    checkpoints/<attempt>.safetensors
                    previews/<step>.png
                    adapter.safetensors    trained, not yet published
                    score.json
<tenant>/uploads/<name>/<sha256>      an archive that waits to be fetched
"""

import hashlib

from ..types import checked_name


def job_prefix(tenant: str, job: str) -> str:
    return f"{checked_name(tenant)}/jobs/{checked_name(job)}/"


def photos_key(tenant: str, job: str) -> str:
    return f"{job_prefix(tenant, job)}photos"


def prepared_key(tenant: str, job: str) -> str:
    return f"{job_prefix(tenant, job)}prepared.zip"


def checkpoints_prefix(tenant: str, job: str) -> str:
    return f"{job_prefix(tenant, job)}checkpoints/"


def preview_key(tenant: str, job: str, step: int) -> str:
    return f"{job_prefix(tenant, job)}previews/{step:05d}.png"


def trained_key(tenant: str, job: str) -> str:
    return f"{job_prefix(tenant, job)}adapter.safetensors"


def score_key(tenant: str, job: str) -> str:
    return f"{job_prefix(tenant, job)}score.json"


def uploads_prefix(tenant: str, name: str) -> str:
    return f"{checked_name(tenant)}/uploads/{checked_name(name)}/"


def upload_key(tenant: str, name: str, content: bytes) -> str:
    """Equal archives have equal keys, so an order that is sent twice is the same order."""
    return f"{uploads_prefix(tenant, name)}{hashlib.sha256(content).hexdigest()}"
