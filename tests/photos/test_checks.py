"""Each reason is provoked, and honest photographs provoke none."""

import json
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from likeness.errors import InputRefused
from likeness.photos import Face, MediaPipeFaces, check, decode, quality, styled
from likeness.photos.checks import BLUR_REFUSED, BLUR_WARNED, DARK_WARNED, Examined
from likeness.photos.covered import EYES
from likeness.photos.report import CheckResult
from likeness.types import KINDS, MAX_PHOTOS, Kind, Photo, PreparedPhoto

Image = NDArray[np.uint8]
Encode = Callable[..., Photo]


def codes(result: CheckResult, place: int = -1) -> dict[str, str]:
    return {reason.code: reason.verdict for reason in result.reports[place].reasons}


@pytest.fixture(scope="module")
def judged(person: list[Photo], faces: MediaPipeFaces) -> CheckResult:
    return check(person, "person", detector=faces)


def test_the_man_is_usable(judged: CheckResult, person: list[Photo]) -> None:
    assert [report.verdict for report in judged.reports].count("refused") == 0
    assert len(judged.usable) == len(person) == judged.set_report.count >= 11
    assert all(one.face is not None for one in judged.usable)


@pytest.mark.parametrize("person", ["virtual_man"], indirect=True)
def test_the_virtual_mans_set_report(judged: CheckResult) -> None:
    """Many places, one light, turned to both sides as far as the profile: as one sees at a glance."""
    coverage = judged.set_report.coverage
    assert coverage["yaw"]["front"] >= 6 and min(coverage["yaw"].values()) >= 1
    assert coverage["expression"]["open mouth"] == 2 and coverage["expression"]["smile"] >= 2
    assert coverage["background"]["distinct"] >= 6
    assert {advice.code for advice in judged.set_report.advice} == {"one_light"}


@pytest.mark.parametrize("person", ["real_man"], indirect=True)
def test_the_real_mans_set_report(judged: CheckResult) -> None:
    """One wall, one light, no head up or down, turned to both sides: as one sees at a glance."""
    coverage = judged.set_report.coverage
    assert sum(coverage["yaw"].values()) == sum(coverage["expression"].values()) == 11
    assert coverage["yaw"]["front"] >= 6 and coverage["expression"]["open mouth"] == 1
    advice = {advice.code for advice in judged.set_report.advice}
    assert {"one_background", "one_pitch"} <= advice
    assert not {"too_few", "few", "other_person", "no_left", "no_right", "no_front", "one_expression"} & advice


def test_json_is_the_documented_shape(judged: CheckResult) -> None:
    document = json.loads(json.dumps(judged.to_json()))
    assert set(document) == {"photos", "set"}
    assert set(document["photos"][0]) == {"file", "verdict", "reasons", "hint"}
    assert set(document["set"]) == {"count", "coverage", "advice"}


def test_dog(dog: list[Photo]) -> None:
    result = check(dog, "thing")
    assert len(result.usable) == len(dog) and all(one.face is None for one in result.usable)
    assert "yaw" not in result.set_report.coverage and result.set_report.verdict != "refused"


def painted_glasses(image: Image, faces: MediaPipeFaces) -> Image:
    picture = image.copy()
    points = faces.detect(image)[0].landmarks[:, :2]
    for corners in ((226, 243), (463, 446)):
        middle = points[list(corners)].mean(axis=0)
        width = np.linalg.norm(points[corners[0]] - points[corners[1]])
        cv2.ellipse(
            picture, (*middle.astype(int).tolist(),), (int(width * 0.62), int(width * 0.5)), 0, 0, 360, (20, 20, 25), -1
        )
    return picture


def at_brightness(image: Image, luma: float) -> Image:
    """The picture with its bright places (95th percentile) at this luma; above 255 they are blown out."""
    return (image * (luma / np.percentile(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 95))).clip(0, 255).astype(np.uint8)


def small_in(image: Image, side_px: int) -> Image:
    canvas = np.full((640, 640, 3), (150, 160, 150), np.uint8)
    canvas[200 : 200 + side_px, 200 : 200 + side_px] = cv2.resize(
        image, (side_px, side_px), interpolation=cv2.INTER_AREA
    )
    return canvas


@pytest.mark.parametrize(
    ("code", "verdict", "spoil"),
    [
        ("blurred", "warned", lambda image: cv2.GaussianBlur(image, (0, 0), 3)),
        ("too_dark", "warned", lambda image: at_brightness(image, 60)),
        ("too_dark", "refused", lambda image: at_brightness(image, 25)),
        ("too_bright", "warned", lambda image: at_brightness(image, 480)),
        ("face_too_small", "warned", lambda image: small_in(image, 140)),
        ("too_small", "warned", lambda image: cv2.resize(image, (200, 200), interpolation=cv2.INTER_AREA)),
        ("too_small", "refused", lambda image: cv2.resize(image, (80, 80), interpolation=cv2.INTER_AREA)),
        ("face_cut_by_edge", "warned", lambda image: image[:, 192:]),
        ("no_face", "refused", lambda image: image[300:, 300:]),
    ],
)
def test_spoilt_portraits(
    code: str, verdict: str, spoil: Callable[[Image], Image], portrait: Image, faces: MediaPipeFaces, as_photo: Encode
) -> None:
    found = codes(check([as_photo(np.ascontiguousarray(spoil(portrait)))], "person", detector=faces))
    assert found.get(code) == verdict, found


@pytest.mark.parametrize("person", ["real_man"], indirect=True)
def test_a_strongly_blurred_photograph_is_refused(portrait: Image, faces: MediaPipeFaces, as_photo: Encode) -> None:
    """Of renders, which are softer than photographs, no face is found before this limit is reached."""
    found = codes(check([as_photo(cv2.GaussianBlur(portrait, (0, 0), 7))], "person", detector=faces))
    assert found == {"blurred": "refused"}


def test_eyes_covered(portrait: Image, faces: MediaPipeFaces, as_photo: Encode) -> None:
    assert "eyes_covered" in codes(check([as_photo(painted_glasses(portrait, faces))], "person", detector=faces))


def test_virtual_people(virtual_people: Image, faces: MediaPipeFaces, as_photo: Encode) -> None:
    """Renders, enlarged three times, are no worse than warned; only the third wears sunglasses."""
    results = [check([as_photo(picture)], "person", detector=faces) for picture in virtual_people]
    assert [result.reports[0].verdict for result in results].count("refused") == 0
    assert [index for index, result in enumerate(results) if "eyes_covered" in codes(result)] == [2]


def test_several_people(portrait: Image, virtual_people: Image, faces: MediaPipeFaces, as_photo: Encode) -> None:
    pair = np.concatenate([portrait, cv2.resize(virtual_people[6], (512, 512))], axis=1)
    result = check([as_photo(pair)], "person", detector=faces)
    assert codes(result)["several_people"] == "warned"
    assert len(result.usable) == 1


def test_duplicates(person: list[Photo], portrait: Image, faces: MediaPipeFaces, as_photo: Encode) -> None:
    same = Photo("again.jpg", person[0].content)
    copy = as_photo(np.ascontiguousarray(portrait[6:-6, 6:-6]), "copy.jpg", "JPEG")
    result = check([person[0], same, copy, person[1]], "person", detector=faces)
    assert [set(codes(result, place)) for place in range(4)] == [set(), {"exact_duplicate"}, {"near_duplicate"}, set()]
    assert [one.photo.name for one in result.usable] == [person[0].name, "copy.jpg", person[1].name]


def test_a_photograph_of_a_growing_set_is_measured_once(person: list[Photo], faces: MediaPipeFaces) -> None:
    memory: dict[tuple[str, Kind, bool], Examined] = {}
    check(person[:3], "person", detector=faces, examined_before=memory)
    before = {key: dict(one.looks) for key, one in memory.items()}
    assert [len(looks) for looks in before.values()] == [1, 1, 1]
    result = check(person[:4], "person", detector=faces, examined_before=memory)
    assert {key: memory[key].looks for key in before} == before  # the same objects
    assert result.reports == check(person[:4], "person", detector=faces).reports
    compared = [len(look.same_shot) for one in memory.values() for look in one.looks.values()]
    assert compared == [0, 1, 2, 3]


def test_another_person_is_left_out(
    person: list[Photo], virtual_people: Image, faces: MediaPipeFaces, as_photo: Encode
) -> None:
    photos = [*person[:4], as_photo(virtual_people[5], "stranger.png")]
    result = check(photos, "person", detector=faces)
    assert [codes(result, place).get("other_person") for place in range(5)] == [None] * 4 + ["refused"]
    assert [one.photo.name for one in result.usable] == [photo.name for photo in person[:4]]
    assert {"other_person": "warned"}.items() <= {one.code: one.verdict for one in result.set_report.advice}.items()
    result.raise_if_refused()
    insisted = check(photos, "person", detector=faces, keep_strangers=True)
    assert codes(insisted)["other_person"] == "warned" and len(insisted.usable) == 5


def beside(large: Image, small: Image) -> Image:
    """Two people in one picture, the first one's face larger and nearer to the middle."""
    canvas = np.full((760, 760 + 420, 3), 130, np.uint8)
    canvas[:, :760] = cv2.resize(large, (760, 760), interpolation=cv2.INTER_CUBIC)
    canvas[200 : 200 + 420, 760:] = cv2.resize(small, (420, 420), interpolation=cv2.INTER_AREA)
    return canvas


def test_of_two_people_the_one_of_the_set_is_chosen(
    person: list[Photo], virtual_people: Image, faces: MediaPipeFaces, as_photo: Encode
) -> None:
    pair = beside(virtual_people[6], decode(person[1].content))
    alone = check([as_photo(pair)], "person", detector=faces)
    assert alone.usable[0].face is not None and alone.usable[0].face.box_px[2] < 760  # the larger one, by itself
    result = check([as_photo(pair), *person[2:6]], "person", detector=faces)
    chosen = result.usable[0].face
    assert chosen is not None and chosen.box_px[0] > 760
    assert codes(result, 0).keys() >= {"several_people"} and "other_person" not in codes(result, 0)
    strangers = beside(virtual_people[6], virtual_people[5])
    result = check([as_photo(strangers), *person[2:6]], "person", detector=faces)
    assert codes(result, 0)["other_person"] == "refused" and len(result.usable) == 4


def test_a_folder_of_different_people_is_refused_as_a_set(
    virtual_people: Image, faces: MediaPipeFaces, as_photo: Encode
) -> None:
    photos = [as_photo(picture, f"{index}.png") for index, picture in enumerate(virtual_people)]
    result = check(photos, "person", detector=faces)
    with pytest.raises(InputRefused, match="of 8 photographs probably show another person"):
        result.raise_if_refused()
    with pytest.raises(InputRefused, match="another person"):
        result.raise_if_refused(few_are_enough=True)
    insisted = check(photos, "person", detector=faces, keep_strangers=True)
    assert len(insisted.usable) == 8
    insisted.raise_if_refused()


def test_one_good_photograph_can_be_prepared(person: list[Photo], faces: MediaPipeFaces) -> None:
    result = check([*person[:1], Photo("notes.txt", b"words")], "person", detector=faces)
    result.raise_if_refused(few_are_enough=True)
    with pytest.raises(InputRefused, match="at least 4 usable photographs, got 1"):
        result.raise_if_refused()
    with pytest.raises(InputRefused, match="got none"):
        check([Photo("notes.txt", b"words")], "person").raise_if_refused(few_are_enough=True)


def grey(image: Image) -> Image:
    return np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2).astype(np.uint8)


TONES: dict[str, Callable[[Image], Image]] = {
    "grey": grey,
    "sepia": lambda image: (grey(image) * [1.07, 0.93, 0.72]).clip(0, 255).astype(np.uint8),
    "blue": lambda image: (grey(image) * [0.55, 0.8, 1.0]).astype(np.uint8),
    "nearly grey": lambda image: (grey(image) * 0.95 + image * 0.05).astype(np.uint8),
}


@pytest.mark.parametrize("tone", TONES)
def test_photographs_without_colour_are_named(
    tone: str, portrait: Image, faces: MediaPipeFaces, as_photo: Encode
) -> None:
    toned = as_photo(TONES[tone](portrait), file_format="JPEG")
    assert codes(check([toned], "person", detector=faces))["grey"] == "warned"


@pytest.mark.parametrize(("count", "is_named"), [(1, False), (5, True)])
def test_a_set_without_colour_is_named(
    count: int, is_named: bool, person: list[Photo], faces: MediaPipeFaces, as_photo: Encode
) -> None:
    toned = [as_photo(grey(decode(photo.content))) for photo in person[:count]]
    result = check([*toned, *person[count:5]], "person", detector=faces)
    assert ["grey" in codes(result, place) for place in range(5)] == [place < count for place in range(5)]
    said = [advice.message for advice in result.set_report.advice if advice.code == "grey"]
    assert said == (["5 of 5 photographs are without colour"] if is_named else [])


def test_a_grey_thing_is_named(scene: Image, as_photo: Encode) -> None:
    assert codes(check([as_photo(grey(scene))], "thing")) == {"grey": "warned"}


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turned_photographs_are_set_upright(
    turns: int, person: list[Photo], faces: MediaPipeFaces, as_photo: Encode
) -> None:
    """Quarters of a turn; a head that stands on its end reads as upright by its landmarks alone."""
    upright = [decode(photo.content) for photo in person[4:8]]
    photos = [as_photo(np.ascontiguousarray(np.rot90(image, turns)), f"{i}.png") for i, image in enumerate(upright)]
    result = check(photos, "person", detector=faces)
    for place, (one, image) in enumerate(zip(result.usable, upright, strict=True)):
        assert codes(result, place)["turned"] == "warned"
        np.testing.assert_array_equal(one.image, image)


def test_upright_photographs_are_not_turned(judged: CheckResult) -> None:
    assert not any("turned" in codes(judged, place) for place in range(len(judged.reports)))


@pytest.mark.parametrize(("angle_deg", "found"), [(20, set()), (-38, {"tilted"}), (72, {"turned"}), (-70, {"turned"})])
def test_heads_that_lean(
    angle_deg: int, found: set[str], portrait: Image, faces: MediaPipeFaces, as_photo: Encode
) -> None:
    matrix = cv2.getRotationMatrix2D((256, 256), angle_deg, 0.8)
    leaning = cv2.warpAffine(portrait, matrix, (512, 512), borderMode=cv2.BORDER_REPLICATE)
    result = check([as_photo(np.asarray(leaning, dtype=np.uint8))], "person", detector=faces)
    assert {"tilted", "turned"} & codes(result).keys() == found
    assert result.usable[0].face is not None and abs(result.usable[0].face.roll_deg) < 45


@pytest.mark.parametrize(
    ("code", "content"),
    [("not_an_image", b"some text"), ("empty", b""), ("unreadable", b"\xff\xd8\xff\xe0 cut")],
)
@pytest.mark.parametrize("kind", KINDS)
def test_other_bytes(code: str, content: bytes, kind: Kind) -> None:
    result = check([Photo("x", content)], kind)
    assert codes(result) == {code: "refused"}
    assert result.usable == () and result.reports[0].hint


def test_more_photographs_than_anybody_needs_are_refused() -> None:
    """Before any is decoded: these cannot be. Other files count for nothing."""
    photos = [Photo(f"{i}.jpg", b"\xff\xd8\xff %d" % i) for i in range(MAX_PHOTOS + 1)]
    notes = [Photo(f"{i}.txt", b"note %d" % i) for i in range(MAX_PHOTOS)]
    with pytest.raises(InputRefused, match="at most 64 photographs, got 65") as refusal:
        check([*notes, *photos], "person")
    assert refusal.value.hint == "choose 10 to 20 good ones"
    assert len(check([*notes, *photos[1:]], "thing").reports) == 2 * MAX_PHOTOS


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 3000, 3), (3000, 2, 3), (100, 3000, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_odd_shapes_get_a_verdict(shape: tuple[int, int, int], kind: Kind, as_photo: Encode) -> None:
    noise = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    assert "too_small" in codes(check([as_photo(noise)], kind))


def blurred(image: Image, sigma_px: float) -> Image:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px), dtype=np.uint8)


@pytest.mark.parametrize("sigma_px", [7, 10, 20, 40])
def test_more_blur_never_looks_sharper(virtual_man: list[Photo], sigma_px: int) -> None:
    """Slopes of a strong blur are below one level of luma a pixel; rounding makes steps of them."""
    for photo in virtual_man[::4]:
        luma = quality.grey(decode(photo.content))[100:400, 100:400]
        assert quality.blur_effect(luma) < BLUR_WARNED
        assert quality.blur_effect(blurred(luma, sigma_px)) > BLUR_REFUSED
        faint = (40 + luma / 8).astype(np.uint8)
        assert quality.blur_effect(blurred(faint, sigma_px)) > BLUR_REFUSED


def but_the_eyes(image: Image, faces: MediaPipeFaces, factor: float) -> Image:
    """Skin and surroundings reflect less light, eyes as much as before."""
    (face, *_) = faces.detect(image)
    reflects = np.full((*image.shape[:2], 1), factor, np.float32)
    for ring in EYES:
        cv2.fillPoly(reflects, [np.rint(face.landmarks[list(ring), :2]).astype(np.int32)], (1.0,))
    return (image * reflects).astype(np.uint8)


def test_dark_skin_in_good_light_is_not_a_dark_photograph(
    virtual_man: list[Photo], faces: MediaPipeFaces, as_photo: Encode
) -> None:
    lit = decode(virtual_man[0].content)
    darker = but_the_eyes(lit, faces, 0.5)
    (face, *_) = faces.detect(darker)
    left, top, right, bottom = face.box_px
    assert quality.brightest(quality.grey(darker)[top:bottom, left:right]) < DARK_WARNED
    dim = (darker * 0.4).astype(np.uint8)  # the same person in little light
    found = check([as_photo(image, f"{n}.png") for n, image in enumerate((lit, darker, dim))], "person", detector=faces)
    assert ["too_dark" in codes(found, place) for place in range(3)] == [False, False, True]


def test_things_are_checked_without_faces(scene: Image, as_photo: Encode) -> None:
    assert check([as_photo(scene)], "thing").reports[0].verdict == "accepted"
    tiles = np.random.default_rng(0).integers(0, 255, (5, 5, 3), dtype=np.uint8).repeat(60, 0).repeat(60, 1)
    assert "blurred" not in codes(check([as_photo(tiles)], "thing"))
    assert "blurred" in codes(check([as_photo(cv2.GaussianBlur(tiles, (0, 0), 8))], "thing"))
    assert "too_dark" in codes(check([as_photo(scene // 8)], "thing"))
    assert codes(check([as_photo(np.full((300, 300, 3), 255, np.uint8))], "thing"))["too_bright"] == "refused"


class NoFaces:
    """A detector that must not be asked."""

    def detect(self, image: np.ndarray) -> list[Face]:
        raise AssertionError("faces were sought")


def test_the_look_of_a_style_is_not_judged(scene: np.ndarray, as_photo: Encode) -> None:
    """Dark, blurred, overexposed and grey pictures of a style are as good as others; a repeated one is named."""
    noise = np.random.default_rng(0).integers(0, 255, (4, 300, 300, 3), dtype=np.uint8)
    looks = [cv2.GaussianBlur(noise[0], (0, 0), 9), noise[1] // 16, np.full_like(noise[2], 255), noise[3], grey(scene)]
    photos = [as_photo(np.asarray(look, np.uint8)) for look in looks]
    result = check(photos, "style", detector=NoFaces())
    assert [report.reasons for report in result.reports] == [()] * 5
    assert [advice.code for advice in result.set_report.advice] == ["few", "style"]
    assert "near_duplicate" in codes(check([*photos, as_photo(scene[:, ::-1].copy())], "style"))
    assert check(photos[:3], "style").set_report.verdict == "refused"


@pytest.mark.parametrize("kind", ["thing", "style"])
def test_a_thing_and_a_style_show_faces_only_with_consent(
    kind: Kind, virtual_people: np.ndarray, scene: np.ndarray, faces: MediaPipeFaces, as_photo: Encode
) -> None:
    painted = [styled_picture(image) for image in virtual_people[[0, 1, 3, 4]]]
    lying = np.rot90(painted[0]).copy()
    photos = [as_photo(image) for image in (*painted, lying, scene, scene[100:], scene[:, 100:], scene[50:])]
    agreed = check(photos, kind, detector=NoFaces())
    assert [report.verdict for report in agreed.reports].count("refused") == 0
    refused = check(photos, kind, detector=faces, has_consent=False)
    assert [report.verdict == "refused" for report in refused.reports] == [True] * 5 + [False] * 4
    assert codes(refused, 0)["face"] == codes(refused, 4)["face"] == "refused"
    assert {advice.code: advice.verdict for advice in refused.set_report.advice}["face"] == "warned"
    with pytest.raises(InputRefused, match="face") as caught:
        check(photos[:5], kind, detector=faces, has_consent=False).raise_if_refused()
    assert "consent" in caught.value.hint


def test_a_passer_by_is_not_the_thing(virtual_people: np.ndarray, scene: np.ndarray, as_photo: Encode) -> None:
    photos = [as_photo(image) for image in (virtual_people[0], scene, scene[100:])]
    result = check(photos, "thing", has_consent=False)
    assert not any("face" in codes(result, place) for place in range(3)) and len(result.usable) == 3


def test_files_that_show_nothing_do_not_hide_faces(
    virtual_people: np.ndarray, scene: np.ndarray, as_photo: Encode
) -> None:
    photos = [as_photo(image) for image in (virtual_people[0], virtual_people[1], scene)]
    padded = [*photos, *(Photo(f"{k}.txt", b"no picture") for k in range(4))]
    assert [report.verdict for report in check(padded, "thing", has_consent=False).reports[:3]].count("refused") == 2


def styled_picture(image: np.ndarray) -> np.ndarray:
    """A picture as if painted in oil."""
    whole = PreparedPhoto(image, np.full(image.shape[:2], 255, np.uint8), np.zeros(image.shape[:2], np.uint8), "", "")
    return styled(whole, "oil painting", np.random.default_rng(0)).image
