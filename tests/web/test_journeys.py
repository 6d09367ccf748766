"""What people do with the web app, in Chromium against a server with a worker and the built-in base.

Each journey on a phone's and on a desktop's size.
"""

import json
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from fixtures.browser import Visit, process, serving
from fixtures.tiny import build_tiny_stable_diffusion
from fixtures.waiting import HANG_S, until

_NUMBERS = count(1)
_SCHEMES = {"phone": "light", "desktop": "dark"}
PEOPLE = Path(__file__).parents[1] / "photos/virtual_people.jpg"
HTML = "<img src=x onerror=alert(1)>"
pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(params=["phone", "desktop"])
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def visit(browser: Any, url: str, form: str) -> Iterator[Visit]:
    visit = Visit(browser, url, form, scheme=_SCHEMES[form], permissions=["camera"])
    yield visit
    visit.end()


@pytest.fixture
def trained(url: str) -> str:
    """A subject with four photographs and an adapter of few steps."""
    with httpx2.Client(base_url=f"{url}/v1", timeout=HANG_S) as client:
        if client.get("/adapters/eric").status_code == 404:
            wait_for(client, ordered(client, "eric"), "succeeded")
    return "eric"


def ordered(client: httpx2.Client, name: str, *, steps: int = 2, photos: int = 4) -> str:
    """A job of few steps with photographs of the example person; returns its id."""
    if client.get(f"/subjects/{name}").status_code == 404:
        client.post("/subjects", json={"name": name, "class_noun": "man", "consent": "A virtual person"})
        files = client.get("/example").json()["photos"][:photos]
        sent = [("photos", (file, client.get(f"/example/photos/{file}").content)) for file in files]
        assert client.post(f"/subjects/{name}/photos", files=sent).status_code == 201
    made = client.post("/jobs", json={"name": name, "recipe_changes": {"steps": steps, "class_images": 1}})
    return str(made.json()["id"])


def wait_for(client: httpx2.Client, job: str, state: str) -> None:
    until(lambda: client.get(f"/jobs/{job}").json()["state"] == state, pause_s=1.0)


def inspect(visit: Visit) -> None:
    visit.refuse_overflow()
    visit.refuse_small_targets()
    visit.refuse_barriers()


def new_name(start: str) -> str:
    return f"{start}-{next(_NUMBERS)}"


def consent(visit: Visit, name: str) -> None:
    """From the page of consent to that of the photographs."""
    page = visit.page
    page.get_by_label("Name").fill(name)
    page.get_by_label("I have read this").check()
    page.get_by_role("button", name="Agree and go on").click()
    page.get_by_role("heading", name=f"Photographs of {name}").wait_for()


def test_a_list_from_before_an_upload_does_not_overwrite_it(visit: Visit, demo_photos: Path) -> None:
    page, held = visit.open("new"), []
    page.route("**/check", lambda route: held.append((route, route.fetch())))
    consent(visit, new_name("ivy"))
    until(lambda: bool(page.evaluate("true") and held))  # the set is still empty
    page.locator("input[type=file][multiple]").first.set_input_files(demo_photos / "photo_01.jpg")
    page.get_by_text("1 usable photograph").wait_for()
    ((route, answer),) = held
    with page.expect_response("**/check") as answered:
        route.fulfill(response=answer)
    answered.value.finished()
    page.evaluate("new Promise((done) => setTimeout(done))")  # the page has read it
    assert page.get_by_text("1 usable photograph").is_visible()


def train(visit: Visit, name: str) -> None:
    """From the photographs to the studio, with a reload on the way."""
    page = visit.page
    page.get_by_text("More options").click()
    page.get_by_label("Steps").fill("2")
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
    page.get_by_role("heading", name=f"Everything of {name} is deleted").wait_for()


def test_from_the_example_person_to_a_portrait_and_its_end(visit: Visit, tmp_path: Path) -> None:
    page = visit.open()
    inspect(visit)
    page.get_by_role("button", name="Try it with our example person").click()
    page.get_by_text("12 usable photographs").wait_for()
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


def test_from_uploads_to_a_portrait(visit: Visit, demo_photos: Path, tmp_path: Path) -> None:
    """Files, then a zip; reloaded on every page on the way."""
    name, page = new_name("ada"), visit.open("new")
    page.get_by_role("button", name="Agree and go on").click()
    assert page.get_by_text("Use a to z, digits").is_visible()
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Agree and go on").click()
    assert page.get_by_text("Tick this box to go on.").is_visible()
    inspect(visit)
    page.get_by_label("Somebody else, who has agreed").check()
    page.get_by_label("Who agreed, when and how?").fill(HTML)
    consent(visit, name)

    packed = tmp_path / "more.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for number in (2, 3, 4):
            archive.write(demo_photos / f"photo_{number:02d}.jpg", f"{HTML}{number}.jpg")
    files = page.locator("input[type=file][multiple]").first
    files.set_input_files(demo_photos / "photo_01.jpg")
    page.get_by_text("1 usable photograph").wait_for()
    assert page.get_by_role("button", name="Start the training").is_disabled()
    page.reload()
    page.get_by_text("1 usable photograph").wait_for()
    files.set_input_files(packed)
    page.get_by_text("4 usable photographs").wait_for()
    inspect(visit)
    stored = page.request.get(f"{visit.url}/v1/subjects/{name}").json()
    assert stored["photos"] == 4 and stored["consent"].startswith(f"Agreed: {HTML}.")
    train(visit, name)

    page.reload()
    portray(visit, "photo of {me} " + HTML)
    assert page.get_by_role("dialog").get_by_text(HTML).is_visible()
    page.reload()
    assert page.locator(".tile > button").first.get_attribute("aria-label").count(HTML) == 1
    page.get_by_role("button", name="Favourites").click()
    until(lambda: page.locator(".tile > button").count() == 1)
    page.goto(f"{visit.url}/#/person/{name}")
    page.get_by_text(HTML).first.wait_for()
    inspect(visit)
    forget(visit, name)


_HAND_OVER = """async ([file, kind, type]) => {
  const given = new DataTransfer();
  const response = await fetch(`/v1/example/photos/${file}`);
  given.items.add(new File([await response.blob()], file, {type: 'image/jpeg'}));
  const place = document.querySelector('.drop');
  place.dispatchEvent(kind === 'DragEvent'
    ? new DragEvent(type, {dataTransfer: given, bubbles: true})
    : new ClipboardEvent(type, {clipboardData: given, bubbles: true}));
}"""


def test_photographs_come_by_drop_paste_folder_and_as_heic(visit: Visit, demo_photos: Path, tmp_path: Path) -> None:
    import pillow_heif

    name, page = new_name("ann"), visit.open("new")
    consent(visit, name)
    page.evaluate(_HAND_OVER, ["photo_01.jpg", "DragEvent", "drop"])
    page.evaluate(_HAND_OVER, ["photo_02.jpg", "ClipboardEvent", "paste"])
    page.get_by_text("2 usable photographs").wait_for()
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    (folder / ".hidden").write_bytes(b"no photograph")
    (folder / "below/photo_03.jpg").write_bytes((demo_photos / "photo_03.jpg").read_bytes())
    page.locator("input[webkitdirectory]").set_input_files(folder)
    page.get_by_text("3 usable photographs").wait_for()
    with Image.open(demo_photos / "photo_04.jpg") as picture:
        pillow_heif.from_pillow(picture.convert("RGB")).save(tmp_path / "photo_04.heic")
    page.locator("input[capture]").set_input_files(tmp_path / "photo_04.heic")
    page.get_by_text("4 usable photographs").wait_for()
    assert page.locator(".photo .chip.accepted").count() == page.locator(".photo").count() == 4


def test_from_the_camera_to_a_portrait(visit: Visit) -> None:
    """The first photograph is taken when the pose is held, the others by hand."""
    name, page = new_name("cam"), visit.open("new")
    consent(visit, name)
    page.get_by_role("button", name="Live camera with a coach").click()
    camera = page.get_by_role("dialog", name="Camera")
    camera.wait_for()
    inspect(visit)
    page.get_by_text("1 usable photograph").wait_for(state="attached")
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


def bad_photographs(good: Path, folder: Path) -> dict[Path, str]:
    """Photographs of every kind that is refused or warned of -> what is said. The first is good."""
    with Image.open(good) as opened:
        picture = opened.convert("RGB")
    with Image.open(PEOPLE) as opened:
        stranger = opened.convert("RGB").crop((128, 128, 256, 256)).resize((384, 384), Image.Resampling.BICUBIC)
    pair = Image.new("RGB", (1024, 512))
    pair.paste(picture.resize((512, 512)), (0, 0))
    pair.paste(stranger.resize((512, 512)), (512, 0))
    small = Image.new("RGB", (640, 640), (150, 160, 150))
    small.paste(picture.resize((140, 140)), (200, 200))
    side = picture.width
    spoilt = {
        "copy.png": (picture, "Looks almost the same as photo"),
        "mirrored.png": (ImageOps.mirror(picture), "Looks almost the same as photo"),
        "zoomed.png": (picture.crop((8, 8, side - 8, side - 8)), "Looks almost the same as photo"),
        "wall.png": (Image.effect_noise((400, 400), 60).convert("RGB"), "No face was found."),
        "tiny.png": (picture.resize((80, 80)), "px on the shorter side, got 80 px."),
        "far.png": (small, "Expected a face of at least"),
        "dark.png": (ImageEnhance.Brightness(picture).enhance(0.15), "Too dark:"),
        "bright.png": (ImageEnhance.Brightness(picture).enhance(3.0), "of the picture is overexposed."),
        "blurred.png": (picture.filter(ImageFilter.GaussianBlur(3)), "Blur effect of"),
        "grey.png": (picture.convert("L").convert("RGB"), "The photo is grey or in a single tone."),
        "turned.png": (picture.rotate(90), "The face is not upright;"),
        "cut.png": (picture.crop((side * 3 // 8, 0, side, side)), "of the face are outside the photo."),
        "pair.png": (pair, "2 people; the one"),
        "stranger.png": (stranger, "Probably not the person who is in"),
    }
    found = {}
    for name, (image, said) in spoilt.items():
        image.save(folder / name)
        found[folder / name] = said
    for name, content, said in (
        (f"{HTML}.jpg", b"no picture", "Expected a photograph, got a file that is no image."),
        ("film.mp4", b"\0\0\0\x18ftypmp42" + bytes(64), "Expected a photograph, got a video."),
        ("damaged.jpg", good.read_bytes()[:200], "got bytes that cannot be decoded."),
        ("empty.jpg", b"", "Skipped: empty"),
    ):
        (folder / name).write_bytes(content)
        found[folder / name] = said
    return found


def test_bad_photographs_of_every_kind_say_what_is_wrong(visit: Visit, demo_photos: Path, tmp_path: Path) -> None:
    name, page = new_name("bad"), visit.open("new")
    consent(visit, name)
    files = page.locator("input[type=file][multiple]").first
    files.set_input_files([str(demo_photos / f"photo_{number:02d}.jpg") for number in (1, 2, 3)])
    page.get_by_text("3 usable photographs").wait_for()
    bad = bad_photographs(demo_photos / "photo_01.jpg", tmp_path)
    files.set_input_files([str(file) for file in bad])
    until(lambda: page.locator(".photo .chip.waiting, .photo .chip.sending").count() == 0)
    for file, said in bad.items():
        card = (
            page.locator(".photo")
            .filter(has=page.get_by_alt_text(file.name, exact=True))
            .or_(page.locator(".photo").filter(has_text=file.name))
        )
        assert said in card.first.inner_text(), file.name
    inspect(visit)
    page.get_by_role("button", name="Keep it anyway").click()
    page.get_by_role("button", name="Keep it anyway").wait_for(state="detached")
    page.get_by_role("button", name="Remove photo_01.jpg").click()
    page.get_by_text("The photograph is deleted.").wait_for()


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
    tiles = page.locator(".tile > button")
    if visit.form == "phone":  # which has no Shift key
        page.get_by_role("button", name="Select", exact=True).click()
        tiles.first.click()
        page.get_by_role("button", name="Up to next").click()
        tiles.nth(1).click()
    else:
        tiles.first.click(modifiers=["Shift"])
        tiles.nth(1).click(modifiers=["Shift"])
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
        visits = [Visit(browser, url, form) for form in _SCHEMES]
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


def test_pages_recover_from_a_stopped_server(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    with serving(tmp_path / "home") as url:
        visits = [Visit(browser, url, form) for form in _SCHEMES]
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


def test_a_shape_is_chosen_where_the_base_makes_several(browser: Any, form: str, tmp_path: Path) -> None:
    """Of a tiny random Stable Diffusion 1.5; the picture is shown whole, while it is made and afterwards."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "likeness.toml").write_text(f'base = "{build_tiny_stable_diffusion(tmp_path / "base")}"\n')
    with serving(home) as url:
        visit = Visit(browser, url, form, scheme=_SCHEMES[form])
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
        for round, form in enumerate(_SCHEMES, start=1):
            visits = {tenant: Visit(browser, url, form, scheme=_SCHEMES[form]) for tenant in keys}
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
                visit.open(f"person/of-{other}-{form}").get_by_text("There is no person of this name.").wait_for()
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
    own, other = _SCHEMES[visit.form], _SCHEMES["desktop" if visit.form == "phone" else "phone"]
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
    page.wait_for_function("document.querySelector('.viewer .picture img').naturalWidth > 0")
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
