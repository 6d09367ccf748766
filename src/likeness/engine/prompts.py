"""The words of a request as the base will read them, with the subject put in; and what of them is not read."""

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..portraits import prompt_of, with_subject
from ..types import AdapterCard, ImageRequest

if TYPE_CHECKING:
    from ..diffusion.base import BaseModel

# what ComfyUI, A1111 and the like take for instructions
_INSTRUCTIONS = re.compile(
    r"\((?:[^()]*):\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*\)"  # (word:1.2)
    r"|\(\([^()]*\)\)|\[\[[^\[\]]*\]\]"  # ((word)), [[word]]
    r"|\[[^\[\]]*:\s*(?:\d+\.?\d*|\.\d+)\s*\]|\[[^\[\]]*\|[^\[\]]*\]"  # [from:to:0.5], [one|other]
    r"|\{[^{}]*\|[^{}]*\}"  # {one|other}
    r"|<\w+:[^<>]+>|\bembedding:[\w.-]+|\bBREAK\b"  # <lora:name:0.8>, embedding:name
)


@dataclass(frozen=True)
class Unread:
    """What of a request's words does not reach the picture as its author may have meant it."""

    prompt: str  # the end that is cut off
    negative_prompt: str  # likewise; all of it where the picture is not guided
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
    """The request with the subject in its words, if the base reads as far as the subject. From any thread.

    Raises:
        UsageError: else the picture would be of nobody.
    """
    prompt = prompt_of(request.prompt, card, base.says)
    if card is not None and not base.says(prompt.removesuffix(base.unread(prompt)), card.identifier):
        raise UsageError(
            f"expected the subject within the first {base.tokenizer.model_max_length} tokens, which is all that this "
            "base reads",
            hint="make the prompt shorter, or move {me} to its beginning",
            param="prompt",
            code="PromptTooLong",
        )
    return replace(request, prompt=prompt, negative_prompt=with_subject(request.negative_prompt, card))


def unread_of(base: "BaseModel", request: ImageRequest) -> Unread:
    """What of a worded request is not read. From any thread."""
    negative, is_guided = request.negative_prompt, request.guidance_scale != 1
    found = [
        match[0] for text in (request.prompt, negative if is_guided else "") for match in _INSTRUCTIONS.finditer(text)
    ]
    return Unread(base.unread(request.prompt), base.unread(negative) if is_guided else negative, tuple(found))
