"""A training step of a person: diffusers' DreamBooth script, the reference's recipe, ours alone and ours together.

python -m bench.comparison --script train_dreambooth_lora.py [--channels 64] [--dtype float32] [--rounds 2]
    [--steps 9] [--save]

The script is `examples/dreambooth/train_dreambooth_lora.py` of huggingface/diffusers, which is not part of this
repository. All contenders train a Stable Diffusion 2.1-base with random weights and `--channels` channels (320 is the
published width, for which a CPU takes hours), each in a process of its own, in turns. With `--dtype bfloat16` the
frozen networks of all contenders are in bfloat16, and all adapters in float32.

Rows are those of one step: the person's and those for prior preservation. What the contenders do in a step differs: the
script and the reference encode photographs and captions anew, ours were encoded before; ours predict class images with
the bare base, too, those of eight steps in one pass. So the mean is over eight steps, or a multiple.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from likeness.diffusion.base import BUILT_IN, locate
from likeness.service.example import example_photos
from likeness.training.loop import PRIOR_STEPS as BLOCK
from likeness.training.recipe import recipe_named
from recipes.measurement import Row

from .report import ROOT, Goal, finish, options
from .true_size import BASES

PEOPLE = 8
SCRIPT, REFERENCE = "diffusers' script", "the reference's recipe"
ALONE, TOGETHER = "ours, alone", f"ours, {PEOPLE} together"
CLASS_IMAGES = 4
PRECISIONS = {"float32": "no", "bfloat16": "bf16"}  # torch's name -> the script's
LEAST_SPEED_UP = 2.0  # of eight together over the script


@dataclass(frozen=True)
class Contender:
    """One way of training, and the arguments of the process that takes its steps."""

    name: str
    people: int
    rows: str  # of a person in a step
    arguments: tuple[str, ...]


def contenders(script: Path, work: Path, dtype: str) -> list[Contender]:
    own = recipe_named("standard")
    rows = f"{own.instance_rows} + {own.prior_rows}"
    peer = (
        "script", str(script), f"--pretrained_model_name_or_path={work / 'base'}",
        f"--instance_data_dir={work / 'photos'}", f"--class_data_dir={work / 'class'}",
        "--instance_prompt=photo of sks person", "--class_prompt=photo of person", "--with_prior_preservation",
        f"--num_class_images={CLASS_IMAGES}", "--train_batch_size=1", "--train_text_encoder", f"--rank={own.rank}",
        "--resolution=512", f"--output_dir={work / 'out'}", f"--logging_dir={work / 'log'}",
        f"--mixed_precision={PRECISIONS[dtype]}",
    )  # fmt: skip
    ours = ("loop", str(work / "base"), dtype)
    return [
        Contender(SCRIPT, 1, "1 + 1", peer),
        Contender(REFERENCE, 1, "1 + 1", (*ours, "origin-2023", "1", "1", "1")),
        Contender(ALONE, 1, "1 + 1", (*ours, "standard", "1", "1", "1")),
        Contender(TOGETHER, PEOPLE, "1 + 1", (*ours, "standard", "1", "1", str(PEOPLE))),
        Contender(ALONE, 1, rows, (*ours, "standard", str(own.instance_rows), str(own.prior_rows), "1")),
    ]


def build_base(folder: Path, channels: int) -> None:
    """Write a Stable Diffusion 2.1-base with random weights and `channels`, 2, 4 and 4 times `channels` channels."""
    torch.manual_seed(0)
    unet = {**BASES["sd-2.1-base"].configs["unet"]}
    heads = max(1, channels // 64)
    unet |= {"block_out_channels": [channels, 2 * channels, 4 * channels, 4 * channels],
             "attention_head_dim": [heads, 2 * heads, 4 * heads, 4 * heads]}  # fmt: skip
    vae = {**BASES["sd-2.1-base"].configs["vae"], "block_out_channels": [32, 64, 64, 64]}
    tokenizer = CLIPTokenizer.from_pretrained(locate(BUILT_IN) / "tokenizer", model_max_length=77)
    text = {**BASES["sd-2.1-base"].configs["text_encoder"], "num_hidden_layers": 2, "vocab_size": len(tokenizer)}
    StableDiffusionPipeline(
        vae=AutoencoderKL.from_config(vae), unet=UNet2DConditionModel.from_config(unet),
        text_encoder=CLIPTextModel(CLIPTextConfig(**text)),
        tokenizer=tokenizer,
        scheduler=DDPMScheduler.from_config(BASES["sd-2.1-base"].schedule), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip


def write_inputs(work: Path, channels: int) -> None:
    """The base, the example's photographs, and class images (the same photographs: their content costs no time)."""
    build_base(work / "base", channels)
    for name, count in (("photos", None), ("class", CLASS_IMAGES)):
        (work / name).mkdir()
        for photo in sorted(example_photos().glob("*.jpg"))[:count]:
            shutil.copy(photo, work / name)


def steps_of(contender: Contender, steps: int, *, count: bool) -> dict[str, Any]:
    """The last line of a process that takes `steps` steps, see `comparison_steps`.

    Raises:
        SystemExit: it failed; contains the end of its log.
    """
    command = [sys.executable, "-m", "bench.comparison_steps", str(steps), *(["--count"] if count else [])]
    done = subprocess.run([*command, *contender.arguments], capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(f"{contender.name} failed\n{done.stderr[-4000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def measure(those: list[Contender], *, steps: int, rounds: int) -> list[list[dict[str, Any]]]:
    """The answers of each contender, one per round; the rounds go through the contenders in turn."""
    taken: list[list[dict[str, Any]]] = [[] for _ in those]
    for _ in range(rounds):
        for one, answers in zip(those, taken, strict=True):
            answers.append(steps_of(one, steps, count=False))
    return taken


def person_step_s(contender: Contender, answer: dict[str, Any]) -> float:
    """Mean seconds of a step for one person; the first step, which warms up, does not count."""
    return fmean(answer["seconds"][1:]) / contender.people


def table_of(those: list[Contender], taken: list[list[dict[str, Any]]], counted: list[dict[str, Any]]) -> list[Row]:
    rows: list[Row] = []
    for one, answers, counts in zip(those, taken, counted, strict=True):
        rows.append({
            "contender": one.name, "rows a step": one.rows,
            "s for a person's step": median(person_step_s(one, answer) for answer in answers),
            "TFLOP for it": counts["operations"] / one.people / 1e12,
            "peak GB": max(answer["peak_bytes"] for answer in answers) / 1e9,
            "adapter MB": counts["adapter_bytes"] / 1e6,
        })  # fmt: skip
    return rows


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--script", type=Path, required=True, help="diffusers' train_dreambooth_lora.py")
    parser.add_argument("--channels", type=int, default=64, help="of the first block, a multiple of 32; 320: published")
    parser.add_argument("--dtype", choices=PRECISIONS, default="float32", help="of the frozen networks")
    parser.add_argument(
        "--steps", type=int, default=BLOCK + 1, help=f"of each process: 1 more than a multiple of {BLOCK}"
    )
    parser.add_argument("--rounds", type=int, default=2)
    args: argparse.Namespace = parser.parse_args()
    if args.steps <= BLOCK or args.steps % BLOCK != 1 or args.channels % 32 or not args.script.is_file():
        parser.error(
            f"expected 1 step more than a multiple of {BLOCK}, channels in multiples of 32, and an existing script"
        )
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_inputs(work, args.channels)
        those = contenders(args.script.resolve(), work, args.dtype)
        taken = measure(those, steps=args.steps, rounds=args.rounds)
        counted = [steps_of(one, BLOCK + 1, count=True) for one in those]
    speed_up = median(
        person_step_s(those[0], script) / person_step_s(those[3], ours)
        for script, ours in zip(taken[0], taken[3], strict=True)
    )
    goal = Goal(f"a person's step of 1 + 1 rows: {SCRIPT} over {TOGETHER}", speed_up, LEAST_SPEED_UP, at_least=True)
    settings = {name: getattr(args, name) for name in ("channels", "dtype", "steps", "rounds")}
    settings["threads"] = torch.get_num_threads()
    finish("comparison", {"steps": table_of(those, taken, counted)}, goals=[goal], settings=settings, save=args.save)


if __name__ == "__main__":
    main()
