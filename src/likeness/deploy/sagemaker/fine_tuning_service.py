"""What the fine-tuning container does with one request: photographs -> adapter -> archive in the models' prefix.

The archive's key holds the hash of the weights, so none is ever overwritten: a multi-model endpoint would not notice.
A failed fine-tune leaves no archive.
"""

import os
import secrets
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from ...artifacts.triton.export import SUFFIX, artifact
from ...config import Settings, settings_from
from ...errors import SettingsError
from ...jobs.inputs import read_input, refuse_without_photos, with_config
from ...jobs.types import JobOrder
from ...service import Likeness, build
from ...storage.consent import require_word
from ...storage.objects import Objects, objects_at
from ...types import Subject

MODELS = "likeness_models"  # option.likeness_models in serving.properties, OPTION_LIKENESS_MODELS in the environment
TENANT = "local"
COMPLETED = "Completed"


@dataclass(frozen=True)
class FineTuningService:
    """One worker's state: settings and the place for archives; everything else is made and removed with a request.

    Args:
        models_url: s3://BUCKET/PREFIX of the multi-model endpoint, or a folder.
        open_likeness: settings -> an installation.
    """

    settings: Settings
    models_url: str
    models: Objects
    open_likeness: Callable[[Settings], Likeness] = build

    def fine_tune(self, content: bytes | None) -> dict[str, object]:
        """Train on an archive; config.json in it says name, class noun, consent, recipe and seed.

        Returns:
            `status` and `output_location` as the reference solution, and `target_model` for InvokeEndpoint.

        Raises:
            ConsentMissing: a person, and config.json does not say who agreed.
            InputRefused, TrainingError, StorageUnavailable: nothing was published.
        """
        from ...fine_tuning import FineTuneOrder  # torch
        from ...training.recipe import recipe_named

        read = read_input(content or b"")
        order = with_config(JobOrder(TENANT, f"avatar-{secrets.token_hex(4)}", "inline"), read.config)
        refuse_without_photos(read.photos)
        subject = Subject(order.name, order.class_noun)
        require_word(subject, read.consent)
        with tempfile.TemporaryDirectory(prefix="fine-tuning-") as home:  # photographs go with it
            settings = replace(self.settings, home=Path(home), objects=None, catalog=None)
            with closing(self.open_likeness(settings)) as likeness:
                tuned = likeness.train(
                    read.photos,
                    FineTuneOrder(
                        subject, recipe_named(order.recipe, **order.changes), seed=order.seed
                    ),
                    keep_strangers=order.keep_strangers,
                )  # fmt: skip
                packed = artifact(likeness.adapter(order.name))
        key = f"{order.name}-{tuned.card.content_sha256[:12]}{SUFFIX}"
        self.models.put(key, packed)
        return {
            "status": COMPLETED, "output_location": f"{self.models_url.rstrip('/')}/{key}", "target_model": key,
            "adapter_sha256": tuned.card.content_sha256, "steps": tuned.card.steps, "photos": tuned.card.photos,
        }  # fmt: skip


def service_from(properties: Mapping[str, str], environment: Mapping[str, str] = os.environ) -> FineTuningService:
    """The service that serving.properties and the environment describe. Raises SettingsError, MissingPart."""
    url = properties.get(MODELS) or environment.get(f"OPTION_{MODELS.upper()}")
    if not url:
        raise SettingsError(f"expected option.{MODELS}: where the archives of adapters go")
    return FineTuningService(settings_from(environment), url, objects_at(url))
