"""The value that the denoising network takes from a prompt."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Conditioning:
    """Encoded prompts, one per row. A family reads the fields that its network takes.

    Selections and concatenations are of prompts: they leave `views` out.
    """

    states: Tensor  # (B, N, d), one vector per token; for a prepared prompt its keys and values
    pooled: Tensor | None = None  # (B, D), one vector per prompt
    lengths: tuple[int, ...] = ()  # tokens of each row that are read, from the first; (): all
    views: Tensor | None = None  # (B, 6) of the images to predict, see `BaseModel.reads_views`; None: whole ones

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, rows: Tensor | slice | list[int]) -> "Conditioning":
        """These rows, in their order; rows may repeat."""
        pooled = None if self.pooled is None else self.pooled[rows]
        if not self.lengths:
            return Conditioning(self.states[rows], pooled)
        places = torch.arange(len(self))[rows.cpu() if isinstance(rows, Tensor) else rows].tolist()
        return Conditioning(self.states[rows], pooled, tuple(self.lengths[place] for place in places))

    def without(self, rows: Sequence[int]) -> "Conditioning":
        """The same with zeros in these rows: 'no prompt' of families that do not encode an empty text for it."""
        kept = torch.ones(len(self), dtype=torch.bool, device=self.states.device)
        kept[list(rows)] = False
        pooled = None if self.pooled is None else self.pooled * kept[:, None]
        return replace(self, states=self.states * kept[:, None, None], pooled=pooled)

    def split(self, rows: int) -> list["Conditioning"]:
        """Consecutive parts of `rows` rows each; the last may be shorter."""
        return [self[start : start + rows] for start in range(0, len(self), rows)]

    @staticmethod
    def cat(parts: Sequence["Conditioning"]) -> "Conditioning":
        """The rows of all parts, which are of one family."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        lengths = tuple(length for part in parts for length in part.lengths)
        return Conditioning(torch.cat([part.states for part in parts]), torch.cat(pooled) if pooled else None, lengths)
