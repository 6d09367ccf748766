"""The comparison with other trainings: what each contender's process does, on a tiny base, and the table."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench import comparison, comparison_steps

# trains as the compared script does: torch's AdamW, torchvision's transforms, an adapter in the output folder
SCRIPT = """
import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision import transforms

parser = argparse.ArgumentParser()
parser.add_argument("--output_dir", type=Path)
parser.add_argument("--max_train_steps", type=int)
args = parser.parse_args()
prepare = transforms.Compose([
    transforms.Resize(8, interpolation=transforms.InterpolationMode.LANCZOS), transforms.RandomCrop(8),
    transforms.ToTensor(), transforms.Normalize([0.5], [0.5]),
])
pixels = prepare(Image.fromarray(np.full((12, 16, 3), 255, np.uint8)))
assert pixels.shape == (3, 8, 8) and pixels.min() == pixels.max() == 1
weight = torch.nn.Parameter(torch.ones(4, 8))
optimizer = torch.optim.AdamW([weight])
for _ in range(args.max_train_steps):
    (weight @ pixels[0]).sum().backward()
    optimizer.step()
save_file({"weight": weight.detach()}, args.output_dir / "pytorch_lora_weights.safetensors")
"""


def answer(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.parametrize("dtype", comparison.PRECISIONS)
def test_our_loop_takes_its_steps(dtype: str, tiny_base_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["loop", str(tiny_base_folder), dtype, "standard", "1", "1"]
    comparison_steps.main(["9", "--count", *words, "1"])
    alone = answer(capsys)
    comparison_steps.main(["9", "--count", *words, "2"])
    two = answer(capsys)
    assert len(alone["seconds"]) == len(two["seconds"]) == 9
    assert alone["adapter_bytes"] == two["adapter_bytes"] > 0
    assert two["operations"] == pytest.approx(2 * alone["operations"], rel=0.1) and alone["operations"] > 0


def test_a_script_is_watched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["pytest"])
    monkeypatch.setattr("torch.optim.AdamW.step", torch.optim.AdamW.step)  # restored afterwards
    monkeypatch.setitem(sys.modules, "torchvision", comparison_steps.transforms_of_torchvision())
    (tmp_path / "train.py").write_text(SCRIPT)
    comparison_steps.main(["3", "--count", "script", str(tmp_path / "train.py"), f"--output_dir={tmp_path}"])
    said = answer(capsys)
    assert len(said["seconds"]) == 3 and said["peak_bytes"] > 0
    assert said["operations"] > 2 * 4 * 8 * 8  # a product and its gradient
    assert said["adapter_bytes"] == (tmp_path / "pytorch_lora_weights.safetensors").stat().st_size


def test_the_table_is_of_one_person(tmp_path: Path) -> None:
    those = comparison.contenders(Path("script.py"), tmp_path, "bfloat16")
    assert "--mixed_precision=bf16" in those[0].arguments and those[-1].arguments[2] == "bfloat16"
    answers = [{"seconds": [9.0, 2.0, 4.0], "peak_bytes": 2e9}]
    counted = [{"operations": 4e12, "adapter_bytes": 5e6}] * len(those)
    rows = comparison.table_of(those, [answers] * len(those), counted)
    together = next(row for row in rows if row["contender"] == comparison.TOGETHER)
    each = 1 / comparison.PEOPLE
    assert (together["s for a person's step"], together["TFLOP for it"]) == (3 * each, 4 * each)
    assert (rows[0]["s for a person's step"], rows[0]["peak GB"], rows[0]["adapter MB"]) == (3.0, 2.0, 5.0)


def test_the_inputs_are_a_base_and_photographs(tmp_path: Path) -> None:
    comparison.write_inputs(tmp_path, 32)
    assert (tmp_path / "base" / "unet" / "diffusion_pytorch_model.safetensors").exists()
    assert len(list((tmp_path / "class").iterdir())) == comparison.CLASS_IMAGES
    photos = [np.asarray(Image.open(path)) for path in (tmp_path / "photos").iterdir()]
    assert len(photos) == 12 and {photo.shape for photo in photos} == {(512, 512, 3)}
