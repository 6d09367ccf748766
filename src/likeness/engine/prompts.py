"""The prompts of a request with the words of subject and styles, and the parts that the base does not read."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..types import ImageRequest, Subject

if TYPE_CHECKING:
    from ..diffusion.base import BaseModel

_ME = re.compile(r"\{\s*me\s*\}", re.IGNORECASE)
# syntax that ComfyUI, A1111 and other programs interpret
_INSTRUCTIONS = re.compile(
    r"\((?:[^()]*):\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*\)"  # (word:1.2)
    r"|\(\([^()]*\)\)|\[\[[^\[\]]*\]\]"  # ((word)), [[word]]
    r"|\[[^\[\]]*:\s*(?:\d+\.?\d*|\.\d+)\s*\]|\[[^\[\]]*\|[^\[\]]*\]"  # [from:to:0.5], [one|other]
    r"|\{[^{}]*\|[^{}]*\}"  # {one|other}
    r"|<\w+:[^<>]+>|\bembedding:[\w.-]+|\bBREAK\b"  # <lora:name:0.8>, embedding:name
)


@dataclass(frozen=True)
class Unread:
    """Parts of a request's prompts that the base does not read, or reads as plain words."""

    prompt: str  # the end that is cut off
    negative_prompt: str  # likewise; all of it if the image is not guided
    instructions: tuple[str, ...]  # such as (word:1.2): read as plain words

    @property
    def remarks(self) -> tuple[str, ...]:
        """One sentence for each, without the words themselves."""
        said = []
        if self.prompt:
            said.append(f"the base did not read the last {len(self.prompt)} characters of the prompt")
        if self.negative_prompt:
            said.append(f"the base did not read the last {len(self.negative_prompt)} characters of the negative prompt")
        if count := len(self.instructions):
            said.append(f"the base read {count} weight(s) or tag(s) such as (word:1.2) as plain words")
        return tuple(said)


def worded(base: "BaseModel", request: ImageRequest, subjects: Sequence[Subject]) -> ImageRequest:
    """The request with the words of the subject and of the styles in its prompts. Thread-safe.

    Args:
        subjects: of the request's adapters, in their order; none: the bare base.

    Raises:
        UsageError: the base cuts the prompt off before these words, so the image would not show them.
    """
    prompt = prompt_of(request.prompt, subjects, base.says)
    read = prompt.removesuffix(base.unread(prompt))
    main = main_subject(subjects)
    if main is not None and not base.says(read, main.identifier):
        raise _too_long("the subject", base.max_tokens, "make the prompt shorter, or move {me} to its beginning")
    if not all(base.says(read, style.identifier) for style in _styles(subjects)):
        raise _too_long("the words of the style", base.max_tokens, "make the prompt shorter: they are at its end")
    return replace(request, prompt=prompt, negative_prompt=with_subject(request.negative_prompt, main))


def main_subject(subjects: Sequence[Subject]) -> Subject | None:
    """What `{me}` stands for: the first adapter's subject; None if that is a style, and on the bare base."""
    return subjects[0] if subjects and subjects[0].kind != "style" else None


def prompt_of(text: str, subjects: Sequence[Subject], says: Callable[[str, str], bool]) -> str:
    """The prompt as the base reads it.

    `{me}` becomes the identifier and the class noun. A prompt with neither `{me}` nor the identifier gets 'photo of
    <identifier> <class noun>, ' in front; with a style it is a 'picture of'. Without a subject `{me}` becomes 'a
    person'. Each style whose identifier is not in the prompt adds ', in <identifier> style' to its end.

    Args:
        says: whether a text contains certain words as words of their own, as the base reads them.
    """
    main, styles = main_subject(subjects), _styles(subjects)
    named = with_subject(text, main)
    if main is not None and named == text and not says(text, main.identifier):
        me = f"{'picture' if styles else 'photo'} of {main.words}"
        named = f"{me}, {text}" if text.strip() else me
    for style in styles:
        if not says(named, style.identifier):
            named = style.added_to(named)
    return named


def with_subject(text: str, main: Subject | None) -> str:
    """The text with the subject's words for `{me}`, in any case and spacing."""
    me = "a person" if main is None else main.words
    return _ME.sub(lambda _: me, text)


def _styles(subjects: Sequence[Subject]) -> list[Subject]:
    return [one for one in subjects if one.kind == "style"]


def _too_long(what: str, max_tokens: int, hint: str) -> UsageError:
    return UsageError(
        f"expected {what} within the first {max_tokens} tokens, which is all that this base reads",
        hint=hint,
        param="prompt",
        code="PromptTooLong",
    )


def unread_of(base: "BaseModel", request: ImageRequest) -> Unread:
    """The parts of a worded request that the base does not read. Thread-safe."""
    negative, is_guided = request.negative_prompt, request.guidance_scale != 1
    found = [
        match[0] for text in (request.prompt, negative if is_guided else "") for match in _INSTRUCTIONS.finditer(text)
    ]
    return Unread(base.unread(request.prompt), base.unread(negative) if is_guided else negative, tuple(found))
