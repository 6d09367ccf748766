"""Write screenshots of the web app's pages: python docs/write_screenshots.py FOLDER [--pages PAGE ...]

Each page in four forms: phone and desktop, light and dark. Without --url, a server with a worker and keys of further
tenants is started. The example person is trained with few steps, unless --name has an adapter. While the pages of a
training and of the operator are shown, another training runs, which is cancelled in the end. Needs Chromium and the
extra `dev`.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2

sys.path.insert(0, str(Path(__file__).parents[1]))

from fixtures.browser import FORMS, Visit, chromium, film, process, serving
from fixtures.waiting import until
from likeness.config import Settings
from likeness.service import build
from likeness.storage.api_keys import new_key

PHOTO = Path(__file__).parents[1] / "src/likeness/assets/demo/photo_01.jpg"
PROMPTS = ("photo of {me} in the mountains", "a pencil sketch of {me}", "a comic book portrait of {me} at sunset")
FEW = {"steps": 20, "class_images": 2}
LONG = {"steps": 2_000, "class_images": 2, "checkpoint_every": 10}
TENANTS = ("north-studio", "school-of-arts")
SITTER, PUPIL = "ada", "eric"  # before the camera; in training
# Also what is not in the window yet.
_EAGER = """for (const one of document.images) one.loading = 'eager';
for (const one of document.querySelectorAll('.tile')) one.style.contentVisibility = 'visible';"""
_DECODED = "Promise.all([...document.images].map((one) => one.decode()))"


class Shown(NamedTuple):
    """A page: its address, a text that is there when it is complete, and what is done before the picture is taken."""

    place: str
    text: str
    prepare: Callable[[Any], None] | None = None
    is_whole: bool = True  # not only what is in the window


@contextmanager
def server(url: str | None) -> Iterator[tuple[str, list[str]]]:
    """Address, and keys of other tenants: of the given server without keys, or of one for this call."""
    if url is not None:
        yield url, []
        return
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        likeness = build(Settings(home=home))
        keys = [new_key(likeness.catalog, tenant, "web app")[0] for tenant in TENANTS]
        likeness.close()
        found = stack.enter_context(serving(home))
        stack.enter_context(process(home, "work", "--id", "screenshots"))
        yield found, keys


def introduce(client: httpx2.Client, name: str, photos: int) -> None:
    """Make a subject of the example person, with some of the photographs, unless there is one of this name."""
    if client.get(f"/subjects/{name}").status_code == 200:
        return
    example = client.get("/example").json()
    client.post("/subjects", json={"name": name, "class_noun": example["class_noun"], "consent": "A virtual person"})
    files = [("photos", (file, client.get(f"/example/photos/{file}").content)) for file in example["photos"][:photos]]
    if files:
        client.post(f"/subjects/{name}/photos", files=files).raise_for_status()


def order(client: httpx2.Client, name: str, changes: dict[str, int], recipe: str = "standard") -> str:
    """Train a subject; returns the id of the job."""
    asked = {"name": name, "recipe": recipe, "recipe_changes": changes}
    return str(client.post("/jobs", json=asked).raise_for_status().json()["id"])


def filled(client: httpx2.Client, name: str) -> str:
    """Give the example person an adapter and some portraits, under this name; returns the id of its job."""
    if client.get(f"/subjects/{name}").status_code == 404:
        introduce(client, name, 12)
        order(client, name, FEW)

    def newest() -> Any:
        return client.get("/jobs", params={"name": name}).json()["jobs"][0]

    until(lambda: newest()["state"] == "succeeded", most_s=3600.0, pause_s=2.0)
    if not client.get("/images").json()["images"]:
        for prompt in PROMPTS:
            client.post("/images", json={"prompt": prompt, "adapter": name, "n": 2, "steps": 20, "keep": True})
    return str(newest()["id"])


@contextmanager
def queue(client: httpx2.Client, url: str, keys: Sequence[str]) -> Iterator[str]:
    """A training that runs, and one of each other tenant that waits; gives the id of the first."""
    introduce(client, SITTER, 2)
    introduce(client, PUPIL, 6)
    job = order(client, PUPIL, LONG)
    until(lambda: "'preview'" in str(client.get(f"/jobs/{job}/events").json()), most_s=3600.0, pause_s=2.0)
    waiting = []
    for key in keys:
        with httpx2.Client(base_url=f"{url}/v1", headers={"Authorization": f"Bearer {key}"}, timeout=600.0) as other:
            introduce(other, PUPIL, 4)
            waiting.append(order(other, PUPIL, FEW, "thorough"))  # another recipe than that which runs: it has to wait
    try:
        yield job
    finally:
        for one in (*waiting, job):
            client.post(f"/operator/jobs/{one}/cancel")


def open_camera(page: Any) -> None:
    page.get_by_role("button", name="Live camera with a coach").click()
    page.locator("dialog .hint").filter(has_not_text="Starting the camera").wait_for()


def compare(page: Any) -> None:
    page.get_by_label("How many").fill("2")
    page.get_by_text("More options").click()
    page.get_by_label("Steps").fill("20")
    page.get_by_label("Compare two").select_option("The strength")
    page.get_by_role("button", name="Make portraits").click()
    page.get_by_text("4 portraits made").wait_for()


def choose(page: Any) -> None:
    page.get_by_role("button", name="Select", exact=True).click()
    for place in range(2):
        page.locator(".tile > button").nth(place).click()
    page.get_by_role("heading", name="Gallery").scroll_into_view_if_needed()


def view(page: Any) -> None:
    page.locator(".tile > button").first.click()
    page.get_by_role("dialog").get_by_text("Recognised as this person").wait_for()  # or: not recognised


def ask(page: Any) -> None:
    page.get_by_role("button", name="Delete everything now").click()
    page.get_by_role("dialog").wait_for()


def shown(name: str, done: str, runs: str) -> dict[str, Shown]:
    """All pages. `done`, `runs`: ids of jobs."""
    return {
        "welcome": Shown("", "Go on with"), "consent": Shown("new", "How long"),
        "photographs": Shown(f"photos/{name}", "Plan of shots"),
        "camera": Shown(f"photos/{SITTER}", "Plan of shots", open_camera, is_whole=False),
        "training": Shown(f"training/{runs}", "Step "), "trained": Shown(f"training/{done}", "Copies of a photograph"),
        "studio": Shown(f"studio/{name}", "Select"),
        "gallery": Shown(f"studio/{name}", "Select", choose, is_whole=False),
        "picture": Shown(f"studio/{name}", "Select", view, is_whole=False),
        "people": Shown("people", "Make portraits"), "person": Shown(f"person/{name}", "Export"),
        "question": Shown(f"person/{name}", "Export", ask, is_whole=False),
        "phone": Shown("phone", "address"), "operator": Shown("operator", "Versions"),
        "sign-in": Shown("sign-in", "API key"), "compare": Shown(f"studio/{name}", "Select", compare),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--url", help="of a server that runs")
    parser.add_argument("--name", default="example")
    parser.add_argument("--pages", nargs="+", help="only these")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        url, keys = stack.enter_context(server(asked.url))
        camera = film(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "camera.mjpeg", [PHOTO], [1])
        browser = stack.enter_context(chromium(camera))
        client = stack.enter_context(httpx2.Client(base_url=f"{url}/v1", timeout=600.0))
        done = filled(client, asked.name)
        pages = shown(asked.name, done, stack.enter_context(queue(client, url, keys)))
        for form in FORMS:
            for scheme in ("light", "dark"):
                visit = Visit(browser, url, form, scheme=scheme, permissions=["camera"])
                for page in asked.pages or pages:
                    place, text, prepare, is_whole = pages[page]
                    visit.page.goto("about:blank")
                    visit.open(place).get_by_text(text).first.wait_for()
                    if prepare is not None:
                        prepare(visit.page)
                    visit.page.evaluate(_EAGER)
                    visit.page.evaluate(_DECODED)
                    if is_whole:
                        visit.page.evaluate("scrollTo(0, 0)")  # else the bars are in the middle
                    visit.page.screenshot(path=asked.folder / f"{page}-{form}-{scheme}.png", full_page=is_whole)
                visit.end()


if __name__ == "__main__":
    main()
