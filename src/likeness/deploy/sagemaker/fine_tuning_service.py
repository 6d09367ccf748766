"""The fine-tuning container's work for one request: photographs -> adapter -> archive below the models' prefix.

The archive's key has the hash of the weights: a multi-model endpoint would not notice that an archive was replaced. A
failed fine-tune leaves no archive.
"""

import os
import secrets
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from ...config import Settings, settings_from
from ...errors import SettingsError
from ...jobs.inputs import read_input, refuse_without_photos, with_config
from ...jobs.job import JobOrder
from ...service import Likeness, build
from ...storage.catalog import LOCAL
from ...storage.consent import require_word
from ...storage.objects import Objects, objects_at
from ..triton.export import SUFFIX, archive

MODELS = "likeness_models"  # option.likeness_models in serving.properties, OPTION_LIKENESS_MODELS in the environment


@dataclass(frozen=True)
class FineTuningService:
    """One worker's settings and the store of archives; each request has an installation of its own.

    Args:
        models_url: s3://BUCKET/PREFIX of the multi-model endpoint, or a folder.
        open_likeness: settings -> an installation.
    """

    settings: Settings
    models_url: str
    models: Objects
    open_likeness: Callable[[Settings], Likeness] = build

    def fine_tune(self, content: bytes | None) -> dict[str, object]:
        """Train on an archive; its config.json has name, class noun, consent, recipe and seed.

        Returns:
            `status` and `output_location` as in the reference solution, and `target_model` for InvokeEndpoint.

        Raises:
            ConsentMissing: a person, and config.json has no consent. Without one, pictures of a thing or a style that
                show faces are left out.
            InputRefused, TrainingError, StorageUnavailable: nothing was published.
        """
        read = read_input(content or b"")
        job = with_config(JobOrder(LOCAL, f"avatar-{secrets.token_hex(4)}", "inline"), read.config)
        refuse_without_photos(read.photos)
        require_word(job.fine_tune().subject, read.consent)
        with tempfile.TemporaryDirectory(prefix="fine-tuning-") as home:  # with it the photographs are deleted
            settings = replace(self.settings, home=Path(home), objects=None, catalog=None)
            with closing(self.open_likeness(settings)) as likeness:
                card = likeness.train(
                    read.photos, job.fine_tune(likeness.family.name), keep_strangers=job.keep_strangers,
                    has_consent=bool(read.consent.strip()),
                ).card  # fmt: skip
                packed = archive(likeness.adapter(job.name))
        key = f"{job.name}-{card.content_sha256[:12]}{SUFFIX}"
        self.models.put(key, packed)
        return {
            "status": "Completed", "output_location": f"{self.models_url.rstrip('/')}/{key}", "target_model": key,
            "adapter_sha256": card.content_sha256, "steps": card.steps, "photos": card.photos,
        }  # fmt: skip


def service_from(properties: Mapping[str, str], environment: Mapping[str, str] = os.environ) -> FineTuningService:
    """The service that serving.properties and the environment describe. Raises SettingsError, MissingPart."""
    url = properties.get(MODELS) or environment.get(f"OPTION_{MODELS.upper()}")
    if not url:
        raise SettingsError(f"expected option.{MODELS}, the location for the archives of adapters, got none")
    return FineTuningService(settings_from(environment), url, objects_at(url))
