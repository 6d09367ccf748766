"""Photographs that come as files."""

import zipfile
from pathlib import Path

import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from fixtures.browser import Visit
from fixtures.waiting import until
from tests.web.steps import HTML, consent, forget, inspect, new_name, portray, train

PEOPLE = Path(__file__).parents[1] / "photos/virtual_people.jpg"
pytestmark = [pytest.mark.browser, pytest.mark.slow]


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
    page.get_by_text("1 usable photograph", exact=True).wait_for()
    assert page.get_by_role("button", name="Start the training").is_disabled()
    page.reload()
    page.get_by_text("1 usable photograph", exact=True).wait_for()
    files.set_input_files(packed)
    page.get_by_text("4 usable photographs", exact=True).wait_for()
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
    page.get_by_text("2 usable photographs", exact=True).wait_for()
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    (folder / ".hidden").write_bytes(b"no photograph")
    (folder / "below/photo_03.jpg").write_bytes((demo_photos / "photo_03.jpg").read_bytes())
    page.locator("input[webkitdirectory]").set_input_files(folder)
    page.get_by_text("3 usable photographs", exact=True).wait_for()
    with Image.open(demo_photos / "photo_04.jpg") as picture:
        pillow_heif.from_pillow(picture.convert("RGB")).save(tmp_path / "photo_04.heic")
    page.locator("input[capture]").set_input_files(tmp_path / "photo_04.heic")
    page.get_by_text("4 usable photographs", exact=True).wait_for()
    assert page.locator(".photo .chip.accepted").count() == page.locator(".photo").count() == 4


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
        "copy.png": (picture, "Looks almost the same as photograph"),
        "mirrored.png": (ImageOps.mirror(picture), "Looks almost the same as photograph"),
        "zoomed.png": (picture.crop((8, 8, side - 8, side - 8)), "Looks almost the same as photograph"),
        "wall.png": (Image.effect_noise((400, 400), 60).convert("RGB"), "No face was found."),
        "tiny.png": (picture.resize((80, 80)), "px on the shorter side, got 80 px."),
        "far.png": (small, "Expected a face of at least"),
        "dark.png": (ImageEnhance.Brightness(picture).enhance(0.15), "Too dark:"),
        "bright.png": (ImageEnhance.Brightness(picture).enhance(3.0), "of the picture is overexposed."),
        "blurred.png": (picture.filter(ImageFilter.GaussianBlur(3)), "Blur effect of"),
        "grey.png": (picture.convert("L").convert("RGB"), "The photograph is grey or in a single tone."),
        "turned.png": (picture.rotate(90), "The face is not upright;"),
        "cut.png": (picture.crop((side * 3 // 8, 0, side, side)), "of the face are outside the photograph."),
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
    page.get_by_text("3 usable photographs", exact=True).wait_for()
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


def test_a_list_from_before_an_upload_does_not_overwrite_it(visit: Visit, demo_photos: Path) -> None:
    page, held = visit.open("new"), []
    page.route("**/check", lambda route: held.append((route, route.fetch())))
    consent(visit, new_name("ivy"))
    until(lambda: bool(page.evaluate("true") and held))  # the set is still empty
    page.locator("input[type=file][multiple]").first.set_input_files(demo_photos / "photo_01.jpg")
    page.get_by_text("1 usable photograph", exact=True).wait_for()
    ((route, answer),) = held
    with page.expect_response("**/check") as answered:
        route.fulfill(response=answer)
    answered.value.finished()
    page.evaluate("new Promise((done) => setTimeout(done))")  # the page has read it
    assert page.get_by_text("1 usable photograph", exact=True).is_visible()
