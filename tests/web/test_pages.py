"""Every page: its layout, its barriers, and what it does without a server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from fixtures.browser import Visit, serving
from fixtures.waiting import HANG_S, until
from tests.web.steps import SCHEMES, inspect, ordered, wait_for

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@contextmanager
def running(client: httpx2.Client) -> Iterator[str]:
    """A training that runs, with a loss; gives its id."""
    job = ordered(client, "running", steps=20_000)
    try:
        until(lambda: '"loss":0.' in client.get(f"/jobs/{job}/events").text, pause_s=1.0)
        yield job
    finally:
        client.post(f"/jobs/{job}/cancel")
        wait_for(client, job, "cancelled")


def test_every_page_fits_stays_in_place_and_keeps_nobody_out(visit: Visit, trained: str) -> None:
    """In both themes; with people, pictures, a training that is over and one that runs."""
    own, other = SCHEMES[visit.form], SCHEMES["desktop" if visit.form == "phone" else "phone"]
    with httpx2.Client(base_url=f"{visit.url}/v1", timeout=HANG_S) as client, running(client) as runs:
        order = {"prompt": "photo of {me}", "adapter": trained, "steps": 1, "keep": True}
        assert client.post("/images", json=order).status_code == 200
        done = client.get("/jobs", params={"name": trained}).json()["jobs"][0]["id"]
        visit.record_shifts()
        pages = {
            "": "Go on with", "new": "How long", f"photos/{trained}": "Plan of shots", f"training/{runs}": "Loss",
            f"training/{done}": "The adapter is ready.", f"studio/{trained}": "Gallery", "studio": "Gallery",
            "people": "Make portraits", f"person/{trained}": "Export", "phone": "on a phone", "operator": "Versions",
            "sign-in": "API key", "nowhere": "There is no such page.",
        }  # fmt: skip
        for place, text in pages.items():
            visit.page.goto("about:blank")  # so that the page is loaded, not only another part of it shown
            visit.open(place).get_by_text(text).first.wait_for()
            if place != f"training/{runs}":  # whose events never end
                visit.page.wait_for_load_state("networkidle")
            visit.refuse_shifts()
            inspect(visit)
            visit.page.emulate_media(color_scheme=other)
            visit.refuse_barriers()
            visit.page.emulate_media(color_scheme=own)


def test_pages_recover_from_a_stopped_server(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    with serving(tmp_path / "home") as url:
        visits = [Visit(browser, url, form) for form in SCHEMES]
        for visit in visits:
            visit.allowed = ("ERR_CONNECTION_REFUSED", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION_RESET")
            visit.open("people").get_by_text("No people yet.").wait_for()
    for visit in visits:
        visit.page.get_by_role("link", name="Studio").click()
        visit.page.get_by_text("The server does not answer.").wait_for()
    with serving(tmp_path / "home", port=int(url.rpartition(":")[2])):
        for visit in visits:
            visit.page.get_by_text("No pictures yet.").wait_for()
            assert visit.page.get_by_text("The server does not answer.").count() == 0
            visit.end()
