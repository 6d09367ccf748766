"""An archive with its config.json: nothing unknown is ignored, and nothing repeated that could be more than a word."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.installation import archive, picture
from likeness.errors import InputRefused
from likeness.jobs.inputs import CONFIG_KEYS, pack_photos, read_config, read_input, with_config
from likeness.jobs.job import JobOrder
from likeness.storage.prepared_photos import pack_prepared, unpack_prepared

ORDER = JobOrder("anna", "rex", "anna/x", changes={"steps": 9, "rank": 4})


def test_what_came_with_the_photographs_goes_before_the_order() -> None:
    config = {"name": "max", "class_noun": "dog", "recipe": "fast", "seed": 7, "steps": 5, "unet_targets": ["to_q"]}
    read = read_input(archive({"1.jpg": picture(1), "config.json": json.dumps(config).encode()}))
    assert [photo.name for photo in read.photos] == ["1.jpg"]
    order = with_config(ORDER, read.config)
    assert (order.name, order.class_noun, order.recipe, order.seed) == ("max", "dog", "fast", 7)
    assert order.changes == {"steps": 5, "rank": 4, "unet_targets": ("to_q",)}
    assert with_config(ORDER, {}) == ORDER


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "JSON"), (b"\xff", "JSON"), (b"[]", "object"), (b"nan", "JSON"), (b"[" * 100_000, "at most"),
        (b'{"stepps": 1, "foo": 2}', "foo, stepps"), (b'{"a b": 1}', "other characters"),
        (b'{"name": "rex", "name": "max"}', "JSON"),
        (b'{"seed": "1"}', "seed in config.json as int"), (b'{"replace": 1}', "replace in config.json as bool"),
    ],
)  # fmt: skip
def test_a_config_that_cannot_be_read_says_why(content: bytes, said: str) -> None:
    with pytest.raises(InputRefused, match=said):
        read_config(content)


def test_a_config_may_begin_with_a_byte_order_mark() -> None:
    assert read_config(b'\xef\xbb\xbf{"seed": 3}') == {"seed": 3}


@pytest.mark.parametrize(
    "config",
    [
        {"steps": 0}, {"steps": "1"}, {"recipe": "none"}, {"name": "../x"}, {"class_noun": ""}, {"seed": -1},
        {"unet_targets": [1]},
    ],
    ids=str,
)  # fmt: skip
def test_a_value_outside_its_limits_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(InputRefused):
        with_config(ORDER, config)


@given(st.dictionaries(st.text(max_size=20), st.none() | st.integers() | st.text(max_size=20), max_size=4))
def test_any_object_is_understood_or_refused(config: dict[str, Any]) -> None:
    if set(config) <= CONFIG_KEYS:
        with suppress(InputRefused):
            with_config(ORDER, read_config(json.dumps(config).encode()))
    else:
        with pytest.raises(InputRefused, match="unknown keys"):
            read_config(json.dumps(config).encode())


def test_two_configs_and_no_archive_are_refused() -> None:
    with pytest.raises(InputRefused, match="one config"):
        read_input(archive({"a/config.json": b"{}", "b/config.json": b"{}"}))
    with pytest.raises(InputRefused):
        read_input(picture(1))


def test_photographs_become_an_archive_and_photographs_again() -> None:
    photos = read_input(archive({"1.jpg": picture(1), "2.jpg": picture(2)})).photos
    packed = pack_photos(photos)
    assert [photo.content for photo in read_input(packed).photos] == [photo.content for photo in photos]
    assert pack_photos(photos) == packed
    config = {"name": "rex", "class_noun": "dog", "seed": 3}
    assert read_input(pack_photos(photos, config)).config == config
    assert pack_photos(photos, config) == pack_photos(photos, dict(reversed(config.items())))


def test_prepared_photographs_lose_nothing_on_the_way() -> None:
    import numpy as np

    from likeness.types import Crop, PreparedPhoto

    rng = np.random.default_rng(0)
    made = [
        PreparedPhoto(
            rng.integers(0, 255, (64, 64, 3), dtype=np.uint8), rng.integers(0, 255, (64, 64), dtype=np.uint8),
            rng.integers(0, 255, (64, 64), dtype=np.uint8), framing, "ab" * 32, crop, glasses=crop is None,
        )
        for framing, crop in (("portrait", Crop(400, 300, -4, 8, 200, 200)), ("close", None))
    ]  # fmt: skip
    again = unpack_prepared(pack_prepared(made))
    for one, other in zip(made, again, strict=True):
        assert (one.framing, one.source_sha256, one.crop) == (other.framing, other.source_sha256, other.crop)
        assert one.glasses == other.glasses
        for plane in ("image", "matte", "face"):
            assert np.array_equal(getattr(one, plane), getattr(other, plane))


def test_a_style_is_a_kind_without_a_class_noun() -> None:
    order = with_config(ORDER, {"kind": "style", "name": "oil"})
    assert (order.name, order.class_noun, order.fine_tune().subject.identifier) == ("oil", "", "<<STY>>")
    assert with_config(order, {"steps": 7}).class_noun == ""
    assert with_config(order, {"class_noun": "dog"}).fine_tune().subject.kind == "thing"
    for bad in ({"kind": "style", "class_noun": "oil"}, {"kind": "thing", "class_noun": "man"}, {"kind": "pet"}):
        with pytest.raises(InputRefused):
            with_config(ORDER, bad)
