"""Portraits, the gallery and its viewer."""

import re
import time
import zipfile
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from fixtures.browser import Visit, serving
from fixtures.tiny import build_tiny_stable_diffusion
from fixtures.waiting import HANG_S, until
from tests.web.steps import SCHEMES, inspect, is_focused, keep_then_confirm

pytestmark = [pytest.mark.browser, pytest.mark.slow]


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


def three_pictures(visit: Visit, adapter: str) -> list[re.Pattern[str]]:
    """Makes them and opens their studio; the ends of their names, as the gallery shows them before all others."""
    order = {"prompt": "photo of {me}", "adapter": adapter, "n": 3, "steps": 1, "keep": True}
    with httpx2.Client(base_url=f"{visit.url}/v1", timeout=HANG_S) as client:
        made = {one["id"] for one in client.post("/images", json=order).json()["images"]}
        listed = client.get("/images", params={"adapter": adapter, "limit": 3}).json()["images"]
    assert {one["id"] for one in listed} == made
    visit.open(f"studio/{adapter}").locator(".tile > button").nth(2).wait_for()
    return [re.compile(f"seed {one['seed']}$") for one in listed]


def swipe(visit: Visit, place: Any, right_px: float, down_px: float = 0.0) -> None:
    """One finger, from the middle of a place.

    Its events say that it moved for 0.2 s and rested for 0.8 s: after a flick, Chromium takes the next tap as one that
    stops the scrolling.
    """
    box = place.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    finger, start_s = visit.context.new_cdp_session(visit.page), time.time() - 1
    for step in range(5):  # so that the browser sees in which direction it starts
        point = {"x": x + right_px * step / 4, "y": y + down_px * step / 4}
        told = {"type": "touchMove" if step else "touchStart", "touchPoints": [point]}
        finger.send("Input.dispatchTouchEvent", {**told, "timestamp": start_s + 0.05 * step})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": [], "timestamp": start_s + 1})
    finger.detach()


def test_the_viewer_by_keys(visit: Visit, trained: str) -> None:
    names, page = three_pictures(visit, trained), visit.page
    tiles = page.locator(".tile > button")
    shown = [page.get_by_role("dialog", name=name) for name in names]
    tiles.first.focus()
    page.keyboard.press("ArrowRight")
    assert is_focused(tiles.nth(1))
    page.keyboard.press("Enter")
    shown[1].wait_for()
    inspect(visit)
    for key, place in (("ArrowRight", 2), ("ArrowLeft", 1), ("ArrowLeft", 0)):
        page.keyboard.press(key)
        shown[place].wait_for()
    page.keyboard.press("ArrowLeft")  # there is none: the next key shows the second, not the first
    page.keyboard.press("ArrowRight")
    shown[1].wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")
    assert is_focused(tiles.nth(1))


def test_the_viewers_notes_cover_no_button(visit: Visit, trained: str) -> None:
    """Three of them, the most there are, over the picture."""
    names, page = three_pictures(visit, trained), visit.page
    page.locator(".tile > button").first.click()
    viewer = page.get_by_role("dialog", name=names[0])
    say = "async (text) => (await import('/web/state.js')).say(text, { hint: 'What to do.', isError: true })"
    for number in range(3):
        page.evaluate(say, f"Something that did not work, number {number}.")
    viewer.get_by_text("number 2").wait_for()
    inspect(visit)
    notes = [one.bounding_box() for one in viewer.locator(".note").all()]
    buttons = viewer.locator(".viewer > .stack").locator("button, a.button").all()
    assert len(notes) == 3 and len(buttons) == 7
    for button in (one.bounding_box() for one in buttons):
        assert all(
            button["y"] >= note["y"] + note["height"] or button["x"] >= note["x"] + note["width"] for note in notes
        )
    viewer.get_by_role("button", name="Delete").click(trial=True)  # nothing is over it


@pytest.mark.parametrize("form", ["phone"])
def test_the_viewer_by_a_finger(visit: Visit, trained: str) -> None:
    names, page = three_pictures(visit, trained), visit.page
    shown = [page.get_by_role("dialog", name=name) for name in names]
    picture = page.locator(".viewer .picture")
    page.locator(".tile > button").first.tap()
    shown[0].wait_for()
    swipe(visit, picture, -120)
    shown[1].wait_for()
    swipe(visit, picture, 120)
    shown[0].wait_for()
    swipe(visit, picture, -30)  # too short: after the next one it is the second, not the third
    swipe(visit, picture, -120)
    shown[1].wait_for()
    swipe(visit, picture, 60, 160)  # scrolls
    swipe(visit, picture, -120)
    shown[2].wait_for()
    page.get_by_role("dialog").get_by_role("button", name="Close", exact=True).tap()
    page.get_by_role("dialog").wait_for(state="detached")


def test_a_range_is_selected_downloaded_and_deleted(visit: Visit, trained: str) -> None:
    names, page = three_pictures(visit, trained), visit.page
    tiles, selection = page.locator(".tile > button"), page.get_by_role("group", name="Select")
    if visit.form == "phone":  # which has no Shift key
        page.get_by_role("button", name="Select", exact=True).click()
        tiles.first.click()
        page.get_by_role("button", name="Up to next").click()
        tiles.nth(2).click()
    else:
        tiles.nth(2).click(modifiers=["Shift"])
        tiles.first.click(modifiers=["Shift"])
    selection.get_by_text("3 selected").wait_for()
    tiles.nth(1).click()
    selection.get_by_text("2 selected").wait_for()
    with page.expect_download() as download:
        selection.get_by_role("link", name="Download").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert len(archive.namelist()) == 2
    inspect(visit)
    delete, asked = (
        selection.get_by_role("button", name="Delete"),
        page.get_by_role("dialog", name="Delete 2 pictures?"),
    )
    delete.click()
    keep_then_confirm(delete, asked, "Delete")
    page.get_by_text("2 pictures deleted").wait_for()
    assert [page.get_by_role("button", name=name).count() for name in names] == [0, 1, 0]
    assert is_focused(page.get_by_role("button", name="Select", exact=True))


@pytest.mark.parametrize("form", ["desktop"])
def test_the_last_picture_is_deleted_in_its_viewer(visit: Visit, trained: str) -> None:
    with httpx2.Client(base_url=f"{visit.url}/v1", timeout=HANG_S) as client:
        for image in client.get("/images", params={"adapter": trained, "limit": 1000}).json()["images"]:
            client.delete(f"/images/{image['id']}")
        client.post("/images", json={"prompt": "photo of {me}", "adapter": trained, "steps": 1, "keep": True})
    page = visit.open(f"studio/{trained}")
    page.locator(".tile > button").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog", name="Delete 1 picture?").get_by_role("button", name="Delete").click()
    page.get_by_text("No pictures yet.").wait_for()
    page.get_by_role("dialog").wait_for(state="detached")
    until(lambda: is_focused(page.get_by_role("heading", name="Gallery")))
    inspect(visit)


@pytest.mark.parametrize("form", ["desktop"])
def test_a_picture_that_is_no_favourite_any_more_leaves_the_favourites_with_its_viewer(
    visit: Visit, trained: str
) -> None:
    with httpx2.Client(base_url=f"{visit.url}/v1", timeout=HANG_S) as client:
        for image in client.get("/images", params={"adapter": trained, "limit": 1000}).json()["images"]:
            client.delete(f"/images/{image['id']}")
        made = client.post("/images", json={"prompt": "photo of {me}", "adapter": trained, "steps": 1, "keep": True})
        id = made.json()["images"][0]["id"]
        client.put(f"/images/{id}/favourite", json={"is_favourite": True})
    page = visit.open(f"studio/{trained}")
    page.get_by_role("button", name="Favourites").click()
    page.locator(".tile > button").click()
    viewer = page.get_by_role("dialog")
    viewer.get_by_role("button", name="Favourite", pressed=True).click()
    viewer.get_by_role("button", name="Favourite", pressed=False).wait_for()
    viewer.get_by_role("button", name="Close").click()
    page.get_by_text("No pictures yet.").wait_for()
    assert page.locator(".tile").count() == 0


def test_the_viewers_buttons_stay_where_they_are(visit: Visit, trained: str) -> None:
    """A button that moves between a finger's down and up is not clicked, and the picture and its likeness come late."""
    with httpx2.Client(base_url=f"{visit.url}/v1", timeout=HANG_S) as client:
        made = client.post("/images", json={"prompt": "photo of {me}", "adapter": trained, "steps": 1, "keep": True})
        id = made.json()["images"][0]["id"]
    page, held = visit.page, {}
    for address in (f"/v1/images/{id}", f"/v1/images/{id}/likeness"):
        page.route(f"**{address}", lambda route: held.update({route.request.url: route}))
    visit.open(f"studio/{trained}")
    page.locator(".tile > button").first.click()
    button = page.get_by_role("button", name="Favourite", exact=True)
    button.wait_for()
    until(lambda: len(held) == 2 or page.wait_for_timeout(10))
    before = button.bounding_box()
    held.pop(f"{visit.url}/v1/images/{id}").continue_()
    answer = {"distance": 0.5, "photo_distance": 0.4, "is_same": True, "reason": ""}
    held.popitem()[1].fulfill(json=answer)
    page.get_by_text("Recognised as this person").wait_for()
    picture = page.locator(".viewer .picture img")
    until(lambda: picture.evaluate("(one) => one.naturalWidth > 0"))
    assert button.bounding_box() == before


def test_a_list_from_before_an_edit_does_not_undo_it(visit: Visit, trained: str) -> None:
    page = visit.page
    stale: list[tuple[Any, Any]] = []

    def hold(route: Any) -> None:
        if stale:
            route.continue_()
        else:
            stale.append((route, route.fetch()))

    page.route("**/v1/images?*", hold)
    visit.open(f"studio/{trained}")
    page.get_by_label("How many").fill("1")
    page.get_by_text("More options").click()
    page.get_by_label("Steps").fill("1")
    page.get_by_role("button", name="Make portraits").click()
    page.get_by_text("1 portrait made").wait_for()
    page.locator(".tile > button").first.click()
    viewer = page.get_by_role("dialog")
    viewer.get_by_role("button", name="Favourite", pressed=False).click()
    viewer.get_by_role("button", name="Favourite", pressed=True).wait_for()
    route, answer = stale[0]
    with page.expect_response("**/v1/images?*"):  # the list is asked for again
        route.fulfill(response=answer)
    page.wait_for_load_state("networkidle")
    assert viewer.get_by_role("button", name="Favourite", pressed=True).is_visible()


def test_a_shape_is_chosen_where_the_base_makes_several(browser: Any, form: str, tmp_path: Path) -> None:
    """Of a tiny random Stable Diffusion 1.5; the picture is shown whole, while it is made and afterwards."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "likeness.toml").write_text(f'base = "{build_tiny_stable_diffusion(tmp_path / "base")}"\n')
    with serving(home) as url:
        visit = Visit(browser, url, form, scheme=SCHEMES[form])
        page = visit.open("studio")
        page.get_by_label("Shape").select_option("Portrait 3:4, 448 × 576 px")  # noqa: RUF001
        page.get_by_label("How many").fill("1")
        page.get_by_text("More options").click()
        page.get_by_label("Steps").fill("6")
        page.get_by_role("button", name="Make portraits").click()
        page.get_by_text("1 portrait made").wait_for()
        inspect(visit)
        assert page.locator(".tile img").evaluate("(one) => [one.naturalWidth, one.naturalHeight]") == [249, 320]
        assert page.locator(".tile img").evaluate("(one) => getComputedStyle(one).objectFit") == "contain"
        page.locator(".tile > button").click()
        viewer = page.get_by_role("dialog")
        viewer.get_by_text("448 × 576 px").wait_for()  # noqa: RUF001
        shown = viewer.get_by_role("img")
        until(lambda: shown.evaluate("(one) => [one.naturalWidth, one.naturalHeight]") == [448, 576])
        assert shown.evaluate("(one) => getComputedStyle(one).objectFit") == "contain"
        inspect(visit)
        viewer.get_by_role("button", name="More like this").click()
        assert page.get_by_label("Shape").input_value() == "448x576"
        visit.end()
