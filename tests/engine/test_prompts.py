"""Subject and styles are found in a prompt as the base reads it; what the base does not read is said."""

from dataclasses import replace

import pytest

from likeness.diffusion.base import BaseModel
from likeness.engine.prompts import unread_of, worded
from likeness.errors import UsageError
from likeness.types import ImageRequest, Subject

ANNA, DOG, OIL, INK = Subject("anna", "woman"), Subject("rex", "dog"), Subject("oil", ""), Subject("ink", "", "sks")


def prompt(base: BaseModel, text: str, identifier: str = "sks") -> str:
    return worded(base, ImageRequest(text), [Subject("anna", "man", identifier)]).prompt


@pytest.mark.parametrize(
    "text", ["people wearing masks", "an office with desks", "xsks", "SKSx", "tasks and disks", "sk s"]
)
def test_letters_inside_other_words_are_not_the_subject(tiny_base: BaseModel, text: str) -> None:
    assert prompt(tiny_base, text) == f"photo of sks man, {text}"


@pytest.mark.parametrize(
    "text", ["sks", "photo of SKS man", "masks on sks", "(sks:1.2) in the snow", "sks, smiling", "sks-man", "a sks2"]
)
def test_the_identifier_as_a_word_is_the_subject(tiny_base: BaseModel, text: str) -> None:
    assert prompt(tiny_base, text) == text


@pytest.mark.parametrize("identifier", ["<<TOK>>", "ohwx", "zwx person", "TOK1", "a!b", "\u4eba"])
def test_any_identifier_is_found_where_it_stands_alone(tiny_base: BaseModel, identifier: str) -> None:
    for text in (f"photo of {identifier} man", identifier, f"snow, {identifier}"):
        assert prompt(tiny_base, text, identifier) == text
    assert prompt(tiny_base, "snow", identifier) == f"photo of {identifier} man, snow"


@pytest.mark.parametrize("me", ["{me}", "{Me}", "{ME}", "{ me }", "{\tme}"])
def test_me_in_any_case_and_spacing(tiny_base: BaseModel, me: str) -> None:
    request = ImageRequest(f"oil painting of {me}", negative_prompt=f"not {me}")
    found = worded(tiny_base, request, [Subject("anna", "man", "\\g<0>")])  # no pattern of its own
    assert (found.prompt, found.negative_prompt) == ("oil painting of \\g<0> man", "not \\g<0> man")
    bare = worded(tiny_base, request, [])
    assert (bare.prompt, bare.negative_prompt) == ("oil painting of a person", "not a person")


def test_a_prompt_of_nobody_gets_the_subject_in_front(tiny_base: BaseModel) -> None:
    assert prompt(tiny_base, " ") == "photo of sks man"
    assert prompt(tiny_base, "{melon}") == "photo of sks man, {melon}"


def test_a_subject_behind_the_last_token_is_refused(tiny_base: BaseModel) -> None:
    for text in ("snow " * 60 + "{me}", "snow " * 60 + "sks", "photo " * 44 + "sks"):
        with pytest.raises(UsageError):
            prompt(tiny_base, text)
    assert prompt(tiny_base, "sks" + " snow" * 60).startswith("sks")


@pytest.mark.parametrize(
    ("subjects", "text", "expected"),
    [
        ([OIL], "a man in the snow", "a man in the snow, in <<STY>> style"),
        ([OIL], "portrait of {me}", "portrait of a person, in <<STY>> style"),
        ([OIL], " ", "picture in <<STY>> style"),
        ([OIL], "a man in <<sty>> style, smiling", "a man in <<sty>> style, smiling"),
        ([ANNA, OIL], "{me} in the snow", "<<TOK>> woman in the snow, in <<STY>> style"),
        ([ANNA, OIL], "in the snow", "picture of <<TOK>> woman, in the snow, in <<STY>> style"),
        ([ANNA, OIL], "", "picture of <<TOK>> woman, in <<STY>> style"),
        ([ANNA, OIL], "<<TOK>> in <<STY>> style, snow", "<<TOK>> in <<STY>> style, snow"),
        ([ANNA, DOG, OIL, INK], "{me}", "<<TOK>> woman, in <<STY>> style, in sks style"),
        ([OIL, ANNA], "{me}", "a person, in <<STY>> style"),
        ([ANNA, DOG], "snow", "photo of <<TOK>> woman, snow"),
    ],
)
def test_styles_add_their_words_behind_the_subject_s(
    tiny_base: BaseModel, subjects: list[Subject], text: str, expected: str
) -> None:
    found = worded(tiny_base, ImageRequest(text, negative_prompt="{me}"), subjects)
    assert found.prompt == expected
    assert "STY" not in found.negative_prompt


def test_a_style_behind_the_last_token_is_refused(tiny_base: BaseModel) -> None:
    with pytest.raises(UsageError, match="style"):
        worded(tiny_base, ImageRequest("{me}" + " snow" * 60), [ANNA, OIL])
    assert worded(tiny_base, ImageRequest("{me}" + " snow" * 60), [ANNA])


@pytest.mark.parametrize(
    ("text", "instructions"),
    [
        ("a (hat:1.2) and a man", ("(hat:1.2)",)),
        ("(a red hat:0.8), ( coat : .5 )", ("(a red hat:0.8)", "( coat : .5 )")),
        ("((hat)) [[coat]]", ("((hat))", "[[coat]]")),
        ("[cat:dog:0.5] [cat|dog]", ("[cat:dog:0.5]", "[cat|dog]")),
        ("<lora:anna:0.8> <hypernet:x:1> embedding:easy", ("<lora:anna:0.8>", "<hypernet:x:1>", "embedding:easy")),
        ("{red|blue} hat BREAK snow", ("{red|blue}", "BREAK")),
        ("a man (smiling), [sic], 3 > 2, {me}, a break, <<TOK>>", ()),
    ],
)
def test_other_programs_instructions_are_said(tiny_base: BaseModel, text: str, instructions: tuple[str, ...]) -> None:
    for request in (ImageRequest(text), ImageRequest("x", negative_prompt=text)):
        found = unread_of(tiny_base, request)
        assert found.instructions == instructions
        assert len(found.remarks) == bool(instructions)


def test_what_is_cut_is_said_of_both_prompts(tiny_base: BaseModel) -> None:
    long = "photo " * 60 + "of a hat"
    request = ImageRequest(long, negative_prompt=long)
    found = unread_of(tiny_base, request)
    assert found.prompt == found.negative_prompt == tiny_base.unread(long) != ""
    assert [" negative " in remark for remark in found.remarks] == [False, True]
    assert unread_of(tiny_base, ImageRequest("snow", negative_prompt="hat")).remarks == ()


def test_without_guidance_nothing_of_the_negative_prompt_is_read(tiny_base: BaseModel) -> None:
    request = replace(ImageRequest("snow", negative_prompt="(hat:2)"), guidance_scale=1.0)
    found = unread_of(tiny_base, request)
    assert (found.negative_prompt, found.instructions) == ("(hat:2)", ())
