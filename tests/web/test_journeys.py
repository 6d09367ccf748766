"""What people do with the web app, in Chromium against a server with a worker and the built-in base."""

import json
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count, product
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from fixtures.browser import Visit, process, serving
from fixtures.waiting import HANG_S, until

_NUMBERS = count(1)
pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def phone(browser: Any, url: str) -> Iterator[Visit]:
    visit = Visit(browser, url, "phone")
    yield visit
    visit.end()


@pytest.fixture(params=[("desktop", "dark"), ("phone", "light")], ids=["desktop", "phone"])
def visit(browser: Any, url: str, request: pytest.FixtureRequest) -> Iterator[Visit]:
    form, scheme = request.param
    visit = Visit(browser, url, form, scheme=scheme, permissions=["camera"])
    yield visit
    visit.end()


@pytest.fixture
def trained(url: str) -> str:
    """A subject with four photographs and an adapter of few steps."""
    with httpx2.Client(base_url=f"{url}/v1", timeout=HANG_S) as client:
        if client.get("/adapters/eric").status_code == 404:
            wait_for(client, ordered(client, "eric"))
    return "eric"


def ordered(client: httpx2.Client, name: str) -> str:
    """A job of few steps with four photographs of the example person; returns its id."""
    client.post("/subjects", json={"name": name, "class_noun": "man", "consent": "A virtual person"})
    files = client.get("/example").json()["photos"][:4]
    sent = [("photos", (file, client.get(f"/example/photos/{file}").content)) for file in files]
    assert client.post(f"/subjects/{name}/photos", files=sent).status_code == 201
    made = client.post("/jobs", json={"name": name, "recipe_changes": {"steps": 2, "class_images": 1}})
    return str(made.json()["id"])


def wait_for(client: httpx2.Client, job: str) -> None:
    until(lambda: client.get(f"/jobs/{job}").json()["state"] == "succeeded", pause_s=1.0)


def inspect(visit: Visit) -> None:
    visit.refuse_overflow()
    visit.refuse_small_targets()
    visit.refuse_barriers()


def new_name(start: str) -> str:
    return f"{start}-{next(_NUMBERS)}"


def consent(page: Any, name: str) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("I have read this").check()
    page.get_by_role("button", name="Agree and go on").click()
    page.get_by_role("heading", name=f"Photographs of {name}").wait_for()


def test_from_the_example_person_to_a_portrait_and_its_end(phone: Visit, tmp_path: Path) -> None:
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
    assert page.get_by_label("What should the picture show?").input_value() == "photo of {me} in the mountains"
    page.get_by_label("How many").fill("2")
    page.get_by_text("More options").click()
    page.get_by_label("Steps").fill("3")
    page.get_by_role("button", name="Make portraits").click()
    page.get_by_text("2 portraits made").wait_for()
    assert page.locator(".tile > button").count() == 2
    inspect(phone)

    page.locator(".tile > button").first.click()
    viewer = page.get_by_role("dialog")
    viewer.get_by_role("button", name="Add to favourites").click()
    viewer.get_by_role("button", name="Remove from favourites").wait_for()
    inspect(phone)
    with page.expect_download() as download:
        viewer.get_by_role("link", name="Download").click()
    with Image.open(download.value.path()) as saved:
        assert "trainedAlgorithmicMedia" in saved.info["DigitalSourceType"] and saved.info["seed"]
    viewer.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog", name="Delete 1 picture?").get_by_role("button", name="Delete").click()
    page.get_by_text("1 picture deleted").wait_for()

    page.goto(f"{phone.url}/#/people")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download a backup").click()
    backup = tmp_path / "backup.zip"
    download.value.save_as(backup)
    page.get_by_role("link", name="example", exact=True).click()
    page.get_by_text("Zip with adapter and pictures").wait_for()
    inspect(phone)
    page.get_by_role("button", name="Delete everything now").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.get_by_role("heading", name="Everything of example is deleted").wait_for()
    assert page.get_by_text("adapter").count() >= 1
    inspect(phone)
    assert page.request.get(f"{phone.url}/v1/subjects/example").status == 404

    page.get_by_role("link", name="People", exact=True).last.click()
    page.get_by_label("Restore a backup").set_input_files(backup)
    page.get_by_text(
        "16 of example left out: everything of this name was deleted after the backup was made."
    ).wait_for()
    inspect(phone)


def test_portraits_of_a_trained_person(visit: Visit, trained: str) -> None:
    page = visit.open(f"studio/{trained}")
    page.get_by_label("How many").fill("1")
    page.get_by_text("More options").click()
    page.get_by_label("Steps").fill("2")
    page.get_by_label("Compare two").select_option("The strength")
    inspect(visit)
    page.get_by_role("button", name="Make portraits").click()
    page.get_by_text("2 portraits made").wait_for()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as one picture").click()
    with Image.open(download.value.path()) as sheet:
        assert "trainedAlgorithmicMedia" in sheet.info["DigitalSourceType"]

    page.locator(".tile > button").first.click()
    viewer = page.get_by_role("dialog")
    viewer.get_by_role("button", name="Next picture").click()
    inspect(visit)
    page.keyboard.press("Escape")
    page.locator(".tile > button").first.click(modifiers=["Shift"])
    page.locator(".tile > button").nth(1).click(modifiers=["Shift"])
    page.get_by_text("2 selected").wait_for()
    with page.expect_download() as download:
        page.get_by_role("group", name="Select").get_by_role("link", name="Download").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert len(archive.namelist()) == 2
    inspect(visit)
    page.get_by_role("group", name="Select").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog", name="Delete 2 pictures?").get_by_role("button", name="Delete").click()
    page.get_by_text("2 pictures deleted").wait_for()


def test_a_training_is_followed_while_the_server_is_killed_and_restarted(browser: Any, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with ExitStack() as stack:
        server = stack.enter_context(process(home, "serve", "--workers", "0", "--port", "0"))
        assert server.stdout is not None
        url = server.stdout.readline().removeprefix("serving at ").strip()
        with httpx2.Client(base_url=f"{url}/v1", timeout=HANG_S) as client:
            job = ordered(client, "eric")
        visits = [Visit(browser, url, form) for form in ("phone", "desktop")]
        for visit in visits:
            visit.allowed = ("ERR_",)  # of the network
            visit.open(f"training/{job}").get_by_text("Next in the queue").wait_for()
        stack.enter_context(process(home, "work", "--no-score", "--id", "killed"))
        visits[0].page.get_by_text("Running", exact=True).first.wait_for()
        server.kill()
        for visit in visits:
            visit.page.get_by_text("The server does not answer.").wait_for()
            inspect(visit)
        stack.enter_context(serving(home, port=int(url.rpartition(":")[2])))
        for visit in visits:
            visit.page.get_by_text("The adapter is ready.").wait_for()
            assert visit.page.get_by_text("The server does not answer.").count() == 0
            visit.end()


def test_consent_is_asked_for_and_photographs_are_judged(visit: Visit, demo_photos: Path, tmp_path: Path) -> None:
    name, page = new_name("ada"), visit.open("new")
    page.get_by_role("button", name="Agree and go on").click()
    assert page.get_by_text("Use a to z, digits").is_visible()
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Agree and go on").click()
    assert page.get_by_text("Tick this box to go on.").is_visible()
    inspect(visit)
    consent(page, name)

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
    inspect(visit)
    page.get_by_role("button", name="Remove photo_01.jpg").click()
    page.get_by_text("3 usable photographs").wait_for()
    assert page.get_by_role("button", name="Start the training").is_disabled()
    stored = page.request.get(f"{visit.url}/v1/subjects/{name}").json()
    assert stored["photos"] == 3 and "agreed in the web app" in stored["consent"]


def test_the_camera_takes_the_photograph_when_the_pose_is_held(visit: Visit) -> None:
    page = visit.open("new")
    consent(page, new_name("cam"))
    page.get_by_role("button", name="Live camera with a coach").click()
    page.get_by_role("dialog", name="Camera").wait_for()
    visit.refuse_barriers()
    page.get_by_text("1 usable photograph").wait_for(state="attached")
    page.get_by_role("button", name="Close the camera").click()
    assert page.locator(".photo .chip").count() >= 1


def test_pages_recover_from_a_stopped_server(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    with serving(tmp_path / "home") as url:
        visits = [Visit(browser, url, form) for form in ("phone", "desktop")]
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
        for tenant, form in product(("other", "local"), ("phone", "desktop")):
            visit = Visit(browser, url, form)
            visit.allowed = ("401",)
            page = visit.open()
            page.get_by_role("heading", name="Sign in").wait_for()
            inspect(visit)
            page.get_by_label("API key").fill(keys[tenant])
            page.get_by_role("button", name="Sign in").click()
            page.get_by_role("link", name="Start with my photographs").click()
            consent(page, f"of-{tenant}-{form}")
            page.goto(f"{url}/#/people")
            page.get_by_role("link", name=f"of-{tenant}-{form}").wait_for()
            assert page.locator(".person").count() == (1 if form == "phone" else 2)
            other = "local" if tenant == "other" else "other"
            assert page.get_by_text(f"of-{other}").count() == 0
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
