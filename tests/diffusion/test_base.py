"""Loading is strict, whatever is wrong with the folder; and the route is the one of diffusers' own pipeline."""

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from huggingface_hub import constants
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from fixtures.tiny import build_tiny_folder, build_tiny_stable_diffusion, random_row, relative
from likeness.diffusion.base import (
    BUILT_IN,
    CHECKSUMS,
    BaseModel,
    file_sums,
    load_base,
    locate,
    outline_of,
    weights_sha256,
)
from likeness.diffusion.lora import LoraBank
from likeness.diffusion.noise import row_noise
from likeness.diffusion.sampling import denoise_all
from likeness.diffusion.schedule import STOCK
from likeness.errors import CorruptBase, LikenessError, NotFound, UsageError
from likeness.types import ImageRequest
from recipes.base_model.export import write_checksums

CPU = torch.device("cpu")
UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"


def load(folder: Path | str) -> BaseModel:
    return load_base(str(folder), device=CPU, dtype=torch.float32)


@pytest.fixture
def folder(tiny_base_folder: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(tiny_base_folder, tmp_path / "spoiled"))


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_facts(tiny_base: BaseModel, tiny_base_folder: Path) -> None:
    assert tiny_base.family.name == "likeness-128"
    assert tiny_base.latent_shape == (16, 16, 16)
    assert tiny_base.sha256 == weights_sha256(tiny_base_folder)
    assert tiny_base.id == tiny_base_folder.name
    for network in tiny_base.parts.values():
        assert not network.training
        assert not any(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("file", [UNET, TEXT, VAE])
def test_missing_unexpected_and_mismatched_keys_are_refused(folder: Path, file: str) -> None:
    weights = load_file(folder / file)
    first = sorted(weights)[0]
    spoilt = {
        "missing": {k: v for k, v in weights.items() if k != first},
        "unexpected": weights | {"one.more": torch.zeros(1)},
        "mismatched|cannot be loaded": weights | {first: torch.zeros(3, 3)},
    }
    for word, state in spoilt.items():
        save_file(state, folder / file, metadata={"format": "pt"})
        with pytest.raises(CorruptBase, match=word):
            load(folder)


def test_key_names_of_older_transformers_load(folder: Path, tiny_base: BaseModel) -> None:
    """Stable Diffusion's own text encoders carry a prefix, and one a buffer of positions."""
    weights = {f"text_model.{key}": tensor for key, tensor in load_file(folder / TEXT).items()}
    weights["text_model.embeddings.position_ids"] = torch.arange(48)[None]
    save_file(weights, folder / TEXT, metadata={"format": "pt"})
    loaded = load(folder).parts["text_encoder"].state_dict()
    assert all(torch.equal(loaded[key], tensor) for key, tensor in tiny_base.parts["text_encoder"].state_dict().items())


@pytest.mark.parametrize("file", [UNET, TEXT, VAE])
def test_only_safetensors_are_read(folder: Path, file: str) -> None:
    path = folder / file
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()
    with pytest.raises(CorruptBase, match=f"none in {path.parent.name}"):
        load(folder)


def test_truncated_weights_are_refused(folder: Path) -> None:
    (folder / UNET).write_bytes((folder / UNET).read_bytes()[:-100])
    with pytest.raises(CorruptBase, match="unet"):
        load(folder)


@pytest.mark.parametrize("part", ["tokenizer", "scheduler", "vae", "unet", "text_encoder"])
def test_a_missing_part_is_refused(folder: Path, part: str) -> None:
    shutil.rmtree(folder / part)
    with pytest.raises(CorruptBase):
        load(folder)


def test_wrong_prediction_type_and_unknown_family_are_refused(folder: Path) -> None:
    edit_json(folder / "scheduler/scheduler_config.json", prediction_type="flow")
    with pytest.raises(CorruptBase, match="prediction type"):
        load(folder)
    edit_json(folder / "scheduler/scheduler_config.json", prediction_type="epsilon")
    edit_json(folder / "unet/config.json", sample_size=17)
    with pytest.raises(NotFound, match="likeness-128"):
        load(folder)


@pytest.mark.parametrize("channels", [{"in_channels": 33}, {"in_channels": 4, "out_channels": 4}])
def test_bases_that_take_more_or_less_than_latents_are_refused(tmp_path: Path, channels: dict[str, Any]) -> None:
    """As those for inpainting (latents, masked latents and the mask) and for editing."""
    folder = build_tiny_folder(tmp_path / "base", **channels)
    with pytest.raises(NotFound, match="16 input and output channels") as caught:
        load(folder)
    assert "inpainting" in caught.value.hint


LOADED = [UNET, TEXT, VAE, "unet/config.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer.json"]


@pytest.mark.parametrize("file", LOADED)
def test_checksums_are_held(folder: Path, file: str) -> None:
    write_checksums(folder)
    load(folder)
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content + b" ")
    with pytest.raises(CorruptBase, match=f"do not match their checksums: {file}"):
        load(folder)
    (folder / file).write_bytes(content)
    (folder / "tokenizer" / "added_tokens.json").write_text("{}")  # loaded too, but not listed
    with pytest.raises(CorruptBase, match=r"added_tokens\.json"):
        load(folder)


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[1, 2]", b"3", b'{"unet": 1}', b"[" * 100_000])
def test_damaged_checksums_are_refused(folder: Path, content: bytes) -> None:
    (folder / CHECKSUMS).write_bytes(content)
    with pytest.raises(CorruptBase, match="checksums"):
        load(folder)


def test_the_built_in_base_lists_every_file_that_is_loaded() -> None:
    folder = locate(BUILT_IN)
    assert json.loads((folder / CHECKSUMS).read_text()) == file_sums(folder)


@pytest.mark.parametrize("part", ["unet", "vae", "scheduler"])
@pytest.mark.parametrize("content", ["[]", "3", '{"cross_attention_dim": [1], "_class_name": [], "beta_start": "x"}'])
def test_configs_of_other_types_are_refused(folder: Path, part: str, content: str) -> None:
    next((folder / part).glob("*config.json")).write_text(content)
    with pytest.raises((CorruptBase, NotFound)):
        load(folder)


def test_the_hash_names_the_weights_and_nothing_else(folder: Path, tiny_base: BaseModel) -> None:
    edit_json(folder / "scheduler/scheduler_config.json", prediction_type="epsilon")
    shutil.copy(folder / UNET, folder / "unet/diffusion_pytorch_model.fp16.safetensors")  # not what is loaded
    assert load(folder).sha256 == tiny_base.sha256
    weights = load_file(folder / UNET)
    weights["conv_in.bias"] = weights["conv_in.bias"] + 1
    save_file(weights, folder / UNET, metadata={"format": "pt"})
    assert load(folder).sha256 != tiny_base.sha256


@pytest.mark.parametrize("variant", ["", ".fp16"])
def test_half_precision_files_load_to_the_asked_dtype(folder: Path, tiny_base: BaseModel, variant: str) -> None:
    for file in (UNET, TEXT, VAE):
        weights = {key: tensor.half() for key, tensor in load_file(folder / file).items()}
        (folder / file).unlink()
        save_file(weights, (folder / file).with_suffix(f"{variant}.safetensors"), metadata={"format": "pt"})
    base = load(folder)
    for name, network in base.networks.items():
        for key, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                assert tensor.dtype == torch.float32
                torch.testing.assert_close(tensor, tiny_base.networks[name].state_dict()[key], rtol=1e-3, atol=1e-3)
    assert load_base(str(folder), device=CPU, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_no_such_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for moves in (None, "main", "v1.0", "0" * 39, "0" * 40 + "\n", "G" * 40):
        with pytest.raises(NotFound, match="40 hexadecimal digits"):
            load_base("someone/some-base", moves)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for name in ("someone/some-base", "no such/id/at all"):
        with pytest.raises(NotFound, match="Hugging Face") as caught:
            load_base(name, "0" * 40)
        assert isinstance(caught.value, LikenessError)


def test_a_cached_hub_id_loads_offline(
    tiny_base_folder: Path, tiny_base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789" * 4
    shutil.copytree(tiny_base_folder, tmp_path / "models--someone--some-base" / "snapshots" / commit)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    base = load_base("someone/some-base", commit, device=CPU, dtype=torch.float32)
    assert base.sha256 == tiny_base.sha256
    assert base.id == f"someone/some-base@{commit}"


@pytest.mark.parametrize("halves", [(), ("unet",), ("unet", "text_encoder", "vae")])
def test_from_the_hub_come_full_weights_where_there_are_any_else_halves(
    tiny_base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, halves: tuple[str, ...]
) -> None:
    there, here = tmp_path / "hub", tmp_path / "cache"
    shutil.copytree(tiny_base_folder, there)
    (there / "sd.ckpt").write_bytes(b"a pickle at the top")
    for file in (UNET, TEXT, VAE):
        half = {key: tensor.half() for key, tensor in load_file(there / file).items()}
        save_file(half, (there / file).with_suffix(".fp16.safetensors"), metadata={"format": "pt"})
        if file.split("/")[0] in halves:
            (there / file).unlink()

    def download(base: str, *, revision: str, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        names = [str(path.relative_to(there)) for path in there.rglob("*") if path.is_file()]
        wanted = [name for name in names if any(fnmatch(name, pattern) for pattern in allow_patterns)]
        for name in (name for name in wanted if not any(fnmatch(name, pattern) for pattern in ignore_patterns)):
            (here / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(there / name, here / name)
        return str(here)

    monkeypatch.setattr("likeness.diffusion.base.snapshot_download", download)
    base = load_base("someone/some-base", "0" * 40, device=CPU, dtype=torch.float32)
    assert base.dtype == torch.float32
    fetched = {path.parent.name for path in here.rglob("*.fp16*")}
    assert fetched == set(halves)
    assert not (here / "sd.ckpt").exists()


def test_photo_and_prompt_routes(tiny_base: BaseModel) -> None:
    latents = tiny_base.encode_photo(torch.zeros(2, 3, 128, 128))
    assert latents.shape == (2, *tiny_base.latent_shape)
    pixels = tiny_base.decode(latents)
    assert pixels.shape == (2, 3, 128, 128)
    assert pixels.abs().max() <= 1
    ids = tiny_base.tokenize(["photo of <<TOK>> person", "word " * 200, "", "лицо 🙂"])
    assert ids.shape == (4, 48)
    assert tiny_base.encode_prompt(ids).states.shape == (4, 48, 192)


@given(st.lists(st.sampled_from(["photo", "of", "woman", "\n"]), max_size=70))
@settings(max_examples=60, deadline=None)
def test_what_is_unread_makes_no_difference(tiny_base: BaseModel, words: list[str]) -> None:
    """Words of one token each: a word that is cut within has another last token."""
    prompt = " ".join(words)
    unread = tiny_base.unread(prompt)
    read = prompt.removesuffix(unread)
    assert read + unread == prompt
    assert tiny_base.unread(read) == ""
    ids = tiny_base.tokenize([prompt, read, f"{read} snow"])
    assert torch.equal(ids[0], ids[1])
    assert torch.equal(ids[0], ids[2]) == bool(tiny_base.unread(f"{read} snow"))


@pytest.mark.parametrize("names_spacing", [True, False])
@pytest.mark.parametrize("prediction_type", ["sample", "epsilon", "v_prediction"])
@pytest.mark.parametrize("sampler", STOCK)
def test_same_image_as_the_stock_pipeline(
    sampler: str, prediction_type: str, names_spacing: bool, tmp_path: Path
) -> None:
    """With a scheduler config as Stable Diffusion's are published, too: those name no spacing."""
    folder = build_tiny_folder(tmp_path / "base", prediction_type)
    if not names_spacing:
        path = folder / "scheduler/scheduler_config.json"
        config = json.loads(path.read_text())
        del config["timestep_spacing"]
        path.write_text(json.dumps(config))
    base = load(folder)
    request = ImageRequest(
        "a photo of <<TOK>> person", negative_prompt="snow", seed=11, steps=8, guidance_scale=4.0, sampler=sampler
    )
    mine = base.decode(denoise_all(base, None, [request]))[0]
    theirs = stock(folder, base, request, output_type="pt")[0]
    assert theirs.std() > 0.01
    assert (mine / 2 + 0.5 - theirs).abs().mean() < 1 / 255


def stock(folder: Path, base: BaseModel, request: ImageRequest, output_type: str) -> torch.Tensor:
    """The images or latents of diffusers' own pipeline."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, requires_safety_checker=False)
    assert request.sampler is not None
    pipeline.scheduler = STOCK[request.sampler].from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    width, height = base.family.checked_size(request.width, request.height)
    made: torch.Tensor = pipeline(
        request.prompt, negative_prompt=request.negative_prompt, num_inference_steps=request.steps, width=width,
        height=height, guidance_scale=request.guidance_scale, output_type=output_type,
        latents=row_noise([request.seed], base.latent_shape_of(width, height)),
    ).images  # fmt: skip
    return made


@pytest.mark.parametrize("size", [(448, 576), (640, 384)])
def test_an_image_of_another_size_is_that_of_the_stock_pipeline(size: tuple[int, int], tmp_path: Path) -> None:
    folder = build_tiny_stable_diffusion(tmp_path / "base")
    base, (width, height) = load(folder), size
    request = ImageRequest(
        "a photo of a man", seed=11, steps=3, guidance_scale=4.0, sampler="dpmpp_2m", width=width, height=height
    )
    mine = denoise_all(base, None, [request])
    assert relative(mine, stock(folder, base, request, output_type="latent")) < 1e-4
    assert base.decode(mine).shape == (1, 3, height, width)


def test_a_size_of_another_family_is_refused(tiny_base: BaseModel) -> None:
    with pytest.raises(UsageError, match="expected the size 128x128, got 448x576"):
        denoise_all(tiny_base, None, [ImageRequest("a photo", width=448, height=576)])


def gradient_of(folder: Path, dtype: torch.dtype, *, scale: float) -> torch.Tensor:
    """Of one person's float32 factors (P,), of a loss times `scale`, through a base of a type."""
    base = load_base(str(folder), device=CPU, dtype=dtype)
    bank = LoraBank(base.networks, base.family.targets, slots=2, rank=2, dtype=torch.float32)
    bank.write(1, random_row(bank, 1))
    bank.enable_training()
    x = row_noise([3], base.latent_shape)
    with bank.route(torch.tensor([1])):
        states = base.encode_prompt(base.tokenize(["a photo"]))
        output = base.denoise(x, torch.tensor([5]), states)
    gradient = bank.gradient((output.float() - x).square().mean() * scale)
    bank.close()
    assert output.dtype == dtype
    assert gradient.dtype == torch.float32
    return gradient[1]


@pytest.mark.parametrize("scale", [1.0, 1e-4])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_base_of_half_precision_takes_fp32_factors(tiny_base_folder: Path, dtype: torch.dtype, scale: float) -> None:
    """Small gradients too: in float16 by themselves, most of those of the smaller loss would be zero."""
    mine = gradient_of(tiny_base_folder, dtype, scale=scale)
    true = gradient_of(tiny_base_folder, torch.float32, scale=scale)
    assert relative(mine, true) < 0.1


def test_an_outline_is_that_of_the_loaded_base_and_needs_no_weights(folder: Path, tiny_base: BaseModel) -> None:
    outline = outline_of(str(folder))
    assert outline.layers == tiny_base.outline.layers
    assert (outline.sha256, outline.family) == (tiny_base.sha256, tiny_base.family)
    for network, layers in outline.layers.items():
        weights = tiny_base.networks[network].state_dict()
        assert layers.keys() >= {"unet": {"conv_in", "mid_block.resnets.0.conv1"}}.get(network, set())
        assert all(tuple(weights[f"{name}.weight"].shape) == shape for name, shape in layers.items())
    for file in (UNET, TEXT, VAE):
        (folder / file).write_bytes(b"no weights")
    assert outline_of(str(folder)).layers == outline.layers


@pytest.mark.parametrize("file", ["unet/config.json", "text_encoder/config.json", "vae/config.json"])
@pytest.mark.parametrize("content", ["", "[]", '{"hidden_size": "wide", "cross_attention_dim": 17}'])
def test_damaged_configs_are_refused_by_outline_and_load(folder: Path, file: str, content: str) -> None:
    (folder / file).write_text(content)
    for read in (outline_of, load):
        with pytest.raises((CorruptBase, NotFound)):
            read(str(folder))
