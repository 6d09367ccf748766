"""Classifies the prompt of an image with the base itself: a diffusion classifier.

The base denoises the image with every prompt, from the same noise at the same timesteps; the prompt with the smallest
error is the answer. No further model is needed, but only concepts that the base has learned can be measured.

Source: Li et al., 'Your diffusion model is secretly a zero-shot classifier', ICCV 2023, eq. 5 with shared noise.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..diffusion.base import BaseModel
from ..diffusion.conditioning import Conditioning
from ..diffusion.noise import row_noise

# shares of the schedule: at lower noise the prompt has no effect, at higher noise the image has none
TIMES = (0.25, 0.45, 0.65, 0.85)
_ROWS = 32  # per forward pass


@torch.no_grad()
def denoising_losses(base: BaseModel, latents: Tensor, prompts: Conditioning, *, seed: int) -> Tensor:
    """Squared error of the clean latent, (B, len(TIMES)), of each image with its own text.

    latents: (B, C, h, w); prompts: B rows from `encode_prompt`. All images share the noise.
    """
    noises = row_noise(range(seed, seed + len(TIMES)), tuple(latents.shape[1:])).to(latents)
    columns = []
    for share, noise in zip(TIMES, noises, strict=True):
        parts = []
        for rows, texts in zip(latents.split(_ROWS), prompts.split(_ROWS), strict=True):
            t = torch.full((len(rows),), int(share * base.schedule.timesteps), device=rows.device)
            x_t = base.schedule.add_noise(rows, noise.expand_as(rows), t)
            clean = base.schedule.denoised(x_t, base.denoise(x_t, t, texts).to(x_t.dtype), t)
            parts.append((clean - rows).square().flatten(1).mean(1))
        columns.append(torch.cat(parts))
    return torch.stack(columns, dim=1)


@torch.no_grad()
def most_likely_prompts(base: BaseModel, latents: Tensor, prompts: Sequence[str], *, seed: int) -> list[int]:
    """For each image, the index of the prompt with the smallest error.

    latents: (B, C, h, w). The losses of a timestep are divided by their mean over the prompts, so that all count
        equally.
    """
    b, p = len(latents), len(prompts)
    encoded = base.encode_prompt(base.tokenize(prompts))[[*range(p)] * b]
    losses = denoising_losses(base, latents.repeat_interleave(p, 0), encoded, seed=seed)
    each = losses.view(b, p, -1)
    relative = each / each.mean(dim=1, keepdim=True).clamp(min=1e-12)
    return [int(place) for place in relative.mean(dim=2).argmin(dim=1)]
