"""The words of a request as the base will read them: the subject put in, and not beyond the base's last token."""

from typing import TYPE_CHECKING

from ..errors import PromptTooLong
from ..portraits import prompt_of
from ..types import AdapterCard

if TYPE_CHECKING:
    from ..diffusion.base import BaseModel


def prompt_for(base: "BaseModel", text: str, card: AdapterCard | None) -> str:
    """`prompt_of`, if the base reads as far as the subject. From any thread.

    Raises:
        PromptTooLong: else the picture would be of nobody.
    """
    prompt = prompt_of(text, card)
    if card is not None and card.identifier not in prompt.removesuffix(base.unread(prompt)):
        raise PromptTooLong(
            f"expected the subject within the first {base.tokenizer.model_max_length} tokens, which is all that this "
            "base reads",
            hint="make the prompt shorter, or move {me} to its beginning",
            param="prompt",
        )
    return prompt
