"""The attributes of a caption as classes, and an auxiliary loss that predicts them from the text states.

A colour's token comes before its noun, so 'red' of hair and 'red' of a shirt differ only in the states of later tokens.
With the U-Net's loss alone, the text encoder learned this too slowly: after 850,000 samples a linear probe found the
colour of the clothes in the mean state for 67 % of the captions that mention it (docs/log.md). This loss trains it
directly. The heads are used in training only and are not exported.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .classifier import HEADS
from .networks import TEXT_WIDTH
from .prompts import asked_by

UNSAID = 0  # the class of an attribute that the caption does not mention; the classes of HEADS follow
WEIGHT = 0.05  # of the mean cross-entropy, relative to the denoising loss


def said_classes(text: str, attributes: Mapping[str, Any]) -> list[int]:
    """For each of HEADS, in order: UNSAID, or 1 + the index of the class that the caption mentions."""
    asked = asked_by(text, attributes)
    return [1 + classes.index(asked[head]) if head in asked else UNSAID for head, classes in HEADS.items()]


class SaidHeads(nn.Module):
    """(B, N, width) text states -> for each of HEADS logits (B, 1 + classes), linear in the mean state."""

    def __init__(self, width: int = TEXT_WIDTH) -> None:
        super().__init__()
        self.sizes = [1 + len(classes) for classes in HEADS.values()]
        self.out = nn.Linear(width, sum(self.sizes))

    def forward(self, states: Tensor) -> tuple[Tensor, ...]:
        return self.out(states.mean(1)).split(self.sizes, dim=1)


def said_loss(logits: tuple[Tensor, ...], classes: Tensor) -> Tensor:
    """Mean cross-entropy of all heads; classes: (B, heads) as of `said_classes`."""
    losses = [nn.functional.cross_entropy(one.float(), classes[:, k]) for k, one in enumerate(logits)]
    return torch.stack(losses).mean()
