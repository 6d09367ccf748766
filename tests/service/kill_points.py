"""One person's way through an installation, and what a kill leaves at every point of it where something is written.

    python -m tests.service.kill_points FOLDER      a program of its own: it forks, so it has no threads

At each point the home is copied, as a process that is killed there would leave it; each copy is then recovered. Prints,
as JSON, how many points there are, how many of them leave different files, and what was found after the recovery that
should not be there.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from fixtures.installation import PHOTOS, picture
from likeness.artifacts import bundle
from likeness.config import Settings
from likeness.jobs import object_keys
from likeness.jobs.job import JobOrder, Notice
from likeness.service import Likeness, build
from likeness.storage.catalog import LOCAL
from likeness.storage.records import Receipt
from likeness.types import GeneratedImage, ImageRequest, Photo, Subject, blend_of
from tests.storage.cards import CARD, adapter
from tests.worker.claims import claimed, set_lease, stages_of

NAME = "zelda-quine"
CONSENT = b"the words of zelda quine"
ADDRESS = b"https://zelda.example/hook"
POINTS = ("os.rename", "os.remove", "os.rmdir", "tempfile.mkstemp", "sqlite3.connect")  # audit events, PEP 578


def opened(home: Path) -> Likeness:
    return build(Settings(home=home))


def live(likeness: Likeness) -> None:
    """Subject, photographs, training, adapter, portrait; then everything is forgotten."""
    training = likeness.training
    likeness.subjects.create(LOCAL, Subject(NAME, "dog"), consent=CONSENT.decode())
    likeness.subjects.add_photos(LOCAL, NAME, [Photo("1.jpg", picture(50))])
    order = JobOrder(LOCAL, NAME, "", "dog", "fast", notices=(Notice("webhook", ADDRESS.decode()),))
    job = training.submit(order, archive=PHOTOS)
    training.deliveries.test(LOCAL, order.notices[0])
    claim, stages = claimed(training.database), stages_of(training)
    stages.fetch(claim, job.order)
    kept, content = bundle.encode(adapter(NAME))
    objects = training.objects
    objects.put(object_keys.prepared_key(LOCAL, job.id), picture(51))
    objects.put(f"{object_keys.checkpoints_prefix(LOCAL, job.id)}000001.safetensors", content + b"state")
    objects.put(object_keys.trained_key(LOCAL, job.id), content)
    stages.publish(claim, job.order, kept.card.content_sha256)
    training.queue.store.finish(claim, "succeeded", keep_photos_s=0.0)
    stages.clean_up(claim, job.order)
    pixels = np.zeros((8, 8, 3), np.uint8)
    image = GeneratedImage(ImageRequest(NAME, blend_of(NAME)), pixels, CARD.base_sha256, kept.card.content_sha256, 1.0)
    likeness.keep(image, content, "image/png")
    likeness.forget(NAME, wait_s=0.0)


def recovered(home: Path) -> Receipt | None:
    """What a start of the server does, and what a user who wants to be forgotten does then."""
    likeness = opened(home)
    try:
        set_lease(likeness.training.database, 1.0)  # by then the lease of the worker that was killed has expired
        likeness.forgetting.sweep()
        likeness.forgetting.resume()
        if likeness.forgetting.knows(LOCAL, NAME):
            return likeness.forget(NAME, wait_s=0.0)
        return None
    finally:
        likeness.close()


def left(home: Path) -> list[str]:
    """Where something of the person still is."""
    kept, content = bundle.encode(adapter(NAME))
    secrets = [CONSENT, ADDRESS, kept.card.content_sha256.encode(), content[-64:], PHOTOS[2000:2064], picture(51)[-64:]]
    found = []
    for path in sorted(home.rglob("*")):
        if NAME in path.name:
            found.append(path.name)
        if path.is_file():
            read = path.read_bytes()
            found += [f"{path.relative_to(home)}: {secret[:20]!r}" for secret in secrets if secret in read]
            if not path.name.startswith("catalog.sqlite") and NAME.encode() in read:
                found.append(f"{path.relative_to(home)}: the name")
    found += [f"catalog: {table}" for table in _tables_with_the_name(home / "catalog.sqlite") if table != "receipts"]
    return found


def _tables_with_the_name(path: Path) -> Iterator[str]:
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        for table in sa.inspect(connection).get_table_names():
            rows = connection.exec_driver_sql(f'SELECT * FROM "{table}"').fetchall()
            if any(NAME in str(value) for row in rows for value in row):
                yield table
    engine.dispose()


def copied(home: Path, copy: Path) -> None:
    """In a process of its own: to close a file of SQLite's in this one would release the locks on it."""
    if (child := os.fork()) == 0:
        code = 1
        try:
            shutil.copytree(home, copy)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def content(home: Path) -> str:
    """Equal for homes with the same files."""
    found = hashlib.sha256()
    for path in sorted(home.rglob("*")):
        read = path.read_bytes() if path.is_file() else b""
        found.update(f"{path.relative_to(home)} {len(read)} ".encode() + read)
    return found.hexdigest()


def main(folder: Path) -> dict[str, object]:
    home, copies = folder / "home", list[Path]()
    likeness = opened(home)
    assert not likeness.training.queue.backlog().open_jobs and not likeness.catalog.object_keys()  # both are made
    is_alive = True

    def pass_one(*_: object) -> None:
        """What a process that is killed here leaves behind: nothing of it writes any more."""
        if is_alive:
            copies.append(folder / f"killed-{len(copies) + 1}")
            copied(home, copies[-1])

    def audit(event: str, arguments: object) -> None:
        if event in POINTS:
            pass_one()

    sys.addaudithook(audit)
    sa.event.listen(sa.Engine, "commit", pass_one)
    live(likeness)
    likeness.close()
    is_alive = False
    problems: dict[str, list[str]] = {}
    states: set[str] = set()
    for copy in [*copies, home]:
        if (state := content(copy)) not in states:  # else what is done now is what was done for the same files
            states.add(state)
            recovered(copy)
            if found := left(copy):
                problems[copy.name] = found
        shutil.rmtree(copy)
    return {"points": len(copies), "states": len(states), "problems": problems}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
