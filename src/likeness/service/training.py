"""The job queue of one installation, for the command line, the HTTP server and the workers.

The queue and its database are opened at first use. Importing this loads neither torch nor a database driver.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..config import Settings, listed
from ..errors import InputRefused, LikenessError, NotFound, UsageError
from ..storage import forgettings
from ..storage.catalog import being_deleted
from ..storage.consent import require_consent
from ..storage.database import sqlite_url
from ..storage.home import Home
from ..storage.library import AdapterLibrary
from ..storage.objects import Objects, objects_at
from ..storage.records import ForgottenItem, SubjectRecord
from ..types import RESULTS, Subject

if TYPE_CHECKING:
    from ..jobs.deliveries import DeliveryLog
    from ..jobs.inputs import JobInput
    from ..jobs.job import Job, JobOrder
    from ..jobs.locations import Locations
    from ..jobs.queue import Queue
    from ..storage.database import Database
    from ..worker.notifier import Notifier
    from ..worker.senders import SendOptions
    from ..worker.worker import Worker

T = TypeVar("T")

DATABASE_FILE = "jobs.sqlite"
SECRET = "webhook secret"
DAY_S = 86_400.0


@dataclass(frozen=True, eq=False)
class Training:
    """The job queue of one installation, opened at first use."""

    settings: Settings
    library: AdapterLibrary
    _open: dict[str, Any] = field(default_factory=dict, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @property
    def objects(self) -> Objects:
        return self.library.objects

    @property
    def home(self) -> Path:
        return self.settings.home.expanduser().absolute()

    @property
    def is_used(self) -> bool:
        """Whether a queue exists; a machine that trains only at the command line has none."""
        return self.settings.jobs is not None or (self.home / DATABASE_FILE).exists()

    @property
    def database(self) -> Database:
        """Raises StorageUnavailable."""
        from ..jobs.tables import open_jobs_database

        url = self.settings.jobs or sqlite_url(self.home / DATABASE_FILE)
        return self._opened("database", lambda: open_jobs_database(url))

    @property
    def queue(self) -> Queue:
        """Submit, status, list, cancel, events. Raises StorageUnavailable."""
        from ..jobs.queue import Queue

        return self._opened("queue", lambda: Queue(self.database, self.library.catalog.content_sha256))

    @cached_property
    def locations(self) -> Locations:
        """Where jobs may read from and write to."""
        from ..jobs.locations import Locations

        return Locations(self.objects, listed(self.settings.job_inputs), self.outputs_url)

    @property
    def objects_url(self) -> str:
        return self.settings.objects or str(self.home / "objects")

    @property
    def outputs_url(self) -> str:
        """Under which results of the SageMaker protocol are written."""
        if self.settings.job_outputs is not None:
            return self.settings.job_outputs
        place = (
            self.objects_url if "://" in self.objects_url else Path(self.objects_url).expanduser().absolute().as_uri()
        )
        return f"{place.rstrip('/')}/{RESULTS}"

    @cached_property
    def send_options(self) -> SendOptions:
        """Settings of the senders. Creates the installation's webhook secret at first use."""
        from ..worker.senders import SendOptions

        settings = self.settings
        topics = {*listed(settings.sns_topics), settings.sns_success_topic, settings.sns_error_topic} - {None}
        return SendOptions(
            webhook_secret=self._secret(), private_webhooks=bool(settings.private_webhooks), smtp=settings.smtp,
            mail_from=settings.mail_from, sns_topics=tuple(filter(None, topics)),
        )  # fmt: skip

    @property
    def deliveries(self) -> DeliveryLog:
        """The messages about jobs, sent or waiting. Raises StorageUnavailable."""
        from ..jobs.deliveries import DeliveryLog

        return DeliveryLog(self.database)

    @property
    def notifier(self) -> Notifier:
        """Sends the messages that are due. Raises StorageUnavailable."""
        from ..worker.notifier import Notifier
        from ..worker.senders import senders

        return self._opened("notifier", lambda: Notifier(self.database, senders(self.send_options, self.locations)))

    def upload(self, tenant: str, name: str, archive: bytes) -> str:
        """Keep an archive of photographs for a job of this name; returns what `JobOrder.photos` takes."""
        from ..jobs.object_keys import upload_key

        key = upload_key(tenant, name, archive)
        self.objects.put(key, archive)
        return key

    def class_noun(self, tenant: str, name: str) -> str:
        """The default class noun of an order: that of the recorded subject of its name ("": a style), or `person`."""
        try:
            return self.library.catalog.find_subject(tenant, name).class_noun
        except NotFound:
            return Subject.class_noun

    def submit(
        self, order: JobOrder, *, archive: bytes | None = None, consent: str = "", idempotency_key: str | None = None
    ) -> Job:
        """Check the order's consent, notices and location of photographs, and put it into the queue.

        Args:
            archive: of photographs, to be kept until the job is over; it takes the place of `order.photos`, and a
                config.json in it goes before the order.
            consent: who agreed; a subject that is not known yet is recorded with it.

        Raises:
            AdapterBusy: the name is being deleted.
            ConsentMissing: a person without consent. For an invocation whose archive lies elsewhere, the name is not
                known yet: the worker checks every job again before the photographs are prepared.
            UsageError, InputRefused: a notice, a location or a config.json that is not allowed.
            Mismatch: the recipe's rank is above the installation's largest.
            AlreadyExists, AdapterBusy, QueueFull: see `Queue.submit`.
        """
        from ..jobs.inputs import with_config
        from ..jobs.job import SUBJECT_PHOTOS
        from ..training.recipe import check_rank
        from ..worker.senders import check_notice

        for notice in order.notices:
            check_notice(notice, self.send_options)
        says_whose = order.invocation is None
        if archive is not None and (sent := _read(archive)) is not None:
            order, consent, says_whose = with_config(order, sent.config), sent.consent or consent, True
        elif archive is None and order.photos != SUBJECT_PHOTOS:
            self.locations.resolve(order.photos, order.tenant)
        check_rank(order.fine_tune().recipe, self.settings.rank)
        queue = self.queue  # opened here: no writer shall wait for that
        with self.objects.writing():
            if forgettings.is_under_way(self.library.catalog, order.tenant, order.name):
                raise being_deleted()
            recorded = self._consented(order, consent) if says_whose else None
            try:
                if archive is not None:
                    order = self._uploaded(order, archive)
                job = queue.submit(order, idempotency_key=idempotency_key)
            except LikenessError:
                queue.store.drop_upload(self.objects, order)
                if recorded is not None and not queue.ids_of(order.tenant, order.name):
                    self.library.catalog.withdraw_subject(recorded)
                raise
        if archive is not None and job.is_over:  # ordered before, with the same key
            self.queue.store.drop_upload(self.objects, order)
        elif archive is not None and not self.objects.has(order.photos):  # the end of an equal job took it along
            self.objects.put(order.photos, archive)
        return job

    def _consented(self, order: JobOrder, consent: str) -> SubjectRecord | None:
        subject = Subject(order.name, order.class_noun)
        return require_consent(self.library.catalog, order.tenant, subject, consent=consent)

    def _uploaded(self, order: JobOrder, archive: bytes) -> JobOrder:
        """Store the archive; returns the order with its key."""
        key, call = self.upload(order.tenant, order.name, archive), order.invocation
        return replace(
            order, photos=key, invocation=None if call is None else replace(call, input_location=key)
        )  # fmt: skip

    def expire(self) -> None:
        """End the jobs that waited too long, also where no worker runs. Does nothing before the queue is opened here.

        Raises:
            StorageUnavailable: the database is away; the next time will do.
        """
        if "queue" in self._open:
            self.queue.store.expire()

    def deliver(self) -> None:
        """Send the messages that are due. Otherwise as `expire`."""
        if "queue" in self._open:
            self.notifier.deliver_due()

    def purge(self) -> None:
        """Delete the photographs of finished jobs whose time is over. Otherwise as `expire`."""
        if "queue" in self._open:
            from ..jobs.retention import Retention

            Retention(self.database, self.objects, self.library.catalog).purge_due()

    def holds(self, tenant: str, name: str) -> bool:
        """Whether there is a job of this name, or an archive that was uploaded for one."""
        if not self.is_used:
            return False
        from ..jobs.object_keys import uploads_prefix

        return bool(self.queue.ids_of(tenant, name)) or any(self.objects.list(uploads_prefix(tenant, name)))

    def forget(self, tenant: str, name: str) -> list[ForgottenItem]:
        """Delete what the queue, its log and the object store hold of a name's jobs; open ones are cancelled.

        To be repeated while `holds`: see `jobs.retention`.
        """
        if not self.is_used:
            return []
        from ..jobs.retention import forget_jobs

        return forget_jobs(self.queue, self.objects, self.locations, tenant=tenant, name=name)

    def scrub(self) -> bool:
        """Remove deleted rows from the log of the queue's database; False: to be tried again."""
        return self.database.scrub() if self.is_used else True

    def places(self) -> tuple[Objects, ...]:
        """The stores that this service writes to: our objects, and the location of results if it is in use."""
        return (self.objects, objects_at(self.outputs_url)) if self.is_used else (self.objects,)

    @property
    def is_at_home(self) -> bool:
        """Whether objects, catalog and queue are all this home's own."""
        return self.settings.objects is self.settings.catalog is self.settings.jobs is None

    def owned(self) -> tuple[frozenset[tuple[str, str]], frozenset[str]]:
        """Tenant and id of every job, and where the photographs of the open ones are. Raises StorageUnavailable."""
        return (self.queue.store.ids(), self.queue.store.uploads()) if self.is_used else (frozenset(), frozenset())

    def worker(
        self, id: str, *, concurrency: int, exit_when_idle_s: float | None = None, previews: int = 1,
        scores: bool = True,
    ) -> Worker:  # fmt: skip
        """A worker for this process. Raises UsageError for an id that cannot be one."""
        from ..worker.worker import Worker, WorkerOptions
        from .forgetting import Forgetting

        if not id or len(id) > 200 or not all(letter.isalnum() or letter in "-_." for letter in id):
            raise UsageError("expected a worker's id of letters, digits and - _ .")
        settings = self.settings
        options = WorkerOptions(
            id=id, base=settings.base, revision=settings.revision, objects=self.objects_url, home=self.home,
            concurrency=concurrency, beat_s=settings.heartbeat_s, exit_when_idle_s=exit_when_idle_s,
            keep_photos_s=settings.keep_photos_days * DAY_S, rank=settings.rank, previews=previews, scores=scores,
            wait_s=settings.training_wait_s, memory_share=settings.training_memory / 100,
        )  # fmt: skip
        forgetting = Forgetting(self.library, Home(self.home), self)
        return Worker(
            options, self.database, self.library, locations=self.locations, notifier=self.notifier,
            resume=forgetting.resume, sweep=forgetting.sweep,
        )  # fmt: skip

    def close(self) -> None:
        """Close the connections; the next use opens them again."""
        with self._lock:
            opened, names = dict(self._open), ("notifier", "queue", "database")
            self._open.clear()
        for name in names:
            if name in opened:
                opened[name].close()
        self.library.catalog.close()

    def _opened(self, name: str, make: Callable[[], T]) -> T:
        """One of each per process; requests come on many threads."""
        with self._lock:
            if name not in self._open:
                self._open[name] = make()
            found: T = self._open[name]
            return found

    def _secret(self) -> bytes:
        """The installation's webhook secret, created once and shared by its machines."""
        from ..jobs.tables import remembered

        return remembered(self.database, SECRET, secrets.token_hex(32)).encode()


def library_of(settings: Settings) -> AdapterLibrary:
    """The object store and the catalog that the settings name, by default in the home. Raises SettingsError."""
    from ..storage.catalog import Catalog

    root = settings.home.expanduser().absolute()
    catalog = Catalog(settings.catalog or sqlite_url(root / "catalog.sqlite"))
    return AdapterLibrary(objects_at(settings.objects or str(root / "objects")), catalog)


def training_of(settings: Settings) -> Training:
    """Wire the training service alone. Raises SettingsError."""
    return Training(settings, library_of(settings))


def _read(archive: bytes) -> JobInput | None:
    """The content of an archive; None if it cannot be read, which the worker reports. Raises InputRefused."""
    from ..jobs.inputs import read_input

    try:
        return read_input(archive)
    except InputRefused as error:
        if error.code != "ArchiveRefused":
            raise
        return None
