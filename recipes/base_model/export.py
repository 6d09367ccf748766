"""Assemble the base: python -m recipes.base_model.export --unet DIR --vae DIR --out src/likeness/assets/base

Takes the averaged weights of train_unet.py and the autoencoder of train_autoencoder.py, and writes a folder that
StableDiffusionPipeline.from_pretrained loads: fp16 safetensors, configs, checksums. Without `--unet`, only the
autoencoder of the base in `--out` is replaced.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from safetensors.torch import load_file

from likeness.diffusion.base import CHECKSUMS, file_sums

from .networks import build_text_encoder, build_unet, load_tokenizer
from .train_unet import noise_schedule

WEIGHTS = ("text_encoder", "unet", "vae")


def assemble(unet_folder: Path, vae_folder: Path) -> StableDiffusionPipeline:
    """The pipeline of a checkpoint, in fp32, loaded strictly."""
    tokenizer = load_tokenizer(unet_folder / "tokenizer")
    unet, text_encoder = build_unet(), build_text_encoder(tokenizer)
    unet.load_state_dict(load_file(unet_folder / "unet.safetensors"))
    text_encoder.load_state_dict(load_file(unet_folder / "text_encoder.safetensors"))
    return StableDiffusionPipeline(
        vae=AutoencoderTiny.from_pretrained(vae_folder), text_encoder=text_encoder, tokenizer=tokenizer, unet=unet,
        scheduler=noise_schedule(), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def clean_configs(folder: Path) -> None:
    """Remove paths from the configs, and let loaders use float32 whatever the files' type."""
    for path in folder.glob("*/config.json"):
        config = json.loads(path.read_text())
        config.pop("_name_or_path", None)
        if "dtype" in config:
            config["dtype"] = "float32"  # otherwise only the text encoder would load in half precision
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def write_checksums(folder: Path) -> None:
    """checksums.json: sha256 of every file that a base is loaded from, verified at load."""
    (folder / CHECKSUMS).write_text(json.dumps(file_sums(folder), indent=1) + "\n")


def export(unet_folder: Path, vae_folder: Path, out: Path) -> None:
    """Write the base to `out`, replacing all files except the model card."""
    pipeline = assemble(unet_folder, vae_folder).to(torch.float16)
    for part in (*WEIGHTS, "tokenizer", "scheduler"):
        shutil.rmtree(out / part, ignore_errors=True)
    pipeline.save_pretrained(out, safe_serialization=True)
    for name in ("vocab.json", "merges.txt"):  # for readers of the older tokenizer layout
        shutil.copy(unet_folder / "tokenizer" / name, out / "tokenizer" / name)
    clean_configs(out)
    write_checksums(out)


def export_autoencoder(vae_folder: Path, out: Path) -> None:
    """Replace the autoencoder of the base in `out`."""
    autoencoder = AutoencoderTiny.from_pretrained(vae_folder).to(torch.float16)
    shutil.rmtree(out / "vae")
    autoencoder.save_pretrained(out / "vae")
    clean_configs(out)
    write_checksums(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--unet", type=Path, help="folder of train_unet.py; none: only the autoencoder is written")
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.unet is None:
        export_autoencoder(args.vae, args.out)
    else:
        export(args.unet, args.vae, args.out)
    size = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
    print(json.dumps({"megabytes": round(size / 1e6, 2)}))


if __name__ == "__main__":
    main()
