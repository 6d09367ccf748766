"""Train U-Net and text encoder: python -m recipes.base_model.train_unet --data DIR --vae DIR --out DIR --minutes 180

The network predicts the clean latent; the error is weighted by 1 / max(sigma^2, 0.05), which is the loss of
v-prediction (Salimans & Ho 2022) written for a clean-latent prediction: predicting velocities amplifies the
latent directions of low variance (Li & He 2025, 'Back to Basics: Let Denoising Generative Models Denoise').

Runs on two CPU cores or one GPU; the learning rate follows elapsed time, so `--minutes` is the whole plan.
Checkpoints every `--save-s` seconds; `--resume` goes on from the last one.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, DDIMScheduler
from safetensors.torch import save_file
from torch import Tensor

from .feed import Feed
from .networks import MAX_TOKENS, build_text_encoder, build_unet, load_tokenizer
from .render.captions import vocabulary
from .tokenizer import write_tokenizer

EMPTY_CAPTION_SHARE = 0.1
EMA_POWER = 12  # the average reaches back over about the last 1 / 13 of the training


def noise_schedule() -> DDIMScheduler:
    """Stable Diffusion's own schedule, with the clean latent as the prediction."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1, prediction_type="sample",
    )  # fmt: skip


def clean_latent_loss(prediction: Tensor, latents: Tensor, sigma_squared: Tensor) -> Tensor:
    """Mean of |x_hat - x|^2 / max(sigma^2, 0.05); prediction, latents (B, C, h, w), sigma_squared (B,) = 1 - alpha_bar."""
    error = (prediction.float() - latents.float()).square().flatten(1).mean(1)
    return (error / sigma_squared.clamp(min=0.05)).mean()


def learning_rate(done: float, peak: float) -> float:
    """Warm-up over the first 2 % of the time, flat to 50 %, then a cosine to zero; `done` in [0, 1]."""
    fall = max(0.0, min(1.0, (done - 0.5) / 0.5))
    return peak * min(1.0, done / 0.02) * 0.5 * (1 + math.cos(math.pi * fall))


def save_averages(folder: Path, averages: dict[str, dict[str, Tensor]]) -> None:
    """fp16 safetensors, one file a network: what export.py assembles."""
    for name, tensors in averages.items():
        save_file({k: v.half().contiguous().cpu() for k, v in tensors.items()}, folder / f"{name}.tmp")
        (folder / f"{name}.tmp").replace(folder / f"{name}.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=180)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=6e-4)
    parser.add_argument("--save-s", type=float, default=60)
    parser.add_argument("--images", type=int, default=130_000, help="most images to hold")
    parser.add_argument("--min-images", type=int, default=20_000, help="start when so many are rendered")
    parser.add_argument("--workers", type=int, default=1, help="processes that compose captions")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    device = torch.device(args.device)
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    generator = torch.Generator(device).manual_seed(0)

    write_tokenizer([*vocabulary(), "<<", ">>"], args.out / "tokenizer")
    tokenizer = load_tokenizer(args.out / "tokenizer")
    empty = torch.tensor(tokenizer("", padding="max_length", max_length=MAX_TOKENS)["input_ids"], device=device)
    vae = AutoencoderTiny.from_pretrained(args.vae).to(device).eval()
    feed = Feed(args.data, args.out / "tokenizer", vae, device=device, capacity=args.images, workers=args.workers)
    while feed.poll(most=8) < args.min_images:
        time.sleep(0.5)
    print(json.dumps({"images": feed.size, "vocabulary": len(tokenizer),
                      "latent_sd": feed.latents[0, : feed.size].float().std().item()}), flush=True)  # fmt: skip

    networks = torch.nn.ModuleDict({"unet": build_unet(), "text_encoder": build_text_encoder(tokenizer)})
    networks.to(device).train()
    unet, text_encoder = networks["unet"], networks["text_encoder"]
    parameters = list(networks.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=args.learning_rate, betas=(0.9, 0.99), weight_decay=0.01,
                                  fused=device.type == "cuda")  # fmt: skip
    average = [p.detach().clone() for p in parameters]
    step, elapsed_s = 0, 0.0
    checkpoint = args.out / "unet.pt"
    if args.resume and checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        networks.load_state_dict(state["networks"])
        optimizer.load_state_dict(state["optimizer"])
        average, step, elapsed_s = state["average"], state["step"], state["elapsed_s"]
    alpha_bar = noise_schedule().alphas_cumprod.to(device)
    denoise = torch.compile(unet) if args.compile else unet
    names = [name for name, _ in networks.named_parameters()]

    def save() -> None:
        split: dict[str, dict[str, Tensor]] = {"unet": {}, "text_encoder": {}}
        for name, tensor in zip(names, average, strict=True):
            network, key = name.split(".", 1)
            split[network][key.removeprefix("text_model.")] = tensor
        save_averages(args.out, split)
        state = {"networks": networks.state_dict(), "optimizer": optimizer.state_dict(), "average": average,
                 "step": step, "elapsed_s": elapsed_s}  # fmt: skip
        torch.save(state, checkpoint.with_suffix(".tmp"))
        checkpoint.with_suffix(".tmp").replace(checkpoint)

    started, saved_s, logged_s, losses = time.monotonic() - elapsed_s, elapsed_s, elapsed_s, []
    while (elapsed_s := time.monotonic() - started) < args.minutes * 60:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(elapsed_s / (args.minutes * 60), args.learning_rate)
        row = torch.randint(feed.size, (args.batch,), generator=generator, device=device)
        flip = torch.randint(2, (args.batch,), generator=generator, device=device)
        which = torch.randint(feed.ids.shape[1], (args.batch,), generator=generator, device=device)
        x = feed.latents[flip, row].float()  # (B, 16, h, w)
        tokens = feed.ids[row, which].long()
        dropped = torch.rand(args.batch, generator=generator, device=device) < EMPTY_CAPTION_SHARE
        tokens = torch.where(dropped[:, None], empty, tokens)
        t = torch.randint(1000, (args.batch,), generator=generator, device=device)
        signal = alpha_bar[t].view(-1, 1, 1, 1)
        noise = torch.randn(x.shape, generator=generator, device=device)
        with torch.autocast(device.type, torch.bfloat16):
            states = text_encoder(tokens).last_hidden_state
            prediction = denoise(signal.sqrt() * x + (1 - signal).sqrt() * noise, t, states, return_dict=False)[0]
        loss = clean_latent_loss(prediction, x, 1 - alpha_bar[t])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        # power-function average (Karras et al. 2024, 'Analyzing and Improving the Training Dynamics', section 3)
        keep = (1 - 1 / step) ** (EMA_POWER + 1)
        torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - keep)
        losses.append(loss.detach())
        if step % 20 == 0:
            feed.poll()
        if elapsed_s - logged_s > 15 or step == 20:
            logged_s = elapsed_s
            line = {"s": round(elapsed_s), "step": step, "samples": step * args.batch, "images": feed.size,
                    "samples_per_s": round(step * args.batch / elapsed_s),
                    "loss": round(torch.stack(losses).mean().item(), 4)}  # fmt: skip
            losses.clear()
            print(json.dumps(line), flush=True)
        if elapsed_s - saved_s > args.save_s:
            saved_s = elapsed_s
            save()
    save()
    feed.close()
    print(json.dumps({"done": True, "step": step, "samples": step * args.batch}), flush=True)


if __name__ == "__main__":
    main()
