"""Contact sheet of a checkpoint: python -m recipes.base_model.samples --unet DIR --vae DIR OUT.png

Prompts and seeds are fixed, so that two sheets can be compared.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .export import assemble

PROMPTS = (
    "photo of a man on a beach",
    "photo of a smiling young woman with long blonde hair in a forest",
    "close-up photo of an old man with gray hair and a full beard",
    "photo of a woman with round glasses, wearing a red shirt, in a library",
    "pencil sketch of a man",
    "comic book portrait of a woman with short black hair",
    "bronze statue of a man in a city",
    "watercolor painting of a woman in the mountains",
    "oil painting of an old woman",
    "pop art portrait of a man with sunglasses",
    "neon cyberpunk portrait of a woman in a city at night",
    "pixel art of a man in the snow",
    "marble statue of a woman",
    "anime portrait of a young man",
    "black and white photo of a woman",
    "close-up photo of a <<abq>> man in space",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--unet", type=Path, required=True)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    pipeline = assemble(args.unet, args.vae)
    pipeline.set_progress_bar_config(disable=True)
    rows = []
    for start in range(0, len(PROMPTS), 8):
        generators = [torch.Generator().manual_seed(seed) for seed in range(8)]
        images = pipeline(
            list(PROMPTS[start : start + 8]), num_inference_steps=args.steps, guidance_scale=args.guidance,
            generator=generators, output_type="np",
        ).images  # fmt: skip
        rows.append(np.hstack(list(images)))
    sheet = Image.fromarray((np.vstack(rows) * 255).astype(np.uint8))
    sheet.resize((sheet.width * 3 // 2, sheet.height * 3 // 2), Image.Resampling.LANCZOS).save(args.out)


if __name__ == "__main__":
    main()
