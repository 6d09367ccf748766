"""Fit the latents, train the decoder: python -m recipes.base_model.train_autoencoder --data DIR --out DIR

First run: the patch basis is fitted to the first two shards, and an autoencoder with the exact encoder is written at
once, so that the U-Net can start. With `--min-shards` shards the decoder is trained; later shards are not read.
`--init` continues
from an autoencoder without a checkpoint: the latents do not change, and the decoder gets a block at full resolution if
it has none.

The decoder learns on crops of renders, of textures with shifted colours and, with `--unet` (an exported base of these
latents), of that U-Net's one-step denoisings, of which only means of 4 x 4 pixels must match. `--eyes-share` of the
renders' crops lie around the eyes, and renders with glasses are drawn `--glasses-weight` times as often as others: that
is where a small error breaks a face. The losses are pixels and features of the project's classifier (`--judge`, or one
that is trained first). After `--pixels-share` of the time a patch discriminator is added: first it trains alone, then
together with the decoder. The result is a moving average.

The learning rate depends on elapsed time, so `--minutes` is the length of the whole training. A checkpoint is written
every two minutes; `--resume` continues from it, also with more minutes. `log.jsonl` has a line for each. Runs on CPU or
GPU.
"""

import argparse
import hashlib
import json
import math
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from likeness.diffusion.base import BaseModel, load_base
from likeness.photos.align import EYES_ROW

from . import classifier
from .autoencoder import build_autoencoder, reconstruct, with_decoder_blocks
from .data import load_attributes, load_images, psnr_db, to_float, wait_for_shards
from .decoder_losses import FeatureLoss, combined_gradient, reconstruction_loss
from .discriminator import PatchDiscriminator, deceiving_loss, hinge_loss, r1_penalty, same_windows
from .kept import key_of
from .latents import PATCH_PX, fit_patch_basis
from .near_latents import check_same_latents, near_latents
from .precision import faster_dtype, mixed
from .spectrum import band_ratios, period_two_ratio
from .textures import colour_jitter, texture_images

DISCRIMINATOR_RATE = 1e-3
ALONE_STEPS = 100  # steps of the discriminator alone, before its gradient is used
R1_EVERY = 4  # steps; the penalty's weight is multiplied by this
EMA_DECAY = 0.999
NEAR_SHARE, TEXTURE_SHARE = 0.25, 0.25  # of a batch; the rest are renders
CROP_PX = 64
EYES_REACH_PX = 12  # a crop around the eyes has its centre at most so far from the point between them
SHIFT_PX = 8  # the window for discriminator and classifier is smaller than the crop by this
HELD_IMAGES = 64  # held-out photos for the log's figures; pixel art and hatching hide too much contrast
SAVE_S = 120
BASIS_SHARDS = 2
WAIT_S = 3600  # waiting time for shards; a renderer makes ten in some minutes
CHECKPOINT_PARTS = ("model", "average", "discriminator", "optimizer", "discriminator_optimizer")
CHECKPOINT_NUMBERS = ("step", "discriminator_step", "elapsed_s")


def schedule(done: float) -> float:
    """Share of the peak learning rate: warm-up over 2 % of the time, then a cosine to a twentieth; `done` in [0, 1]."""
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return min(1.0, done / 0.02) * (0.05 + 0.95 * fall)


@torch.no_grad()
def first_autoencoder(images: Tensor, textures: Tensor) -> AutoencoderTiny:
    """Basis fitted on renders and textures alike; the scaling factor gives the renders' latents unit variance."""
    basis = fit_patch_basis(to_float(torch.cat([images[:1500], textures[:500]])))
    model = build_autoencoder(basis)
    z = model.encode(to_float(images[:256])).latents
    model.register_to_config(scaling_factor=float(1 / z.std()))
    return model


def write_autoencoder(model: AutoencoderTiny, folder: Path) -> None:
    """Write `folder`/vae, each file atomically."""
    staged, place = folder / "vae.tmp", folder / "vae"
    model.save_pretrained(staged)
    if place.exists():
        for path in staged.iterdir():
            path.replace(place / path.name)
        staged.rmdir()
    else:
        staged.rename(place)


def crops(images: Tensor, rows: Tensor, corners: Tensor, side: int) -> Tensor:
    """Squares of images (N, C, H, W) at corners (B, 2), y and x, of `rows` (B,): (B, C, side, side)."""
    reach = torch.arange(side, device=images.device)
    y, x = (corners[:, k, None] + reach for k in range(2))  # each (B, side)
    return images[rows[:, None, None], :, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)


@dataclass(frozen=True, eq=False)
class Batch:
    """Crops (B, 3, S, S) in [-1, 1], the decoder's input latents, and whether these are exact."""

    images: Tensor
    latents: Tensor  # (B, 16, S/8, S/8)
    is_exact: Tensor  # (B,) bool


@dataclass(frozen=True, eq=False)
class Material:
    """The data for batches, on the device."""

    images: Tensor  # (N, 3, H, W) uint8
    textures: Tensor  # (T, 3, H, W) uint8
    near: Tensor | None  # (M, 16, H/8, W/8) float16, nearly clean latents of the first M images
    crop_px: int = CROP_PX
    weights: Tensor | None = None  # (N,) how often each image is drawn, relative to others; None: all alike
    eyes_share: float = 0.0  # of the renders' crops; the others lie anywhere

    def draw(self, model: AutoencoderTiny, size: int, generator: torch.Generator) -> Batch:
        near_rows = int(size * NEAR_SHARE) if self.near is not None else 0
        textures = int(size * TEXTURE_SHARE)
        renders = size - near_rows - textures
        rows = self._rows(renders, generator)
        drawn = crops(self.images, rows, self._corners(renders, 1, generator), self.crop_px)
        exact = torch.cat([drawn, crops(self.textures, *self._anywhere(textures, generator), self.crop_px)])
        exact = colour_jitter(to_float(exact), generator)
        with torch.no_grad():
            latents = model.encode(exact).latents
        if self.near is not None:
            rows = self._rows(near_rows, generator, len(self.near))
            corners = self._corners(near_rows, PATCH_PX, generator)
            latents = torch.cat([latents, crops(self.near, rows, corners, self.crop_px // PATCH_PX).float()])
            exact = torch.cat([exact, to_float(crops(self.images, rows, PATCH_PX * corners, self.crop_px))])
        is_exact = torch.arange(size, device=exact.device) < size - near_rows
        return Batch(exact, latents, is_exact)

    def _rows(self, count: int, generator: torch.Generator, first: int | None = None) -> Tensor:
        """Numbers of images (count,), of the first ones if asked for."""
        images = len(self.images) if first is None else first
        if self.weights is None:
            return self._integers(images, (count,), generator)
        return torch.multinomial(self.weights[:images], count, replacement=True, generator=generator)

    def _corners(self, count: int, step_px: int, generator: torch.Generator) -> Tensor:
        """Corners (count, 2), y and x, of crops of renders in units of `step_px`, the first of them around the eyes."""
        side_px, around = self.images.shape[-1], round(count * self.eyes_share)
        last = (side_px - self.crop_px) // step_px
        eyes = torch.tensor([EYES_ROW, 0.5], device=generator.device) * side_px - self.crop_px / 2
        shift = torch.rand((around, 2), generator=generator, device=generator.device) * 2 - 1
        at_eyes = ((eyes + EYES_REACH_PX * shift) / step_px).round().long().clamp(0, last)
        return torch.cat([at_eyes, self._integers(last + 1, (count - around, 2), generator)])

    def _anywhere(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows (count,) and corners (count, 2) of crops of textures."""
        last = self.textures.shape[-1] - self.crop_px
        return self._integers(len(self.textures), (count,), generator), self._integers(last + 1, (count, 2), generator)

    def _integers(self, high: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randint(high, shape, generator=generator, device=generator.device)


@dataclass(eq=False)
class Training:
    """The content of a checkpoint, and the losses' networks and weights."""

    model: AutoencoderTiny
    average: AutoencoderTiny  # of the model, over about the last thousand steps
    discriminator: PatchDiscriminator
    optimizer: torch.optim.AdamW
    discriminator_optimizer: torch.optim.AdamW
    features: FeatureLoss
    feature_weight: float
    adversarial_weight: float
    dtype: torch.dtype = torch.float32
    step: int = 0  # of the decoder
    discriminator_step: int = 0
    elapsed_s: float = 0.0

    @classmethod
    def start(
        cls, model: AutoencoderTiny, features: FeatureLoss, *, feature_weight: float, adversarial_weight: float
    ) -> "Training":
        discriminator = PatchDiscriminator().to(model.device)
        return cls(
            model, deepcopy(model), discriminator,
            torch.optim.AdamW(model.decoder.parameters(), betas=(0.9, 0.99), weight_decay=0),
            torch.optim.AdamW(discriminator.parameters(), betas=(0.5, 0.99), weight_decay=0),
            features, feature_weight, adversarial_weight,
        )  # fmt: skip

    def choose_dtype(self, batch: Batch) -> None:
        """The faster type for a pass through the decoder."""

        def forward_and_backward() -> None:
            self.model.decoder(batch.latents).sum().backward()

        self.dtype = faster_dtype(forward_and_backward, self.model.device)
        self.optimizer.zero_grad(set_to_none=True)

    def update(
        self, batch: Batch, rate: float, generator: torch.Generator, *, is_adversarial: bool
    ) -> dict[str, float]:
        """One step on a batch; returns the losses. `rate` is the decoder's learning rate.

        Without `is_adversarial` the decoder learns alone; with it the discriminator, and after its first `ALONE_STEPS`
        both.
        """
        is_listening = is_adversarial and self.discriminator_step >= ALONE_STEPS
        is_decoders = is_listening or not is_adversarial
        with torch.set_grad_enabled(is_decoders), mixed(self.model.device, self.dtype):
            decoded = self.model.decoder(batch.latents)
        decoded = decoded.float()
        figures: dict[str, float] = {}
        if is_decoders:
            figures |= self._update_decoder(decoded, batch, generator, rate, is_listening)
        if is_adversarial:
            figures |= self._update_discriminator(decoded.detach(), batch, generator)
        return figures

    def _update_decoder(
        self, decoded: Tensor, batch: Batch, generator: torch.Generator, rate: float, is_listening: bool
    ) -> dict[str, float]:
        pixels = decoded.detach().requires_grad_()
        reconstruction = reconstruction_loss(pixels, batch.images, batch.is_exact)
        seen, true = same_windows((pixels, batch.images), batch.images.shape[-1] - SHIFT_PX, generator)
        with mixed(pixels.device, self.dtype):
            losses = {"features": (self.features(seen, true), self.feature_weight)}
            if is_listening:
                losses["deceiving"] = (deceiving_loss(self.discriminator(seen)), self.adversarial_weight)
        others = [(torch.autograd.grad(loss, pixels)[0], weight) for loss, weight in losses.values()]
        (main,) = torch.autograd.grad(reconstruction, pixels)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        decoded.backward(combined_gradient(main, others))
        torch.nn.utils.clip_grad_norm_(self.model.decoder.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        decay = min(EMA_DECAY, self.step / (self.step + 10))
        with torch.no_grad():
            for mean, now in zip(self.average.decoder.parameters(), self.model.decoder.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)
        return {"reconstruction": reconstruction.item()} | {name: loss.item() for name, (loss, _) in losses.items()}

    def _update_discriminator(self, decoded: Tensor, batch: Batch, generator: torch.Generator) -> dict[str, float]:
        fake, real = same_windows((decoded, batch.images), batch.images.shape[-1] - SHIFT_PX, generator)
        with mixed(fake.device, self.dtype):
            hinge = hinge_loss(self.discriminator(real), self.discriminator(fake))
        loss, figures = hinge, {"hinge": hinge.item()}
        if self.discriminator_step % R1_EVERY == 0:
            penalty = r1_penalty(self.discriminator, real)
            loss, figures["r1"] = hinge + R1_EVERY * penalty, penalty.item()
        for group in self.discriminator_optimizer.param_groups:
            group["lr"] = DISCRIMINATOR_RATE
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.discriminator_optimizer.step()
        self.discriminator_step += 1
        return figures

    def save(self, folder: Path) -> None:
        parts = {name: getattr(self, name).state_dict() for name in CHECKPOINT_PARTS}
        state = parts | {name: getattr(self, name) for name in CHECKPOINT_NUMBERS}
        torch.save(state, folder / "decoder.tmp.pt")
        (folder / "decoder.tmp.pt").replace(folder / "decoder.pt")
        write_autoencoder(self.average, folder)

    def resume(self, folder: Path) -> None:
        state = torch.load(folder / "decoder.pt", map_location=self.model.device, weights_only=True)
        for name in CHECKPOINT_PARTS:
            getattr(self, name).load_state_dict(state[name])
        for name in CHECKPOINT_NUMBERS:
            setattr(self, name, state[name])


@torch.no_grad()
def measured(model: AutoencoderTiny, held: Tensor) -> dict[str, float]:
    """For held-out images (N, 3, H, W) in [-1, 1]: PSNR, and power by frequency relative to the images."""
    made = torch.cat([reconstruct(model, part) for part in held.split(16)])
    bands = {f"band {name}": ratio for name, ratio in band_ratios(made, held).items()}
    figures = {"db": psnr_db(made, held).mean().item()} | bands | {"period two": period_two_ratio(made, held)}
    return {name: round(value, 3) for name, value in figures.items()}


def train(training: Training, material: Material, held: Tensor, args: argparse.Namespace) -> None:
    """Train until the minutes are over."""
    device = training.model.device
    # a resumed run draws new crops
    generator = torch.Generator(device).manual_seed(training.step + training.discriminator_step)
    training.choose_dtype(material.draw(training.model, args.batch, generator))
    started = time.monotonic() - training.elapsed_s
    saved_s = training.elapsed_s
    while (done := (time.monotonic() - started) / (60 * args.minutes)) < 1:
        training.elapsed_s = done * 60 * args.minutes
        batch = material.draw(training.model, args.batch, generator)
        is_adversarial = training.discriminator_step > 0 or done >= args.pixels_share
        rate = args.learning_rate * schedule(done)
        losses = training.update(batch, rate, generator, is_adversarial=is_adversarial)
        if training.elapsed_s - saved_s > SAVE_S:
            saved_s = training.elapsed_s
            training.save(args.out)
            write_log(training, losses, held, args)
    training.save(args.out)
    write_log(training, {}, held, args)


def write_log(training: Training, losses: dict[str, float], held: Tensor, args: argparse.Namespace) -> None:
    """Write a line to standard output and log.jsonl."""
    line = {
        "s": round(training.elapsed_s), "step": training.step, "crops": training.step * args.batch,
        "discriminator_step": training.discriminator_step, "dtype": str(training.dtype),
        **{name: round(value, 4) for name, value in losses.items()}, "held": measured(training.average, held),
    }  # fmt: skip
    text = json.dumps(line)
    print(text, flush=True)
    with (args.out / "log.jsonl").open("a") as file:
        file.write(text + "\n")


def feature_classifier(
    args: argparse.Namespace, images: Tensor, attributes: Sequence[dict[str, Any]]
) -> classifier.AttributeNet:
    """The classifier of `--judge`, or the one in the output folder, which is trained on the renders if missing."""
    device, own = torch.device(args.device), args.out / "judge.safetensors"
    if args.judge is not None or own.exists():
        return classifier.load(args.judge or own, device)
    labels = [classifier.visible_labels(row) for row in attributes]
    net = classifier.train(images, labels, samples=args.judge_samples, device=device)
    classifier.save(net, own)
    return net


def kept_near_latents(base: BaseModel, images: Tensor, attributes: Sequence[dict[str, Any]], folder: Path) -> Tensor:
    """`near_latents`, cached in the folder for this base and these images."""
    pictures = hashlib.sha256(images.numpy().tobytes()).hexdigest()
    path = folder / f"near-{key_of(base=base.sha256, pictures=pictures)}.pt"
    if not path.exists():
        torch.save(near_latents(base, images, attributes, seed=0), path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)
    return torch.load(path, weights_only=True)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument(
        "--crop", type=int, default=CROP_PX, help="side in pixels, a multiple of 8; 128 is a whole render"
    )
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of the decoder, at its peak")
    parser.add_argument("--pixels-share", type=float, default=0.2, help="of the time, without the discriminator")
    parser.add_argument(
        "--feature-weight", type=float, default=1.0, help="length of its gradient over the pixel loss's"
    )
    parser.add_argument("--adversarial-weight", type=float, default=0.12, help="likewise; more overshoots on photos")
    parser.add_argument("--min-shards", type=int, default=10, help="the decoder starts when so many are rendered")
    parser.add_argument("--max-shards", type=int, default=20, help="that are read, of those there are then")
    parser.add_argument("--textures", type=int, default=2000)
    parser.add_argument("--eyes-share", type=float, default=0.5, help="of the renders' crops that lie around the eyes")
    parser.add_argument("--glasses-weight", type=float, default=3.0, help="how often glasses are drawn; others 1")
    parser.add_argument("--unet", help="exported base of these latents, or 'built-in', for its near-true latents")
    parser.add_argument("--near", type=int, default=2000, help="near-true latents to make with it")
    parser.add_argument("--judge", type=Path, help="weights of a trained classifier, instead of training one")
    parser.add_argument("--judge-samples", type=int, default=40_000, help="that it is trained on otherwise")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--init", type=Path, help="an autoencoder to start from")
    args = parser.parse_args(arguments)
    if args.crop % PATCH_PX or args.crop < CROP_PX:
        parser.error(f"expected --crop of at least {CROP_PX} and a multiple of {PATCH_PX}, got {args.crop}")
    return args


def main(arguments: Sequence[str] | None = None) -> None:
    args = parsed(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    device = torch.device(args.device)

    fitted = load_images(
        wait_for_shards(args.data, min(BASIS_SHARDS, args.min_shards), timeout_s=WAIT_S)[:BASIS_SHARDS]
    )
    textures = texture_images(args.textures, size_px=fitted.shape[-1], seed=0)
    if args.resume or args.init:
        model = with_decoder_blocks(AutoencoderTiny.from_pretrained(args.out / "vae" if args.resume else args.init))
        model.encoder.requires_grad_(False)
    else:
        model = first_autoencoder(fitted, textures)
        write_autoencoder(model, args.out)
    shards = wait_for_shards(args.data, args.min_shards, timeout_s=WAIT_S)[: args.max_shards]
    images, attributes = load_images(shards), load_attributes(shards)
    photos = [row for row, told in enumerate(attributes) if told["style"] == "photo"][:HELD_IMAGES]
    kept = sorted(set(range(len(images))) - set(photos))
    held, images, attributes = images[photos], images[kept], [attributes[row] for row in kept]

    near = None
    if args.unet is not None:
        base = load_base(args.unet, device=device, dtype=torch.float32)
        check_same_latents(base, model, held)
        near = kept_near_latents(base, images[: args.near], attributes[: args.near], args.out).to(device)
    features = FeatureLoss(feature_classifier(args, images, attributes)).to(device)
    model = model.to(device, memory_format=torch.channels_last)
    training = Training.start(
        model, features, feature_weight=args.feature_weight, adversarial_weight=args.adversarial_weight
    )
    if args.resume:
        training.resume(args.out)
    weights = torch.tensor([1.0 if told["glasses"] == "none" else args.glasses_weight for told in attributes])
    material = Material(
        images.to(device), textures.to(device), near, args.crop, weights.to(device), eyes_share=args.eyes_share
    )
    train(training, material, to_float(held).to(device), args)


if __name__ == "__main__":
    main()
