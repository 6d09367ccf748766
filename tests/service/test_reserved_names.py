"""Reserved names are refused in every protocol."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert

from fixtures.installation import archive, picture
from likeness.config import Settings
from likeness.errors import InputRefused, KeyRefused, LikenessError, UsageError
from likeness.jobs.inputs import with_config
from likeness.jobs.job import JobOrder
from likeness.service import Likeness, build
from likeness.storage import api_keys, catalog_tables
from likeness.storage.catalog import LOCAL, now
from likeness.training.recipe import FineTuneOrder, recipe_named
from likeness.types import RESULTS, Subject, checked_name, checked_new_name, checked_tenant
from tests.storage.cards import record

NAMES = ["base", "model_setup"]


@pytest.fixture
def likeness(tmp_path: Path) -> Iterator[Likeness]:
    made = build(Settings(home=tmp_path / "home", job_inputs=f"file://{tmp_path}/inputs"))
    yield made
    made.close()


def configured(name: str) -> bytes:
    return archive({"1.jpg": picture(1), "config.json": json.dumps({"name": name}).encode()})


DOORS: dict[str, Callable[[Likeness, str], object]] = {
    "train": lambda one, name: one.train([], FineTuneOrder(Subject(name, "dog"), recipe_named("fast"))),
    "import": lambda one, name: one.import_adapter(Path("x"), name, "peft"),
    "publish": lambda one, name: one.catalog.publish(record(name)),
    "subject": lambda one, name: one.subjects.create(LOCAL, Subject(name, "dog"), consent=""),
    "job": lambda one, name: one.training.submit(JobOrder(LOCAL, name, "", "dog", "fast"), archive=archive({})),
    "config": lambda one, name: one.training.submit(JobOrder(LOCAL, "x", "", "dog"), archive=configured(name)),
    "worker": lambda one, name: with_config(JobOrder(LOCAL, "x", "", "dog"), {"name": name}),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("door", DOORS)
def test_a_reserved_name_is_refused_at_every_door(likeness: Likeness, door: str, name: str) -> None:
    with pytest.raises(LikenessError, match=f"{name}, which is reserved") as refused:
        DOORS[door](likeness, name)
    assert isinstance(refused.value, UsageError | InputRefused)
    assert likeness.training.queue.jobs_of(LOCAL) == []
    assert list(likeness.library.objects.list("")) == []


def test_only_what_is_reserved_is_refused() -> None:
    for name in ("base-2", "async", "model-setup", "bases", "local"):
        assert checked_new_name(name) == name
    for tenant in ("base", "model_setup", "local", "async-2"):
        assert checked_tenant(tenant) == tenant
    for name in NAMES:
        assert checked_name(name) == name  # an adapter of before can still be looked up and forgotten


def test_the_folder_of_all_results_is_no_tenants(likeness: Likeness) -> None:
    with pytest.raises(UsageError, match="async, which is reserved"):
        api_keys.new_key(likeness.catalog, RESULTS)
    with pytest.raises(UsageError, match="async, which is reserved"):
        likeness.training.queue.submit(JobOrder(RESULTS, "x", "subject", "dog"))
    likeness.library.objects.put("async/ten-a/failures/1-error.out", b"another's")
    for location in ("async/ten-a/failures/1-error.out", f"{likeness.settings.job_inputs}/async/x"):
        with pytest.raises(InputRefused, match="async, which is reserved"):
            likeness.training.locations.read(location, RESULTS)


def test_a_key_of_before_is_refused(likeness: Likeness) -> None:
    text, made = api_keys.new_key(likeness.catalog, "anna")
    with likeness.catalog.engine.begin() as connection:
        connection.execute(insert(catalog_tables.tenants).values(tenant=RESULTS, created=now()))
        connection.execute(catalog_tables.api_keys.update().values(tenant=RESULTS))
    with pytest.raises(KeyRefused, match="reserved"):
        api_keys.key_of(likeness.catalog, text)
    assert [one.id for one in api_keys.list_keys(likeness.catalog)] == [made.id]


def test_results_lie_where_no_tenant_can_be(likeness: Likeness) -> None:
    assert likeness.training.outputs_url.endswith(f"/{RESULTS}")
    with pytest.raises(UsageError):
        checked_tenant(RESULTS)
