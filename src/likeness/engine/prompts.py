"""The prompts of a request as the base reads them, with the subject's words, and the parts that it does not read."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..types import AdapterCard, ImageRequest

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


def worded(base: "BaseModel", request: ImageRequest, card: AdapterCard | None) -> ImageRequest:
    """The request with the subject's words in its prompts. Thread-safe.

    Raises:
        UsageError: the base cuts the prompt off before the subject, so the image would not show it.
    """
    prompt = prompt_of(request.prompt, card, base.says)
    if card is not None and not base.says(prompt.removesuffix(base.unread(prompt)), card.identifier):
        raise UsageError(
            f"expected the subject within the first {base.max_tokens} tokens, which is all that this base reads",
            hint="make the prompt shorter, or move {me} to its beginning",
            param="prompt",
            code="PromptTooLong",
        )
    return replace(request, prompt=prompt, negative_prompt=with_subject(request.negative_prompt, card))


def prompt_of(text: str, card: AdapterCard | None, says: Callable[[str, str], bool]) -> str:
    """The prompt as the base reads it.

    `{me}` becomes the identifier and the class noun. A prompt with neither `{me}` nor the identifier gets 'photo of
    <identifier> <class noun>, ' in front. On the bare base (no card) `{me}` becomes 'a person'.

    Args:
        says: whether a text contains certain words as words of their own, as the base reads them.
    """
    named = with_subject(text, card)
    if card is None or named != text or says(text, card.identifier):
        return named
    me = f"{card.identifier} {card.class_noun}"
    return f"photo of {me}, {text}" if text.strip() else f"photo of {me}"


def with_subject(text: str, card: AdapterCard | None) -> str:
    """The text with the subject's words for `{me}`, in any case and spacing."""
    me = "a person" if card is None else f"{card.identifier} {card.class_noun}"
    return _ME.sub(lambda _: me, text)


def unread_of(base: "BaseModel", request: ImageRequest) -> Unread:
    """The parts of a worded request that the base does not read. Thread-safe."""
    negative, is_guided = request.negative_prompt, request.guidance_scale != 1
    found = [
        match[0] for text in (request.prompt, negative if is_guided else "") for match in _INSTRUCTIONS.finditer(text)
    ]
    return Unread(base.unread(request.prompt), base.unread(negative) if is_guided else negative, tuple(found))
