"""/v1/backup: a tenant's zip, and restoring it."""

import io
import zipfile
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from fixtures.published import publish_person
from likeness.config import Settings
from likeness.http.app import create_app
from likeness.service import Likeness, build
from likeness.storage.api_keys import new_key


@pytest.fixture
def other(tmp_path: Path, likeness: Likeness) -> Likeness:
    """Another installation of the same base."""
    return build(Settings(home=tmp_path / "other", base=likeness.settings.base))


def test_a_backup_moves_everything_to_another_server(client: TestClient, likeness: Likeness, other: Likeness) -> None:
    client.post("/v1/subjects", json={"name": "cara", "class_noun": "cat"})
    answer = client.get("/v1/backup")
    assert answer.headers["content-type"] == "application/zip" and ".zip" in answer.headers["content-disposition"]
    names = zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
    assert {"adapters/anna.safetensors", "backup.json"} <= set(names)
    with TestClient(create_app(other), base_url="http://localhost") as there:
        sent = {"file": ("backup.zip", answer.content)}
        found = there.post("/v1/backup", files=sent).json()
        assert (found["subjects"], found["adapters"]) == (1, 3)
        assert [one["name"] for one in found["left_out"]] == ["broken"]  # its file is cut off
        assert there.get("/v1/adapters/anna").json() == client.get("/v1/adapters/anna").json()
        again = there.post("/v1/backup", files=sent).json()
        assert again == found | {"subjects": 0, "adapters": 0, "photos": 0, "images": 0, "jobs": 0}
        refused = there.post("/v1/backup", files={"file": ("x.zip", b"no zip")})
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "ArchiveRefused")
        there.delete("/v1/adapters/anna")
        assert "anna" in [one["name"] for one in there.post("/v1/backup", files=sent).json()["left_out"]]
        assert there.post("/v1/backup?restore_deleted=true", files=sent).json()["adapters"] == 1
    other.close()


def test_a_tenant_backs_up_and_restores_its_own(other: Likeness) -> None:
    publish_person(other, "anna", 1)
    publish_person(other, "dora", 2, tenant="second")
    keys = {tenant: new_key(other.catalog, tenant)[0] for tenant in ("local", "second", "third")}
    with TestClient(create_app(other, needs_keys=True), base_url="http://localhost") as there:
        assert there.get("/v1/backup").status_code == there.post("/v1/backup").status_code == 401

        def headers(tenant: str) -> dict[str, str]:
            return {"X-Api-Key": keys[tenant]}

        content = there.get("/v1/backup", headers=headers("second")).content
        assert zipfile.ZipFile(io.BytesIO(content)).namelist() == ["adapters/dora.safetensors", "backup.json"]
        there.post("/v1/backup", files={"file": content}, headers=headers("third"))
        found = {tenant: there.get("/v1/adapters", headers=headers(tenant)).json() for tenant in keys}
    names = {tenant: [one["name"] for one in page["adapters"]] for tenant, page in found.items()}
    assert names == {"local": ["anna"], "second": ["dora"], "third": ["dora"]}
    other.close()
