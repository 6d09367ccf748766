"""Orphaned objects: written by a process that was killed before it wrote the row.

    <tenant>/photos|adapters|outputs/...   owned by a row of the catalog
    <tenant>/jobs/<job>/...                owned by the job's row
    <tenant>/uploads/...                   owned by the open job that was submitted with it

Rows are read after objects are listed, so new objects are not taken for orphans; objects being written are skipped, see
`Objects.alone`.
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
    """Delete partly written files and orphaned objects; returns the number of objects.

    If objects, catalog and queue are not all in the home folder, nothing is deleted unless the catalog or the queue
    owns an object in this store, so that wrong settings do not empty another installation's store.

    Raises:
        StorageUnavailable: the store or a database is unavailable.
    """
    objects = training.objects
    found = [facts for facts in objects.list("") if _is_ours(facts.key)]
    suspects = _unowned(found, catalog, training)
    if suspects and not training.is_at_home and len(suspects) == len(found):
        _log.warning("no object in the store belongs to this installation, so none was deleted: check LIKENESS_OBJECTS")
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
