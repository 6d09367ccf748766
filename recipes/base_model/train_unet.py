"""Train U-Net and text encoder: python -m recipes.base_model.train_unet --data DIR --vae DIR --out DIR --minutes 180

The network predicts the clean latent; the error is weighted by 1 / max(sigma^2, 0.2), which is the loss of
v-prediction (Salimans & Ho 2022) written for a clean-latent prediction, and held down where little noise is left, as
in min-SNR-5 (Hang et al. 2023). Predicting velocities amplifies the latent directions of low variance (Li & He 2025,
'Back to Basics: Let Denoising Generative Models Denoise').

An auxiliary loss has the text states predict what the caption says (`said.py`).

Runs on CPU cores or GPUs, with `torchrun` on several (`parallel.py`); the learning rate follows elapsed time, so
`--minutes` is the whole plan, and no two runs are the same to the bit. Checkpoints every `--save-s` seconds; `--resume`
goes on from the last one, also with more minutes; `--init` starts from the weights of an exported base, where no
checkpoint was kept. `log.jsonl` in the folder has a line for each run and one for each `LOG_S` seconds of it.
"""

import argparse
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, DDIMScheduler
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextModel

from likeness.training.timesteps import middle_places

from .data import shard_paths
from .feed import Feed
from .machine import machine_words
from .muon import Muon
from .networks import MAX_TOKENS, build_text_encoder, build_unet, load_tokenizer
from .parallel import agreed, average_gradients, join, leave
from .precision import faster_dtype, mixed
from .render.captions import vocabulary
from .said import UNSAID, SaidHeads, said_loss
from .said import WEIGHT as SAID_WEIGHT
from .tokenizer import write_tokenizer

EMPTY_CAPTION_SHARE = 0.1
EMA_POWER = 12  # the average reaches back over about the last 1 / 13 of the training
LEAST_SIGMA_SQUARED = 0.2
LOG_S = 15
FACE_SPREAD, FACE_GAIN = 0.24, 2.0  # of the emphasis: standard deviation in sides of the picture, height


def noise_schedule() -> DDIMScheduler:
    """The form of Stable Diffusion's schedule with twice its noise, predicting the clean latent.

    These latents have 16 cells a side, not 64, and a strong first component: under Stable Diffusion's own numbers the
    layout of a picture is still plain to see at the last timestep, so that a network takes the layout of pure noise
    for one (Lin et al. 2024, 'Common diffusion noise schedules and sample steps are flawed', section 3.1; Hoogeboom
    et al. 2023, 'simple diffusion', section 3.1).
    """
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.025, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1, prediction_type="sample",
    )  # fmt: skip


def clean_latent_loss(prediction: Tensor, latents: Tensor, sigma_squared: Tensor, emphasis: Tensor) -> Tensor:
    """Mean of emphasis |x_hat - x|^2 / max(sigma^2, 0.2).

    prediction, latents: (B, C, h, w); sigma_squared: (B,) = 1 - alpha_bar; emphasis: (h, w), mean 1
    """
    error = ((prediction.float() - latents.float()).square() * emphasis).flatten(1).mean(1)
    return (error / sigma_squared.clamp(min=LEAST_SIGMA_SQUARED)).mean()


def face_emphasis(cells: int, device: torch.device) -> Tensor:
    """(cells, cells), mean 1: the middle, where the faces are, has three times the weight of the edge."""
    place = (torch.arange(cells, device=device) + 0.5) / cells - 0.5
    bump = torch.exp(-(place / FACE_SPREAD).square() / 2)
    weight = 1 + FACE_GAIN * bump[:, None] * bump
    return weight / weight.mean()


def is_wide(parameter: Tensor) -> bool:
    """Convolutions and feed-forward layers: most of the weights, and the matrices where Muon is cheapest."""
    if parameter.ndim < 2:
        return False
    rows, columns = parameter.flatten(1).shape
    return max(rows, columns) >= 4 * min(rows, columns)


def learning_rate(done: float, peak: float) -> float:
    """Warm-up over the first 2 % of the time, flat to 50 %, then a cosine to zero; `done` in [0, 1]."""
    fall = max(0.0, min(1.0, (done - 0.5) / 0.5))
    return peak * min(1.0, done / 0.02) * 0.5 * (1 + math.cos(math.pi * fall))


@dataclass(eq=False)
class Training:
    """The content of a checkpoint: networks, optimiser, moving average, progress."""

    networks: nn.ModuleDict  # unet, text_encoder, and the heads of `said.py`
    optimizers: list[torch.optim.Optimizer]  # for the wide matrices, and for the others
    average: list[Tensor]  # of every parameter, in order
    step: int = 0
    samples: int = 0
    elapsed_s: float = 0.0
    losses: list[Tensor] = field(default_factory=list)  # since the last log line
    dtype: torch.dtype = torch.float32  # of autocast; float32: none

    @classmethod
    def start(cls, networks: nn.ModuleDict, peak_rate: float) -> "Training":
        parameters = list(networks.parameters())
        embeddings = {id(m.weight) for m in networks.modules() if isinstance(m, nn.Embedding)}
        wide = [p for p in parameters if is_wide(p) and id(p) not in embeddings]
        chosen = {id(p) for p in wide}
        others = [p for p in parameters if id(p) not in chosen]
        optimizers = [
            Muon(wide, lr=peak_rate),
            torch.optim.AdamW(others, lr=peak_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True),
        ]
        return cls(networks, optimizers, [p.detach().clone() for p in parameters])

    def update(self, loss: Tensor, rate: float, rows: int) -> None:
        """One optimiser step on `rows` samples in all; the average is a power function of the step.

        (Karras et al. 2024, 'Analyzing and Improving the Training Dynamics of Diffusion Models', section 3)
        """
        self.networks.zero_grad(set_to_none=True)
        loss.backward()
        parameters = list(self.networks.parameters())
        average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        self.step += 1
        self.samples += rows
        keep = (1 - 1 / self.step) ** (EMA_POWER + 1)
        torch._foreach_lerp_(self.average, [p.detach() for p in parameters], 1 - keep)
        self.losses.append(loss.detach())

    def log(self, feed: Feed, folder: Path) -> None:
        """Progress, and the mean loss since the last call."""
        line = {
            "s": round(self.elapsed_s), "step": self.step, "samples": self.samples,
            "images": feed.size, "people": len(feed.people),
            "loss": round(torch.stack(self.losses).mean().item(), 4),
        }  # fmt: skip
        self.losses.clear()
        write_line(folder, line)

    def save(self, folder: Path) -> None:
        """The averaged weights as fp16 safetensors, one file per network, and the state for --resume."""
        split: dict[str, dict[str, Tensor]] = {name: {} for name in self.networks}
        for (name, _), tensor in zip(self.networks.named_parameters(), self.average, strict=True):
            network, key = name.split(".", 1)
            split[network][key.removeprefix("text_model.")] = tensor.half().contiguous().cpu()
        for network, tensors in split.items():
            save_file(tensors, folder / f"{network}.tmp")
            (folder / f"{network}.tmp").replace(folder / f"{network}.safetensors")
        state = {
            "networks": self.networks.state_dict(), "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step, "samples": self.samples, "elapsed_s": self.elapsed_s,
        }  # fmt: skip
        torch.save(state, folder / "unet.tmp.pt")
        (folder / "unet.tmp.pt").replace(folder / "unet.pt")

    def resume(self, folder: Path, device: torch.device) -> None:
        state = torch.load(folder / "unet.pt", map_location=device, weights_only=True)
        self.networks.load_state_dict(state["networks"])
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.average, self.step = state["average"], state["step"]
        self.samples, self.elapsed_s = state["samples"], state["elapsed_s"]


def trained_together(unet: nn.Module, text_encoder: CLIPTextModel) -> nn.ModuleDict:
    """The two networks and the heads of `said.py`."""
    heads = SaidHeads(text_encoder.config.hidden_size)
    return nn.ModuleDict({"unet": unet, "text_encoder": text_encoder, "said": heads})


def write_line(folder: Path, line: Mapping[str, object]) -> None:
    """Write a line to standard output and log.jsonl."""
    text = json.dumps(line)
    print(text, flush=True)
    with (folder / "log.jsonl").open("a") as file:
        file.write(text + "\n")


def draw_loss(
    training: Training, feed: Feed, empty: Tensor, *, alpha_bar: Tensor, batch: int, generator: torch.Generator
) -> Tensor:
    """The loss of `batch` random images, some mirrored, with random captions, timesteps and noise."""
    device = alpha_bar.device

    def pick(high: int) -> Tensor:
        return torch.randint(high, (batch,), generator=generator, device=device)

    row, place = feed.draw(batch, generator), middle_places(batch, generator)
    t = (place * len(alpha_bar)).long().clamp(max=len(alpha_bar) - 1)
    x = feed.latents[pick(2), row].float()  # (B, 16, h, w)
    dropped = torch.rand(batch, 1, generator=generator, device=device) < EMPTY_CAPTION_SHARE
    caption = pick(feed.ids.shape[1])
    tokens = torch.where(dropped, empty, feed.ids[row, caption].long())
    said = torch.where(dropped, UNSAID, feed.said[row, caption].long())
    signal = alpha_bar[t].view(-1, 1, 1, 1)
    noise = torch.randn(x.shape, generator=generator, device=device)
    states = training.networks["text_encoder"](tokens).last_hidden_state
    noisy = signal.sqrt() * x + (1 - signal).sqrt() * noise
    prediction = training.networks["unet"](noisy, t, states, return_dict=False)[0]
    loss = clean_latent_loss(prediction, x, 1 - alpha_bar[t], face_emphasis(x.shape[-1], device))
    return loss + SAID_WEIGHT * said_loss(training.networks["said"](states), said)


def chosen_dtype(training: Training, feed: Feed, empty: Tensor, batch: int) -> torch.dtype:
    """bfloat16 or float32, whichever is faster for a forward and a backward pass; the same for all processes."""
    alpha_bar = noise_schedule().alphas_cumprod.to(empty.device)
    generator = torch.Generator(empty.device).manual_seed(0)

    def step() -> None:
        draw_loss(training, feed, empty, alpha_bar=alpha_bar, batch=batch, generator=generator).backward()

    is_bfloat16 = agreed(float(faster_dtype(step, empty.device) == torch.bfloat16), empty.device)
    training.networks.zero_grad(set_to_none=True)
    return torch.bfloat16 if is_bfloat16 else torch.float32


def train(
    training: Training, feed: Feed, empty: Tensor, args: argparse.Namespace, *,
    rank: int = 0, count: int = 1, clock: Callable[[], float] = time.monotonic,
) -> None:  # fmt: skip
    """Train until the minutes are over; of `count` processes the first has clock, log and checkpoints."""
    alpha_bar = noise_schedule().alphas_cumprod.to(empty.device)
    # A resumed run draws new rows, and each process draws its own.
    generator = torch.Generator(empty.device).manual_seed(training.step * count + rank)
    started = clock() - training.elapsed_s
    logged_s = saved_s = training.elapsed_s
    while (done := agreed((clock() - started) / (60 * args.minutes), empty.device)) < 1:
        training.elapsed_s = done * 60 * args.minutes
        with mixed(empty.device, training.dtype):
            loss = draw_loss(training, feed, empty, alpha_bar=alpha_bar, batch=args.batch, generator=generator)
        training.update(loss, learning_rate(done, args.learning_rate), args.batch * count)
        if training.step % 20 == 0:
            feed.poll(most=8)
        if rank > 0:
            training.losses.clear()  # not logged
        elif training.elapsed_s - logged_s > LOG_S:
            logged_s = training.elapsed_s
            training.log(feed, args.out)
        if rank == 0 and training.elapsed_s - saved_s > args.save_s:
            saved_s = training.elapsed_s
            training.save(args.out)
    if rank == 0:
        training.save(args.out)
        if training.losses:
            training.log(feed, args.out)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=180)
    parser.add_argument("--batch", type=int, default=32, help="of each process")
    parser.add_argument("--learning-rate", type=float, default=7e-4)
    parser.add_argument("--save-s", type=float, default=120)
    parser.add_argument("--images", type=int, default=130_000, help="most images to hold")
    parser.add_argument("--min-images", type=int, default=5_000, help="start when so many are rendered")
    parser.add_argument("--workers", type=int, default=1, help="processes that compose captions")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="pays on a GPU only")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--init", type=Path, help="an exported base to start from")
    parser.add_argument("--new-text-encoder", action="store_true", help="take --init's U-Net and words only")
    args = parser.parse_args()
    if args.new_text_encoder and args.init is None:
        parser.error("expected --init with --new-text-encoder")
    return args


def main() -> None:
    args = parsed()
    args.out.mkdir(parents=True, exist_ok=True)
    rank, count, device = join(args.device)
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True

    if rank == 0 and args.init:  # its vocabulary, so that embeddings keep their meaning
        shutil.copytree(args.init / "tokenizer", args.out / "tokenizer", dirs_exist_ok=True)
    elif rank == 0 and not args.resume:
        write_tokenizer([*vocabulary(), "<<", ">>"], args.out / "tokenizer")
    agreed(0, device)  # wait until the vocabulary is written
    tokenizer = load_tokenizer(args.out / "tokenizer")
    empty = torch.tensor(tokenizer("", padding="max_length", max_length=MAX_TOKENS)["input_ids"], device=device)
    vae = AutoencoderTiny.from_pretrained(args.vae).to(device).eval()
    feed = Feed(args.data, args.out / "tokenizer", vae, device=device, capacity=args.images, workers=args.workers)
    there = len(shard_paths(args.data))
    while feed.poll(most=8) < args.min_images or feed.shards < there:
        time.sleep(0.5)
    unet, text_encoder = build_unet(), build_text_encoder(tokenizer)
    if device.type == "cpu":  # the backward pass of fused attention is slow on CPUs: a third of a step
        unet.set_attn_processor(AttnProcessor())
        text_encoder.set_attn_implementation("eager")
    networks = trained_together(unet, text_encoder)
    if args.init:
        unet.load_state_dict(load_file(args.init / "unet" / "diffusion_pytorch_model.safetensors"))
        if not args.new_text_encoder:
            text_encoder.load_state_dict(load_file(args.init / "text_encoder" / "model.safetensors"))
    training = Training.start(networks.to(device).train(), args.learning_rate)
    if args.compile:
        for network in networks.values():
            network.compile()
    if args.resume:
        training.resume(args.out, device)
    training.dtype = chosen_dtype(training, feed, empty, args.batch)
    if rank == 0:
        run = {
            "date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine_words(), "processes": count,
            "batch": args.batch, "learning_rate": args.learning_rate, "minutes": args.minutes,
            "from_step": training.step, "dtype": str(training.dtype).removeprefix("torch."),
        }  # fmt: skip
        write_line(args.out, {"run": run})
    train(training, feed, empty, args, rank=rank, count=count)
    feed.close()
    leave()


if __name__ == "__main__":
    main()
