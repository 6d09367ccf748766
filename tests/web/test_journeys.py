"""What people do with the web app, in Chromium against a server with a worker and the built-in base."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fixtures.browser import Visit, serving

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def phone(browser: Any, url: str) -> Iterator[Visit]:
    visit = Visit(browser, url, "phone")
    yield visit
    visit.end()


@pytest.fixture
def desktop(browser: Any, url: str) -> Iterator[Visit]:
    visit = Visit(browser, url, "desktop", scheme="dark", permissions=["camera"])
    yield visit
    visit.end()


def inspect(visit: Visit) -> None:
    visit.refuse_overflow()
    visit.refuse_small_targets()
    visit.refuse_barriers()


def consent(page: Any, name: str) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("I have read this").check()
    page.get_by_role("button", name="Agree and go on").click()
    page.get_by_role("heading", name=f"Photographs of {name}").wait_for()


def test_from_the_example_person_to_a_portrait_and_its_end(phone: Visit) -> None:
    page = phone.open()
    inspect(phone)
    page.get_by_role("button", name="Try it with our example person").click()
    page.get_by_text("12 usable photographs").wait_for()
    assert page.locator(".photo .chip.accepted").count() == 12
    page.get_by_role("button", name="What training sees").first.click()
    page.get_by_alt_text("The crops that training uses").wait_for()
    inspect(phone)

    page.get_by_text("More options").click()
    page.get_by_label("Steps").fill("2")
    page.get_by_label("Class images").fill("1")
    page.get_by_role("button", name="Start the training").click()
    page.get_by_role("heading", name="Training of example").wait_for()
    page.get_by_text("Check the photographs").wait_for()
    inspect(phone)
    page.reload()
    page.get_by_text("The adapter is ready.").wait_for()
    inspect(phone)

    page.get_by_role("link", name="To the studio").click()
    page.get_by_role("button", name="In the mountains").click()
    assert page.get_by_label("What shall the picture show?").input_value() == "photo of {me} in the mountains"
    page.get_by_label("How many").fill("2")
    page.get_by_text("More options").click()
    page.get_by_label("Steps").fill("3")
    page.get_by_role("button", name="Make portraits").click()
    page.get_by_text("2 portraits made").wait_for()
    assert page.locator(".tile > button").count() == 2
    inspect(phone)

    page.locator(".tile > button").first.click()
    viewer = page.get_by_role("dialog")
    viewer.get_by_role("button", name="Favourite").click()
    viewer.get_by_role("button", name="No favourite any more").wait_for()
    inspect(phone)
    with page.expect_download() as download:
        viewer.get_by_role("link", name="Download").click()
    with Image.open(download.value.path()) as saved:
        assert "trainedAlgorithmicMedia" in saved.info["DigitalSourceType"] and saved.info["seed"]
    viewer.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog", name="Delete 1 picture?").get_by_role("button", name="Delete").click()
    page.get_by_text("1 picture deleted").wait_for()

    page.goto(f"{phone.url}/#/people")
    page.get_by_role("link", name="example", exact=True).click()
    page.get_by_text("Zip with adapter and pictures").wait_for()
    inspect(phone)
    page.get_by_role("button", name="Delete everything now").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.get_by_role("heading", name="Everything of example is deleted").wait_for()
    assert page.get_by_text("adapter").count() >= 1
    inspect(phone)
    assert page.request.get(f"{phone.url}/v1/subjects/example").status == 404


def test_consent_is_asked_for_and_photographs_are_judged(desktop: Visit, demo_photos: Path, tmp_path: Path) -> None:
    page = desktop.open("new")
    page.get_by_role("button", name="Agree and go on").click()
    assert page.get_by_text("Use a to z, digits").is_visible()
    page.get_by_label("Name").fill("ada")
    page.get_by_role("button", name="Agree and go on").click()
    assert page.get_by_text("Tick this box to go on.").is_visible()
    inspect(desktop)
    consent(page, "ada")

    evil = tmp_path / "<img src=x onerror=alert(1)>.jpg"
    evil.write_bytes(b"no picture")
    empty = tmp_path / "wall.jpg"
    Image.effect_noise((400, 400), 60).convert("RGB").save(empty)
    packed = tmp_path / "more.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for number in (2, 3, 4):
            archive.write(demo_photos / f"photo_{number:02d}.jpg", f"photo_{number:02d}.jpg")
    chosen = [str(one) for one in (demo_photos / "photo_01.jpg", evil, empty, packed)]
    page.locator("input[type=file][multiple]").first.set_input_files(chosen)
    page.get_by_text("4 usable photographs").wait_for()
    page.locator(".photo.refused").nth(1).wait_for()
    assert page.locator(".photo .chip.accepted").count() == 4
    assert page.get_by_text("No face was found.").is_visible()
    assert page.get_by_text("<img src=x onerror=alert(1)>.jpg").is_visible()
    inspect(desktop)
    page.get_by_role("button", name="Remove photo_01.jpg").click()
    page.get_by_text("3 usable photographs").wait_for()
    assert page.get_by_role("button", name="Start the training").is_disabled()
    stored = page.request.get(f"{desktop.url}/v1/subjects/ada").json()
    assert stored["photos"] == 3 and "agreed in the web app" in stored["consent"]


def test_the_camera_takes_the_photograph_when_the_pose_is_held(desktop: Visit) -> None:
    page = desktop.open("new")
    consent(page, "cam")
    page.get_by_role("button", name="Live camera with a coach").click()
    page.get_by_role("dialog", name="Camera").wait_for()
    desktop.refuse_barriers()
    page.get_by_text("1 usable photograph").wait_for(state="attached")
    page.get_by_role("button", name="Close the camera").click()
    assert page.locator(".photo .chip").count() >= 1


def test_pages_recover_from_a_stopped_server(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    with serving(tmp_path / "home") as url:
        visit = Visit(browser, url, "desktop")
        visit.allowed = ("ERR_CONNECTION_REFUSED", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION_RESET")
        page = visit.open("people")
        page.get_by_text("Nobody yet.").wait_for()
    page.get_by_role("link", name="Studio").click()
    page.get_by_text("The server does not answer.").wait_for()
    with serving(tmp_path / "home", port=int(url.rpartition(":")[2])):
        page.get_by_text("No pictures yet.").wait_for()
        assert page.get_by_text("The server does not answer.").count() == 0
        visit.end()


def test_two_tenants_sign_in_and_see_their_own(browser: Any, tmp_path: Path) -> None:
    from likeness.config import Settings
    from likeness.service import build
    from likeness.storage.api_keys import new_key

    home = tmp_path / "home"
    home.mkdir()
    installation = build(Settings(home=home))
    keys = {tenant: new_key(installation.catalog, tenant)[0] for tenant in ("local", "other")}
    installation.close()
    with serving(home, "--require-keys") as url:
        for tenant, form in (("other", "phone"), ("local", "desktop")):
            visit = Visit(browser, url, form)
            visit.allowed = ("401",)
            page = visit.open()
            page.get_by_role("heading", name="Sign in").wait_for()
            inspect(visit)
            page.get_by_label("API key").fill(keys[tenant])
            page.get_by_role("button", name="Sign in").click()
            page.get_by_role("link", name="Start with my photographs").click()
            consent(page, f"of-{tenant}")
            page.goto(f"{url}/#/people")
            page.get_by_role("link", name=f"of-{tenant}").wait_for()
            assert page.locator(".person").count() == 1
            assert page.get_by_role("link", name="Operator").count() == (tenant == "local")
            assert "lk_" not in json.dumps(page.evaluate("[document.cookie, {...localStorage}, {...sessionStorage}]"))
            if tenant == "local":
                page.get_by_role("link", name="Operator").click()
                page.get_by_text("other").first.wait_for()
                inspect(visit)
            page.get_by_role("button", name="Sign out").click()
            page.get_by_role("heading", name="Sign in").wait_for()
            visit.end()


@pytest.mark.parametrize(("form", "scheme"), [("phone", "dark"), ("desktop", "light")])
def test_every_page_fits_and_keeps_nobody_out(browser: Any, url: str, form: str, scheme: str) -> None:
    visit = Visit(browser, url, form, scheme=scheme)
    for place in ("", "new", "people", "studio", "phone", "operator", "sign-in"):
        visit.open(place)
        visit.page.wait_for_load_state("networkidle")
        inspect(visit)
    visit.end()
