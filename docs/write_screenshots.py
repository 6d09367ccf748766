"""Write screenshots of the web app's pages: python docs/write_screenshots.py FOLDER

Each page in four forms: phone and desktop, light and dark. Without --url, a server with a worker is started. The
example person is trained with few steps, unless --name has an adapter. Needs Chromium and the extra `dev`.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2

sys.path.insert(0, str(Path(__file__).parents[1]))

from fixtures.browser import FORMS, Visit, chromium, process, serving
from fixtures.waiting import until

PROMPTS = ("photo of {me} in the mountains", "a pencil sketch of {me}", "a comic book portrait of {me} at sunset")
FEW = {"steps": 20, "class_images": 2}
_EAGER = "for (const one of document.images) one.loading = 'eager'"  # also what is not in the window yet
_DECODED = "Promise.all([...document.images].map((one) => one.decode()))"


@contextmanager
def server(url: str | None) -> Iterator[str]:
    """The address of the given server, or of one for this call."""
    if url is not None:
        yield url
        return
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found = stack.enter_context(serving(home))
        stack.enter_context(process(home, "work", "--id", "screenshots"))
        yield found


def filled(client: httpx2.Client, name: str) -> str:
    """Give the example person an adapter and some portraits, under this name; returns the id of its job."""
    example = client.get("/example").json()
    if client.get(f"/subjects/{name}").status_code == 404:
        client.post(
            "/subjects", json={"name": name, "class_noun": example["class_noun"], "consent": "A virtual person"}
        )
        photos = [("photos", (file, client.get(f"/example/photos/{file}").content)) for file in example["photos"]]
        client.post(f"/subjects/{name}/photos", files=photos)
        client.post("/jobs", json={"name": name, "recipe_changes": FEW})

    def newest() -> Any:
        return client.get("/jobs", params={"name": name}).json()["jobs"][0]

    until(lambda: newest()["state"] == "succeeded", most_s=3600.0, pause_s=2.0)
    if not client.get("/images").json()["images"]:
        for prompt in PROMPTS:
            client.post("/images", json={"prompt": prompt, "adapter": name, "n": 2, "steps": 20, "keep": True})
    return str(newest()["id"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--url", help="of a server that runs")
    parser.add_argument("--name", default="example")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    with server(asked.url) as url, chromium() as browser:
        with httpx2.Client(base_url=f"{url}/v1", timeout=600.0) as client:
            name, job = asked.name, filled(client, asked.name)
        # page -> its address, and a text that is there when it is complete
        pages = {
            "welcome": ("", "Go on with"), "consent": ("new", "How long"),
            "photographs": (f"photos/{name}", "Plan of shots"),
            "training": (f"training/{job}", "The adapter is ready"), "studio": (f"studio/{name}", "Select"),
            "people": ("people", "Make portraits"), "person": (f"person/{name}", "Export"),
            "phone": ("phone", "address"), "operator": ("operator", "Versions"), "sign-in": ("sign-in", "API key"),
        }  # fmt: skip
        for form in FORMS:
            for scheme in ("light", "dark"):
                visit = Visit(browser, url, form, scheme=scheme)
                for page, (place, text) in pages.items():
                    visit.open(place).get_by_text(text).first.wait_for()
                    visit.page.evaluate(_EAGER)
                    visit.page.evaluate(_DECODED)
                    visit.page.screenshot(path=asked.folder / f"{page}-{form}-{scheme}.png", full_page=True)
                visit.end()


if __name__ == "__main__":
    main()
