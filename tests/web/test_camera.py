"""Photographs that come from the live camera."""

import pytest

from fixtures.browser import Visit
from fixtures.waiting import until
from tests.web.steps import consent, forget, inspect, new_name, portray, train

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_from_the_camera_to_a_portrait(visit: Visit) -> None:
    """The first photograph is taken when the pose is held, the others by hand."""
    name, page = new_name("cam"), visit.open("new")
    consent(visit, name)
    page.get_by_role("button", name="Live camera with a coach").click()
    camera = page.get_by_role("dialog", name="Camera")
    camera.wait_for()
    inspect(visit)
    page.get_by_text("1 usable photograph", exact=True).wait_for(state="attached")
    camera.get_by_role("button", name="Delete last").click()
    camera.get_by_text("The photograph is deleted.").wait_for()
    start = page.get_by_role("button", name="Start the training", include_hidden=True)
    while start.is_disabled():
        camera.get_by_role("button", name="Take the photograph").click()
        until(lambda: page.locator(".photo .chip.waiting, .photo .chip.sending").count() == 0)
    camera.get_by_role("button", name="Close the camera").click()
    camera.wait_for(state="hidden")
    inspect(visit)
    train(visit, name)
    portray(visit)
    page.goto(f"{visit.url}/#/person/{name}")
    forget(visit, name)


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        ("NotAllowedError", "The browser does not allow this page to use the camera."),
        ("NotReadableError", "Another program uses the camera."),
        ("NotFoundError", "This machine has no camera."),
        ("AbortError", "The camera could not be started. Use files."),
    ],
)
def test_a_camera_that_fails_says_why(visit: Visit, reason: str, sentence: str) -> None:
    visit.context.add_init_script(
        f"navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', '{reason}'))"
    )
    page = visit.open("new")
    consent(visit, new_name("dim"))
    page.get_by_role("button", name="Live camera with a coach").click()
    page.get_by_role("alert").get_by_text(sentence).wait_for()
    assert page.get_by_role("button", name="Take the photograph").is_disabled()
    inspect(visit)
    page.get_by_role("button", name="Close the camera").click()
    page.get_by_role("button", name="Choose photographs").wait_for()
