"""Trainings, to whatever end."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from fixtures.browser import Visit, process, serving
from fixtures.waiting import HANG_S
from tests.web.steps import SCHEMES, forget, inspect, keep_then_confirm, new_name, ordered, portray, train

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_from_the_example_person_to_a_portrait_and_its_end(visit: Visit, tmp_path: Path) -> None:
    page = visit.open()
    inspect(visit)
    page.get_by_role("button", name="Try it with our example person").click()
    page.get_by_text("12 usable photographs", exact=True).wait_for()
    assert page.locator(".photo .chip.accepted").count() == 12
    page.get_by_role("button", name="What training sees").first.click()
    page.get_by_alt_text("The crops that training uses").wait_for()
    inspect(visit)
    train(visit, "example")
    page.get_by_role("button", name="In the mountains").click()
    assert page.get_by_label("What should the picture show?").input_value() == "photo of {me} in the mountains"
    portray(visit)
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog", name="Delete 1 picture?").get_by_role("button", name="Delete").click()
    page.get_by_text("1 picture deleted").wait_for()

    page.goto(f"{visit.url}/#/people")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download a backup").click()
    backup = tmp_path / "backup.zip"
    download.value.save_as(backup)
    page.get_by_role("link", name="example", exact=True).click()
    page.get_by_text("Zip with adapter and pictures").wait_for()
    inspect(visit)
    forget(visit, "example")
    assert page.get_by_text("adapter").count() >= 1
    inspect(visit)
    assert page.request.get(f"{visit.url}/v1/subjects/example").status == 404

    page.get_by_role("link", name="People", exact=True).last.click()
    page.get_by_label("Restore a backup").set_input_files(backup)
    page.get_by_text("of example left out: everything of this name was deleted after the backup was made.").wait_for()
    inspect(visit)


def test_a_training_is_followed_while_the_server_is_killed_and_restarted(browser: Any, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with ExitStack() as stack:
        server = stack.enter_context(process(home, "serve", "--workers", "0", "--port", "0"))
        assert server.stdout is not None
        url = server.stdout.readline().removeprefix("serving at ").strip()
        with httpx2.Client(base_url=f"{url}/v1", timeout=HANG_S) as client:
            job = ordered(client, "eric")
        visits = [Visit(browser, url, form) for form in SCHEMES]
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


def test_a_training_that_fails_says_why_and_is_done_again(visit: Visit, demo_photos: Path) -> None:
    """First the photographs are refused, then the loss of an adapter so strong is no number, then all is well."""
    name, page = new_name("two"), visit.page
    with httpx2.Client(base_url=f"{visit.url}/v1", timeout=HANG_S) as client:
        refused = ordered(client, name, photos=2)
        visit.open(f"training/{refused}")
        page.get_by_text("Failed", exact=True).wait_for()
        said = page.get_by_role("alert")
        said.get_by_text("Expected at least 4 usable photographs, got 2. Send 10 or more.").wait_for()
        assert page.get_by_role("button", name="Cancel the training").count() == 0
        inspect(visit)
        page.reload()
        said.get_by_role("link", name="To the photographs").click()
        page.get_by_text("Four usable photographs are needed").wait_for()
        assert page.get_by_role("button", name="Start the training").is_disabled()
        more = [demo_photos / f"photo_{number:02d}.jpg" for number in (3, 4)]
        page.locator("input[type=file][multiple]").first.set_input_files(more)
        page.get_by_text("4 usable photographs", exact=True).wait_for()

        diverged = ordered(client, name, steps=100, unet_learning_rate=0.1, alpha=1024, warmup_steps=0)
    visit.open(f"training/{diverged}")
    said.get_by_text("Train again with a lower learning rate.").wait_for()
    inspect(visit)
    said.get_by_role("link", name="Train again").click()
    page.get_by_text("4 usable photographs", exact=True).wait_for()
    assert page.get_by_label("Steps", exact=True).input_value() == "100"
    others = page.get_by_label("Other changes of the recipe, as before: ")
    assert others.is_checked() and page.get_by_text("unet_learning_rate 0.1").is_visible()
    inspect(visit)
    others.uncheck()
    train(visit, name)


def test_a_training_is_cancelled_and_done_again(visit: Visit) -> None:
    name, page = new_name("off"), visit.page
    with httpx2.Client(base_url=f"{visit.url}/v1", timeout=HANG_S) as client:
        job = ordered(client, name, steps=20_000, warmup_steps=7)
    visit.open(f"training/{job}")
    page.get_by_text("Running", exact=True).wait_for()
    cancel = page.get_by_role("button", name="Cancel the training")
    cancel.click()
    asked = page.get_by_role("dialog", name="Cancel this training?")
    inspect(visit)
    keep_then_confirm(cancel, asked, "Cancel the training")
    page.get_by_text("This training was cancelled").wait_for()
    page.locator("h1:focus").wait_for()  # the focused button has gone
    assert page.get_by_text("Cancelled", exact=True).is_visible() and cancel.count() == 0
    inspect(visit)
    page.reload()
    page.get_by_text("This training was cancelled").wait_for()
    page.get_by_role("link", name="Train again").click()
    page.get_by_text("4 usable photographs", exact=True).wait_for()
    values = [page.get_by_label(label, exact=True).input_value() for label in ("Steps", "Class images")]
    assert values == ["20000", "1"]
    train(visit, name)
    recipe = page.request.get(f"{visit.url}/v1/adapters/{name}").json()["recipe"]
    assert (recipe["warmup_steps"], recipe["steps"], recipe["class_images"]) == (7, 2, 1)


def test_an_address_of_no_training_says_so(visit: Visit) -> None:
    visit.allowed = ("404",)
    heading = visit.open("training/nothing").get_by_role("heading", name="There is no such training.")
    heading.wait_for()
    inspect(visit)
    link = visit.page.get_by_role("main").get_by_role("link", name="People")
    above, below = heading.bounding_box(), link.bounding_box()
    assert below["y"] >= above["y"] + above["height"] + 8  # a gap
    link.click()
    visit.page.get_by_role("heading", name="People").wait_for()
