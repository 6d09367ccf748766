"""Steps of people's journeys through the web app, each from one page to another."""

from itertools import count
from typing import Any

import httpx2
from PIL import Image

from fixtures.browser import Visit
from fixtures.waiting import until

SCHEMES = {"phone": "light", "desktop": "dark"}  # form -> color scheme
HTML = "<img src=x onerror=alert(1)>"
_NUMBERS = count(1)


def inspect(visit: Visit) -> None:
    visit.refuse_overflow()
    visit.refuse_small_targets()
    visit.refuse_barriers()


def is_focused(place: Any) -> bool:
    return bool(place.evaluate("(one) => one === document.activeElement"))


def keep_then_confirm(button: Any, dialog: Any, answer: str) -> None:
    """Answer the open dialog of `button` with 'Keep', which returns the focus; open it again and answer `answer`."""
    dialog.get_by_role("button", name="Keep").click()
    dialog.wait_for(state="detached")
    assert is_focused(button)
    button.click()
    dialog.get_by_role("button", name=answer).click()


def new_name(start: str) -> str:
    return f"{start}-{next(_NUMBERS)}"


def ordered(client: httpx2.Client, name: str, *, photos: int = 4, **changes: object) -> str:
    """A job of two steps, changed so, with photographs of the example person; returns its id."""
    if client.get(f"/subjects/{name}").status_code == 404:
        client.post("/subjects", json={"name": name, "class_noun": "man", "consent": "A virtual person"})
        files = client.get("/example").json()["photos"][:photos]
        sent = [("photos", (file, client.get(f"/example/photos/{file}").content)) for file in files]
        assert client.post(f"/subjects/{name}/photos", files=sent).status_code == 201
    recipe_changes = {"steps": 2, "class_images": 1} | changes
    made = client.post("/jobs", json={"name": name, "recipe_changes": recipe_changes})
    return str(made.json()["id"])


def wait_for(client: httpx2.Client, job: str, state: str) -> None:
    until(lambda: client.get(f"/jobs/{job}").json()["state"] == state, pause_s=1.0)


def consent(visit: Visit, name: str) -> None:
    """From the page of consent to that of the photographs."""
    page = visit.page
    page.get_by_label("Name").fill(name)
    page.get_by_label("I have read this").check()
    page.get_by_role("button", name="Agree and go on").click()
    page.get_by_role("heading", name=f"Photographs of {name}").wait_for()


def train(visit: Visit, name: str) -> None:
    """From the photographs to the studio, with a reload on the way."""
    page = visit.page
    if not page.get_by_label("Steps", exact=True).is_visible():
        page.get_by_text("More options").click()
    page.get_by_label("Steps", exact=True).fill("2")
    page.get_by_label("Class images").fill("1")
    page.get_by_role("button", name="Start the training").click()
    page.get_by_role("heading", name=f"Training of {name}").wait_for()
    page.get_by_text("Check the photographs").wait_for()
    inspect(visit)
    page.reload()
    page.get_by_text("The adapter is ready.").wait_for()
    inspect(visit)
    page.get_by_role("link", name="To the studio").click()


def portray(visit: Visit, prompt: str = "") -> None:
    """From the studio to a favourite that is downloaded; its viewer stays open."""
    page = visit.page
    if prompt:
        page.get_by_label("What should the picture show?").fill(prompt)
    page.get_by_label("How many").fill("2")
    page.get_by_text("More options").click()
    page.get_by_label("Steps").fill("3")
    page.get_by_role("button", name="Make portraits").click()
    page.get_by_text("2 portraits made").wait_for()
    assert page.locator(".tile > button").count() == 2
    inspect(visit)

    page.locator(".tile > button").first.click()
    viewer = page.get_by_role("dialog")
    viewer.get_by_role("button", name="Favourite", pressed=False).click()
    viewer.get_by_role("button", name="Favourite", pressed=True).wait_for()
    inspect(visit)
    with page.expect_download() as download:
        viewer.get_by_role("link", name="Download").click()
    with Image.open(download.value.path()) as saved:
        assert "trainedAlgorithmicMedia" in saved.info["DigitalSourceType"] and saved.info["seed"]


def forget(visit: Visit, name: str) -> None:
    """From a person's page to the receipt."""
    page = visit.page
    page.get_by_role("button", name="Delete everything now").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.get_by_role("heading", name=f"Everything about {name} is deleted").wait_for()
