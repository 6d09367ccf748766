"""The fine-tuning endpoint's handler, as DJL Serving calls it: an archive of photographs in, an adapter in S3 out.

The first call is empty and carries serving.properties and the environment; later ones carry HTTP headers only, so what
the first said is kept. Convention: djl-serving, engines/python/setup/djl_python.
"""

from djl_python import Input, Output

from likeness.deploy.sagemaker.fine_tuning_service import FineTuningService, service_from
from likeness.errors import LikenessError

_service: FineTuningService | None = None


def handle(inputs: Input) -> Output | None:
    """One request. A failure is an answer with its status, never a result."""
    global _service
    if _service is None:
        _service = service_from(inputs.get_properties())
    if inputs.is_empty():
        return None
    try:
        return Output().add_as_json(_service.fine_tune(inputs.get_as_bytes()))
    except LikenessError as error:
        return Output().error(f"{error.code}: {error}", code=error.http_status, message=error.code)
