"""A quarter of an hour on a machine with an accelerator: python -m recipes.base_model.on_gpu --assets DIR --out DIR

Renders on that machine's cores while it trains there, so that the asset pack travels and pictures do not. The U-Net
trains in bfloat16, compiled, from the shipped base or from a checkpoint of `train_unet`; then the decoder trains. The
clock stops both. `--out` then holds pieces of at most 15 MiB (weights, running average and optimiser state in half
precision), the logs and a sheet of samples. At home

    python -m recipes.base_model.on_gpu --join DIR --out RUN

makes of the pieces a folder that `train_unet --resume --out RUN` goes on from and `export --unet RUN` reads.
"""

import argparse
import io
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

BASE = Path(__file__).resolve().parents[2] / "src" / "likeness" / "assets" / "base"
PIECE_BYTES = 15 << 20
START_UP_MINUTES = 0.75  # for processes, compilation and sampling, included in the given minutes
STATE = "unet.pt"
UNET_FILES = (
    "unet.safetensors",
    "text_encoder.safetensors",
    "log.jsonl",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
)
VAE_FILES = ("vae/config.json", "vae/diffusion_pytorch_model.safetensors", "log.jsonl")


def module(name: str, *words: object) -> list[str]:
    """The command line of a module of this recipe."""
    return [sys.executable, "-m", f"recipes.base_model.{name}", *(str(word) for word in words)]


def halved(state: Any) -> Any:
    """A checkpoint with float32 tensors converted to bfloat16 on the CPU; other values unchanged."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", torch.bfloat16 if state.dtype == torch.float32 else state.dtype)
    if isinstance(state, Mapping):
        return {key: halved(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [halved(value) for value in state]
    return state


def restored(state: Any) -> Any:
    """The inverse of `halved`, to the precision of bfloat16."""
    if isinstance(state, torch.Tensor):
        return state.float() if state.dtype == torch.bfloat16 else state
    if isinstance(state, dict):
        return {key: restored(value) for key, value in state.items()}
    if isinstance(state, list):
        return [restored(value) for value in state]
    return state


def travelling(checkpoint: Path) -> bytes:
    """A checkpoint of `train_unet` in half precision; the moving average also replaces the weights."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    names = list(state.pop("networks"))
    stream = io.BytesIO()
    torch.save({"names": names, **halved(state)}, stream)
    return stream.getvalue()


def arrived(content: bytes) -> dict[str, Any]:
    """The checkpoint for `train_unet --resume`, from the result of `travelling`."""
    state = restored(torch.load(io.BytesIO(content), weights_only=True))
    state["networks"] = dict(zip(state.pop("names"), state["average"], strict=True))
    return state


def write_pieces(files: Mapping[str, bytes], out: Path) -> list[Path]:
    """Pack these files in a zip, split into pieces for transfer."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    content, paths = packed.getvalue(), []
    for number, start in enumerate(range(0, len(content), PIECE_BYTES)):
        paths.append(out / f"piece-{number:02d}")
        paths[-1].write_bytes(content[start : start + PIECE_BYTES])
    return paths


def join(pieces: Path, out: Path) -> None:
    """Join the pieces in a folder.

    Raises:
        FileNotFoundError: there are none.
        zipfile.BadZipFile: one is missing.
    """
    paths = sorted(pieces.glob("piece-*"))
    if not paths:
        raise FileNotFoundError(f"expected piece-00 and so on in {pieces}, found none")
    with zipfile.ZipFile(io.BytesIO(b"".join(path.read_bytes() for path in paths))) as archive:
        archive.extractall(out)
    packed = out / f"{STATE}.half"
    torch.save(arrived(packed.read_bytes()), out / STATE)
    packed.unlink()


def collected(unet: Path, autoencoder: Path | None) -> dict[str, bytes]:
    """The files of the output, by name."""
    files = {name: (unet / name).read_bytes() for name in UNET_FILES if (unet / name).exists()}
    files[f"{STATE}.half"] = travelling(unet / STATE)
    if autoencoder is not None:
        files |= {f"autoencoder/{name}": (autoencoder / name).read_bytes() for name in VAE_FILES}
    return files


def spend(args: argparse.Namespace) -> None:
    """Render, train, sample, pack. If a part fails, the others are stopped and its exit status is reported."""
    args.out.mkdir(parents=True, exist_ok=True)
    work = args.work or Path(tempfile.mkdtemp(prefix="on-gpu-"))
    renders, unet, autoencoder = work / "renders", work / "unet", work / "autoencoder"
    left = args.minutes - START_UP_MINUTES if args.minutes > 4 * START_UP_MINUTES else args.minutes
    spare = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    renderer = subprocess.Popen(
        module("render.dataset", "--assets", args.assets, "--out", renders, "--people", args.people,
               "--views", args.views, "--workers", args.workers, "--seed", args.seed), env=spare,
    )  # fmt: skip
    try:
        start: Sequence[object] = ("--init", args.init)
        if args.resume is not None:
            shutil.copytree(args.resume, unet, dirs_exist_ok=True)
            start = ("--resume",)
        _run(module(
            "train_unet", "--data", renders, "--vae", args.init / "vae", "--out", unet, *start,
            "--minutes", left - args.decoder_minutes + _elapsed_minutes(unet), "--batch", args.batch,
            "--learning-rate", args.learning_rate, "--images", args.people * args.views, "--min-images",
            args.min_images, "--workers", max(1, args.workers // 8), "--save-s", 60, "--device", args.device,
            *(["--compile"] if args.device == "cuda" else []),
        ))  # fmt: skip
        if args.decoder_minutes > 0:
            _run(module(
                "train_autoencoder", "--data", renders, "--out", autoencoder, "--init", args.init / "vae",
                "--unet", args.init, "--minutes", args.decoder_minutes, "--min-shards", 1, "--device", args.device,
            ))  # fmt: skip
    finally:
        renderer.terminate()
        renderer.wait()
    vae = autoencoder / "vae" if args.decoder_minutes > 0 else args.init / "vae"
    _run(module("samples", "--unet", unet, "--vae", vae, "--steps", args.sample_steps, args.out / "sheet.png"))
    write_pieces(collected(unet, autoencoder if args.decoder_minutes > 0 else None), args.out)


def _elapsed_minutes(unet: Path) -> float:
    """The elapsed minutes of a checkpoint, because `train_unet --minutes` is the length of the whole training."""
    if not (unet / STATE).exists():
        return 0.0
    return float(torch.load(unet / STATE, map_location="cpu", weights_only=True)["elapsed_s"]) / 60


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True)


def parsed(words: Sequence[str] | None = None) -> argparse.Namespace:
    cores = os.cpu_count() or 1
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, help="the pack of 3D people")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--join", type=Path, metavar="DIR", help="put pieces together; nothing is trained")
    parser.add_argument("--init", type=Path, default=BASE, help="an exported base: words, latents, first weights")
    parser.add_argument("--resume", type=Path, help="a folder of train_unet to go on from")
    parser.add_argument("--minutes", type=float, default=11, help="in all")
    parser.add_argument("--decoder-minutes", type=float, default=2)
    parser.add_argument("--people", type=int, default=25_000)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--seed", type=int, default=11, help="of the scenes")
    parser.add_argument("--workers", type=int, default=max(1, cores - 2), help="processes that render")
    parser.add_argument("--min-images", type=int, default=5_000)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--sample-steps", type=int, default=20)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--work", type=Path, help="where renders and checkpoints lie meanwhile; default: a new folder")
    args = parser.parse_args(words)
    if args.join is None and args.assets is None:
        parser.error("expected --assets, the pack of 3D people, or --join")
    return args


def main() -> None:
    args = parsed()
    if args.join is not None:
        join(args.join, args.out)
    else:
        spend(args)


if __name__ == "__main__":
    main()
