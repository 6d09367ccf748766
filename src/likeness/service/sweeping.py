"""Objects that nobody owns: what a process that was killed put into the store and did not live to write a row for.

    <tenant>/photos|adapters|outputs/...   owned by a row of the catalog
    <tenant>/jobs/<job>/...                owned by the job's row
    <tenant>/uploads/...                   owned by an open job that was ordered with it

Rows are read after the objects were listed, so what came meanwhile is not taken for an orphan; what is being written
is left alone, see `Objects.alone`.
"""

import logging
import re
from collections.abc import Sequence
from datetime import UTC, datetime

from ..storage.catalog import Catalog
from ..storage.objects import ObjectFacts
from .training import Training

_log = logging.getLogger(__name__)
_NAME = r"[a-z0-9][a-z0-9_-]{0,62}"
_JOB = re.compile(rf"({_NAME})/jobs/([0-9a-f]{{24}})/.+")
_UPLOAD = re.compile(rf"{_NAME}/uploads/{_NAME}/[0-9a-f]{{64}}")
_OF_A_ROW = re.compile(
    rf"{_NAME}/(photos/{_NAME}/[0-9a-f]{{64}}|adapters/{_NAME}/[0-9a-f]{{64}}\.safetensors|outputs/{_NAME}/[0-9a-f]{{32}})"
)
_WRITERS_S = 2.0


def sweep(catalog: Catalog, training: Training) -> int:
    """Delete half-written files and objects without an owner; returns how many objects those were.

    Where objects, catalog and queue are not all in the home, nothing is deleted unless the catalog or the queue owns
    something in this store: settings that name another's store must not empty it.

    Raises:
        StorageUnavailable: the store or a database is away.
    """
    objects = training.objects
    found = [facts for facts in objects.list("") if _is_ours(facts.key)]
    suspects = _unowned(found, catalog, training)
    if suspects and not training.is_at_home and len(suspects) == len(found):
        _log.warning("no object of the store has an owner here, so none was deleted: is it another installation's?")
        return 0
    objects.prune("")
    count = 0
    for place in training.places():
        with place.alone(_WRITERS_S) as is_alone:
            if place is objects and is_alone:
                for facts in _unowned(suspects, catalog, training):
                    if abs((datetime.now(UTC) - facts.modified).total_seconds()) >= objects.grace_s:
                        objects.delete(facts.key)
                        count += 1
    return count


def _is_ours(key: str) -> bool:
    return any(form.fullmatch(key) for form in (_JOB, _UPLOAD, _OF_A_ROW))


def _unowned(found: Sequence[ObjectFacts], catalog: Catalog, training: Training) -> list[ObjectFacts]:
    if not found:
        return []
    rows = catalog.object_keys()
    jobs, uploads = training.owned()

    def is_owned(key: str) -> bool:
        if (parts := _JOB.fullmatch(key)) is not None:
            return (parts[1], parts[2]) in jobs
        return key in uploads or key in rows

    return [facts for facts in found if not is_owned(facts.key)]
