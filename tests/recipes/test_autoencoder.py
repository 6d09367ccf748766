"""The decoder's training: what it is given, what it is judged by, and that a resumed run goes on."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn

pytest.importorskip("numba", reason="the captions' tables lie beside kernels that numba compiles")

from fixtures.tiny import build_tiny_folder
from likeness.diffusion.base import BaseModel, file_sums, load_base
from likeness.photos.align import EYES_ROW
from recipes.base_model import classifier, train_autoencoder
from recipes.base_model.autoencoder import DECODER_BLOCKS, build_autoencoder, reconstruct, with_decoder_blocks
from recipes.base_model.classifier import AttributeNet
from recipes.base_model.decoder_losses import FeatureLoss, combined_gradient, means_loss, reconstruction_loss
from recipes.base_model.discriminator import (
    PatchDiscriminator,
    deceiving_loss,
    hinge_loss,
    r1_penalty,
    same_windows,
    with_bands,
)
from recipes.base_model.export import export_autoencoder
from recipes.base_model.latents import CHANNELS, PATCH_PX, PatchBasis
from recipes.base_model.near_latents import check_same_latents, near_latents
from recipes.base_model.precision import ROUNDS, faster_dtype, mixed
from recipes.base_model.spectrum import band_ratios, period_two_ratio
from recipes.base_model.train_autoencoder import ALONE_STEPS, CROP_PX, EYES_REACH_PX, Material, Training

CPU = torch.device("cpu")
TOLD = {
    "style": "photo", "place": "city", "gender": "woman", "age": "young", "ethnicity": "asian", "hair": "bob",
    "hair_color": "dark brown", "beard": "none", "glasses": "round glasses", "clothes": "sweater",
    "clothes_color": "brown", "expression": "neutral", "framing": "portrait", "view": "front", "eye_color": "brown",
    "lipstick": False, "name": None,
}  # fmt: skip


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=generator(seed)) * 2 - 1


def pictures(count: int, side: int = 128) -> Tensor:
    return torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=generator())


def autoencoder() -> AutoencoderTiny:
    torch.manual_seed(0)
    axes = torch.linalg.qr(torch.randn(3 * PATCH_PX**2, CHANNELS)).Q
    return build_autoencoder(PatchBasis(axes, torch.zeros(CHANNELS)))


def older_autoencoder() -> AutoencoderTiny:
    torch.manual_seed(1)
    return AutoencoderTiny(
        latent_channels=CHANNELS, encoder_block_out_channels=(48,) * 4, decoder_block_out_channels=(64,) * 4,
        num_encoder_blocks=(0, 0, 0, 0), num_decoder_blocks=(4, 3, 1, 0), scaling_factor=2.5,
    )  # fmt: skip


def test_a_decoder_without_full_resolution_gets_a_block_there_and_keeps_the_rest() -> None:
    old = older_autoencoder()
    new = with_decoder_blocks(old)
    assert tuple(new.config["num_decoder_blocks"]) == DECODER_BLOCKS and new.config["scaling_factor"] == 2.5
    assert not any(p.requires_grad for p in new.encoder.parameters())
    images = noise(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(new.encode(images).latents, old.encode(images).latents)
        z = noise(1, CHANNELS, 4, 4)
        # up to the last resolution both compute the same; there the new block passes on what is not negative
        before = nn.Sequential(*list(old.decoder.layers)[:-1])(torch.tanh(z / 3) * 3)
        expected = old.decoder.layers[-1](before.relu()).mul(2).sub(1)
        torch.testing.assert_close(new.decoder(z), expected)
    assert with_decoder_blocks(new) is new


@pytest.mark.parametrize(("bfloat16_s", "expected"), [(0.5, torch.bfloat16), (25.0, torch.float32)])
def test_the_faster_dtype_wins_and_its_step_runs_under_it(bfloat16_s: float, expected: torch.dtype) -> None:
    seen: list[bool] = []
    now = 0.0

    def step() -> None:
        nonlocal now
        seen.append(torch.is_autocast_enabled("cpu"))
        now += bfloat16_s if seen[-1] else 1.0

    assert faster_dtype(step, CPU, clock=lambda: now) == expected
    assert seen == [False] * (1 + ROUNDS) + [True] * (1 + ROUNDS)
    with mixed(CPU, torch.float32):
        assert not torch.is_autocast_enabled("cpu")


def test_a_flat_picture_has_no_high_pass_band_and_a_fine_pattern_is_amplified() -> None:
    flat = torch.full((1, 3, 16, 16), 0.3)
    torch.testing.assert_close(with_bands(flat)[:, 3:], torch.zeros(1, 6, 16, 16), atol=1e-6, rtol=0)
    pattern = flat.clone()
    pattern[..., ::2] += 0.1
    bands = with_bands(pattern)
    torch.testing.assert_close(bands[:, :3], pattern)
    assert bands[:, 3:6].std() > 2 * pattern.std() > bands[:, 6:].std()


def test_the_discriminators_gradient_prefers_no_pixel_of_a_pair() -> None:
    torch.manual_seed(0)
    discriminator, totals = PatchDiscriminator(width=4), torch.zeros(2)
    for seed in range(12):
        images = noise(8, 3, 32, 32, seed=seed).requires_grad_()
        (gradient,) = torch.autograd.grad(discriminator(images).sum(), images)
        inner = gradient[..., 8:24, 8:24].square()
        totals += torch.stack([inner[..., ::2].sum(), inner[..., 1::2].sum()])
    assert totals.max() < 1.1 * totals.min()


def test_the_discriminator_learns_to_tell_blurred_pictures() -> None:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(width=8)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-3, betas=(0.5, 0.99))
    real = noise(8, 3, 32, 32)
    fake = nn.functional.avg_pool2d(real, 3, stride=1, padding=1)
    losses = []
    for _ in range(30):
        loss = hinge_loss(discriminator(real), discriminator(fake))
        optimizer.zero_grad()
        (loss + r1_penalty(discriminator, real)).backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 < 1.5 < losses[0]
    assert deceiving_loss(discriminator(fake)) > deceiving_loss(discriminator(real))


def test_hinge_loss_is_two_without_knowledge_and_zero_when_sure() -> None:
    assert hinge_loss(torch.zeros(3), torch.zeros(5)) == 2
    assert hinge_loss(torch.full((3,), 1.5), torch.full((5,), -2.0)) == 0


def test_r1_is_half_the_squared_slope() -> None:
    class Slope(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return 3 * images[:, :, :1, :1].sum(1)

    assert r1_penalty(Slope(), noise(2, 3, 8, 8)).item() == pytest.approx(9 * 3 / 2)


def test_windows_are_the_same_of_all_and_begin_on_odd_pixels_too() -> None:
    one = torch.arange(64.0).expand(1, 3, 64, 64)
    starts = set()
    g = generator()
    for _ in range(40):
        a, b = same_windows((one, one + 100), 56, g)
        assert a.shape == (1, 3, 56, 56) and torch.equal(a + 100, b)
        starts.add(int(a[0, 0, 0, 0]))
    assert starts == set(range(9))


def test_only_means_count_where_latents_are_not_exact() -> None:
    images = noise(4, 3, 16, 16)
    checker = 0.5 * (1 - 2 * (torch.arange(16) % 2)).float()
    moved = images + checker  # the mean of any 4 x 4 pixels stays
    assert means_loss(moved, images) < 1e-10
    none, all_ = torch.zeros(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool)
    assert reconstruction_loss(moved, images, none) < 1e-10
    whole = reconstruction_loss(moved, images, all_)
    assert whole.item() == pytest.approx(0.25 + 0.1 * 0.5)
    half = reconstruction_loss(moved, images, torch.tensor([True, False, True, False]))
    assert half.item() == pytest.approx(whole.item() / 2)


def test_gradients_are_weighed_by_their_length() -> None:
    main, other = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 1e-6])
    torch.testing.assert_close(combined_gradient(main, [(other, 0.5)]), torch.tensor([3.0, 6.5]))
    torch.testing.assert_close(combined_gradient(main, [(torch.zeros(2), 1.0)]), main)


def test_features_of_the_same_picture_are_equal_and_their_network_stays() -> None:
    torch.manual_seed(0)
    loss = FeatureLoss(AttributeNet())
    one, other = noise(2, 3, 56, 56), noise(2, 3, 56, 56, seed=1)
    assert loss(one, one) == 0 and loss(one, other) > 0.01
    assert not any(p.requires_grad for p in loss.parameters())
    assert len(loss.features(one)) == 6
    moved = one.clone().requires_grad_()
    loss(moved, other).backward()
    assert moved.grad is not None and moved.grad.abs().sum() > 0


def material(model: AutoencoderTiny, *, is_near: bool) -> Material:
    images = pictures(6)
    with torch.no_grad():
        near = model.encode(images[:4].float() / 127.5 - 1).latents.half()
    return Material(images, pictures(3) // 2, near if is_near else None)


def test_a_crop_can_be_a_whole_picture() -> None:
    model = autoencoder()
    batch = replace(material(model, is_near=True), crop_px=128).draw(model, 4, generator())
    assert batch.images.shape == (4, 3, 128, 128) and batch.latents.shape == (4, CHANNELS, 16, 16)
    with pytest.raises(SystemExit):
        train_autoencoder.parsed(["--data", "a", "--out", "b", "--crop", "100"])


def test_a_batch_has_latents_of_its_crops_and_near_ones_lie_on_their_pictures() -> None:
    model = autoencoder()
    batch = material(model, is_near=True).draw(model, 8, generator())
    assert batch.images.shape == (8, 3, CROP_PX, CROP_PX) and batch.latents.shape == (8, CHANNELS, 8, 8)
    assert batch.is_exact.tolist() == [True] * 6 + [False] * 2
    with torch.no_grad():
        own = model.encode(batch.images).latents
    torch.testing.assert_close(batch.latents[:6], own[:6])
    torch.testing.assert_close(batch.latents[6:], own[6:], atol=0.02, rtol=0)  # half precision
    assert material(model, is_near=False).draw(model, 8, generator()).is_exact.all()


def signs(bits: Tensor) -> Tensor:
    """Pixel values, uint8, whose signs in [-1, 1] are these bits, whatever `colour_jitter` does to them."""
    return torch.where(bits.bool(), 192, 64).byte()


def places(crops: Tensor, code: Tensor) -> Tensor:
    """Corners (B, 2), y and x, of crops (B, 3, S, S) of a picture with `code` along x and along y, mirrored or not."""
    windows = code.unfold(0, crops.shape[-1], 1)  # (corners, S)
    down, across = ((line[:, None] > 0) for line in (crops[:, 1, :, 0], crops[:, 0, 0, :]))  # (B, 1, S)
    y = (down == windows).all(2)
    x = (across == windows).all(2) | (across.flip(2) == windows).all(2)
    assert (y.sum(1) == 1).all() and (x.sum(1) == 1).all()
    return torch.stack([y.int().argmax(1), x.int().argmax(1)], 1)


@pytest.mark.parametrize("crop_px", [64, 96, 128])
def test_crops_of_renders_lie_around_the_eyes_or_anywhere(crop_px: int) -> None:
    model, code = autoencoder(), torch.rand(128, generator=generator()) > 0.5
    picture = torch.stack([signs(code).expand(128, 128), signs(code)[:, None].expand(128, 128), pictures(1)[0, 2]])
    cells = torch.stack(torch.meshgrid(*[torch.arange(128 // PATCH_PX)] * 2, indexing="ij")).half()  # (2, 16, 16)
    near = cells.repeat(CHANNELS // 2, 1, 1)[None]
    material = Material(picture[None], pictures(3), near, crop_px)

    def corners(eyes_share: float) -> tuple[Tensor, Tensor]:
        """Of 300 crops, and of 150 with latents of their own."""
        batch = replace(material, eyes_share=eyes_share).draw(model, 600, generator())
        own = ~batch.is_exact
        found = batch.latents[own][:, :2, 0, 0].long() * PATCH_PX
        assert torch.equal(found, places(batch.images[own], code))
        return places(batch.images[:300], code), found

    eyes_px = torch.tensor([EYES_ROW, 0.5]) * 128
    nearest = (eyes_px - crop_px / 2).clamp(0, 128 - crop_px)
    for around, anywhere, half, step_px in zip(corners(1.0), corners(0.0), corners(0.5), (1, PATCH_PX), strict=True):
        assert (around - nearest).abs().max() <= EYES_REACH_PX + step_px / 2
        assert len(around.unique(dim=0)) > 1 or crop_px == 128
        assert anywhere.min() == 0 and anywhere.max() == 128 - crop_px
        first, rest = half.chunk(2)
        assert (first - nearest).abs().max() <= EYES_REACH_PX + step_px / 2
        assert rest.min() == 0 and rest.max() == 128 - crop_px


def test_renders_are_drawn_by_their_weights() -> None:
    bits = torch.arange(6)[:, None] >> torch.arange(3) & 1  # (6, 3): a picture's number in the signs of its channels
    images = signs(bits)[:, :, None, None].expand(6, 3, 16, 16)
    heavy = Material(
        images, pictures(1, 16), near=torch.zeros(2, CHANNELS, 2, 2).half(), crop_px=16,
        weights=torch.tensor([0.0, 3.0, 0.0, 1.0, 0.0, 0.0]),
    )  # fmt: skip
    batch = heavy.draw(autoencoder(), 8000, generator())
    numbers = ((batch.images[:, :, 0, 0] > 0) << torch.arange(3)).sum(1)
    counts = numbers[:4000].bincount(minlength=6)
    assert counts[[0, 2, 4, 5]].sum() == 0
    assert counts[1] / counts[3] == pytest.approx(3, rel=0.15)
    assert set(numbers[~batch.is_exact].tolist()) == {1}  # the first two have near latents


def training(model: AutoencoderTiny) -> Training:
    torch.manual_seed(0)
    return Training.start(model, FeatureLoss(AttributeNet()), feature_weight=1.0, adversarial_weight=0.5)


def test_first_the_decoder_then_the_discriminator_then_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_autoencoder, "ALONE_STEPS", 1)
    assert ALONE_STEPS == 100
    model = autoencoder()
    one, batch = training(model), material(model, is_near=True).draw(model, 4, generator())

    def changed(is_adversarial: bool) -> tuple[bool, bool, set[str]]:
        networks = (one.model.decoder, one.discriminator)
        before = [[p.clone() for p in net.parameters()] for net in networks]
        losses = one.update(batch, 1e-3, generator(), is_adversarial=is_adversarial)
        after = [
            any((p != old).any().item() for p, old in zip(net.parameters(), olds, strict=True))
            for net, olds in zip(networks, before, strict=True)
        ]
        return after[0], after[1], set(losses)

    assert changed(False) == (True, False, {"reconstruction", "features"})
    assert changed(True) == (False, True, {"hinge", "r1"})
    assert changed(True) == (True, True, {"reconstruction", "features", "deceiving", "hinge"})
    assert (one.step, one.discriminator_step) == (2, 2)
    assert all(p.grad is None for p in one.model.encoder.parameters())


def test_the_pixels_get_better_and_the_average_follows() -> None:
    model = autoencoder()
    one, batch = training(model), material(model, is_near=False).draw(model, 2, generator())
    losses = [one.update(batch, 2e-3, generator(), is_adversarial=False)["reconstruction"] for _ in range(6)]
    assert losses[-1] < 0.9 * losses[0]
    pairs = list(zip(one.average.decoder.parameters(), one.model.decoder.parameters(), strict=True))
    assert any((mean != now).any() for mean, now in pairs)
    start = autoencoder().decoder.parameters()
    moved = [(mean - first).norm() < (now - first).norm() for (mean, now), first in zip(pairs, start, strict=True)]
    assert sum(moved) > 0.9 * len(moved)


def test_a_resumed_training_is_the_one_that_was_saved(tmp_path: Path) -> None:
    model = autoencoder()
    first, batch = training(model), material(model, is_near=True).draw(model, 4, generator())
    for is_adversarial in (False, True):
        first.update(batch, 1e-3, generator(), is_adversarial=is_adversarial)
    first.elapsed_s = 12.5
    first.save(tmp_path)
    second = training(AutoencoderTiny.from_pretrained(tmp_path / "vae"))
    second.resume(tmp_path)
    assert (second.step, second.discriminator_step, second.elapsed_s) == (1, 1, 12.5)
    for one in (first, second):
        one.update(batch, 1e-3, generator(3), is_adversarial=True)
        one.update(batch, 1e-3, generator(3), is_adversarial=False)
    for name in ("model", "average", "discriminator"):
        pairs = zip(getattr(first, name).parameters(), getattr(second, name).parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_what_is_written_is_the_average(tmp_path: Path) -> None:
    model = autoencoder()
    one, batch = training(model), material(model, is_near=False).draw(model, 4, generator())
    for _ in range(2):
        one.update(batch, 1e-3, generator(), is_adversarial=False)
    one.save(tmp_path)
    written, x = AutoencoderTiny.from_pretrained(tmp_path / "vae"), noise(1, 3, 16, 16)
    assert torch.equal(reconstruct(written, x), reconstruct(one.average, x))
    assert not torch.equal(reconstruct(written, x), reconstruct(one.model, x))


def test_near_latents_are_those_of_little_noise(tmp_path: Path) -> None:
    base = load_base(str(build_tiny_folder(tmp_path / "base", "epsilon")), device=CPU, dtype=torch.float32)
    images = pictures(3)
    with torch.no_grad():
        base.parts["unet"].conv_out.weight.zero_()
        base.parts["unet"].conv_out.bias.zero_()  # so that an estimate is x_t / a_t
    near = near_latents(base, images, [TOLD] * 3, seed=0)
    exact = base.encode_photo(images.float() / 127.5 - 1) / base.parts["vae"].config["scaling_factor"]
    assert near.shape == exact.shape and near.dtype == torch.half
    error = ((near - exact) * base.parts["vae"].config["scaling_factor"]).flatten(1).std(1)
    assert (error > 0).all() and (error < (1 / 0.8 - 1) ** 0.5 * 1.1).all()
    assert torch.equal(near, near_latents(base, images, [TOLD] * 3, seed=0))


def test_near_latents_are_made_once_of_a_base_and_its_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def near(base: SimpleNamespace, images: Tensor, attributes: list[dict], *, seed: int) -> Tensor:
        made.append(len(images))
        return torch.full((len(images), 1), float(len(made)))

    monkeypatch.setattr(train_autoencoder, "near_latents", near)
    base, other, images = SimpleNamespace(sha256="a"), SimpleNamespace(sha256="b"), pictures(3, 8)
    orders: list[tuple[Any, Tensor]] = [
        (base, images),
        (base, images),
        (other, images),
        (base, images[:2]),
        (base, images),
    ]
    found = [train_autoencoder.kept_near_latents(one, rows, [TOLD] * 3, tmp_path) for one, rows in orders]
    assert made == [3, 3, 2] and [part[0].item() for part in found] == [1, 1, 2, 3, 1]


def test_a_base_of_other_latents_is_refused(tiny_base: BaseModel) -> None:
    base = tiny_base
    check_same_latents(base, base.parts["vae"], pictures(2))
    with pytest.raises(ValueError, match="expected a base with the autoencoder's own latents"):
        check_same_latents(base, autoencoder(), pictures(2))


def test_a_true_picture_has_all_bands_a_blurred_one_lacks_the_last_and_stitching_is_seen() -> None:
    true = pictures(4).float() / 127.5 - 1
    same = band_ratios(true, true)
    assert same == pytest.approx(dict.fromkeys(same, 1.0)) and period_two_ratio(true, true) == pytest.approx(1)
    soft = nn.functional.avg_pool2d(true, 3, stride=1, padding=1)
    bands = list(band_ratios(soft, true).values())
    assert bands == sorted(bands, reverse=True) and bands[0] > 0.7 and bands[-1] < 0.15
    signs = 1.0 - 2 * (torch.arange(128) % 2)
    for pattern in (signs, signs[:, None], signs * signs[:, None]):
        stitched = soft + 0.3 * pattern
        assert period_two_ratio(stitched, true) > 10
        lower = {name: ratio for name, ratio in band_ratios(stitched, true).items() if name != "24-33"}
        assert lower == pytest.approx({name: band_ratios(soft, true)[name] for name in lower}, rel=0.05)


def test_an_autoencoder_is_replaced_and_nothing_else(tiny_base_folder: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_base_folder, tmp_path / "base"))
    before = file_sums(base)
    autoencoder = AutoencoderTiny.from_pretrained(base / "vae")
    with torch.no_grad():
        for parameter in autoencoder.decoder.parameters():
            parameter.mul_(0.5)
    autoencoder.save_pretrained(tmp_path / "vae")
    export_autoencoder(tmp_path / "vae", base)
    after = file_sums(base)
    changed = {name for name in after if before.get(name) != after[name]}
    assert before.keys() == after.keys() and changed <= {name for name in before if name.startswith("vae/")}
    assert "vae/diffusion_pytorch_model.safetensors" in changed
    halved = load_base(str(base)).parts["vae"].decoder.state_dict()
    torch.testing.assert_close(halved, autoencoder.decoder.state_dict(), atol=1e-3, rtol=1e-3)  # half precision


def test_the_command_trains_writes_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_autoencoder, "HELD_IMAGES", 2)
    monkeypatch.setattr(classifier, "BATCH", 2)
    monkeypatch.setattr(train_autoencoder, "texture_images", lambda count, size_px, seed: pictures(count, size_px))
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    told = np.frombuffer(json.dumps([TOLD] * 5).encode(), np.uint8)
    with (data / "shard_00000.npz").open("wb") as file:
        np.savez(file, images=pictures(5).permute(0, 2, 3, 1).numpy(), attributes=told)
    older_autoencoder().save_pretrained(tmp_path / "old")
    usual = [
        "--data", str(data), "--out", str(out), "--batch", "2", "--min-shards", "1", "--textures", "2",
        "--judge-samples", "1", "--pixels-share", "0", "--device", "cpu",
    ]  # fmt: skip
    train_autoencoder.main([*usual, "--init", str(tmp_path / "old"), "--minutes", "0.004"])
    first = torch.load(out / "decoder.pt", weights_only=True)
    assert first["discriminator_step"] > 0 and (out / "judge.safetensors").exists()
    train_autoencoder.main([*usual, "--resume", "--minutes", "0.02"])
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert len(lines) == 2 and lines[1]["discriminator_step"] > lines[0]["discriminator_step"]
    assert set(lines[0]["held"]) == {"db", "band 4-8", "band 8-16", "band 16-24", "band 24-33", "period two"}
    written = AutoencoderTiny.from_pretrained(out / "vae")
    assert tuple(written.config["num_decoder_blocks"]) == DECODER_BLOCKS
    x = noise(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(written.encode(x).latents, older_autoencoder().encode(x).latents)
