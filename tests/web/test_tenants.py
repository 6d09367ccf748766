"""Two tenants of one server."""

import json
from pathlib import Path
from typing import Any

import pytest

from fixtures.browser import Visit, serving
from tests.web.steps import SCHEMES, consent, inspect

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_two_tenants_sign_in_and_see_their_own(browser: Any, tmp_path: Path) -> None:
    """At the same time, each in a browser of its own; the server and its keys are shared by both sizes."""
    from likeness.config import Settings
    from likeness.service import build
    from likeness.storage.api_keys import new_key

    home = tmp_path / "home"
    home.mkdir()
    installation = build(Settings(home=home))
    keys = {tenant: new_key(installation.catalog, tenant)[0] for tenant in ("local", "other")}
    installation.close()
    with serving(home, "--require-keys") as url:
        for round, form in enumerate(SCHEMES, start=1):
            visits = {tenant: Visit(browser, url, form, scheme=SCHEMES[form]) for tenant in keys}
            for tenant, visit in visits.items():
                visit.allowed = ("401", "404")
                page = visit.open()
                page.get_by_role("heading", name="Sign in").wait_for()
                inspect(visit)
                page.get_by_label("API key").fill(keys[tenant])
                page.get_by_role("button", name="Sign in").click()
                page.get_by_role("link", name="Start with my photographs").click()
                consent(visit, f"of-{tenant}-{form}")
            for tenant, visit in visits.items():
                page, other = visit.page, "local" if tenant == "other" else "other"
                page.goto(f"{url}/#/people")
                page.get_by_role("link", name=f"of-{tenant}-{form}").wait_for()
                assert page.locator(".person").count() == round
                assert page.get_by_text(f"of-{other}").count() == 0
                visit.open(f"person/of-{other}-{form}").get_by_text("There is no person with this name.").wait_for()
                assert page.get_by_role("link", name="Operator").count() == (tenant == "local")
                said = page.evaluate("[document.cookie, {...localStorage}, {...sessionStorage}]")
                assert "lk_" not in json.dumps(said)
            visits["local"].page.get_by_role("link", name="Operator").click()
            visits["local"].page.get_by_text("other").first.wait_for()
            inspect(visits["local"])
            for visit in visits.values():
                visit.page.get_by_role("button", name="Sign out").click()
                visit.page.get_by_role("heading", name="Sign in").wait_for()
                visit.end()
