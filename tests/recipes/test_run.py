"""A whole small training of the base: shards to feed, feed to weights and log; and what its captions say of glasses."""

import argparse
import itertools
import json
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

pytest.importorskip("numba", reason="the captions' tables lie beside kernels that numba compiles")

from fixtures.tiny import tiny_unet
from fixtures.waiting import until
from recipes.base_model import model_card, parallel, train_autoencoder, train_unet
from recipes.base_model.autoencoder import build_autoencoder, reconstruct
from recipes.base_model.classifier import HEADS
from recipes.base_model.data import to_float
from recipes.base_model.feed import CAPTIONS_PER_IMAGE, Feed
from recipes.base_model.latents import fit_patch_basis
from recipes.base_model.networks import MAX_TOKENS, TEXT_WIDTH, load_tokenizer
from recipes.base_model.render import captions
from recipes.base_model.said import UNSAID, SaidHeads, said_loss
from recipes.base_model.tokenizer import write_tokenizer

TOLD: dict[str, Any] = {
    "style": "photo", "place": "city", "gender": "woman", "age": "young", "ethnicity": "asian", "hair": "bob",
    "hair_color": "dark brown", "beard": "none", "glasses": "round glasses", "clothes": "sweater",
    "clothes_color": "brown", "expression": "neutral", "view": "front", "eye_color": "brown",
    "lipstick": False, "name": "abc",
}  # fmt: skip
IMAGES, CAPACITY = 6, 15
CPU = torch.device("cpu")


def write_shard(folder: Path, number: int) -> None:
    rng = np.random.default_rng(number)
    told = json.dumps([TOLD | {"hair_color": ("black", "red")[k % 2]} for k in range(IMAGES)]).encode()
    with (folder / f"shard_{number:05d}.npz").open("wb") as file:
        np.savez(
            file, images=rng.integers(0, 255, (IMAGES, 128, 128, 3), np.uint8),
            person=np.arange(IMAGES, dtype=np.int32) // 2 + 3 * number, attributes=np.frombuffer(told, np.uint8),
        )  # fmt: skip


def take(feed: Feed, shards: int) -> None:
    def taken() -> bool:
        if feed.shards < shards:
            feed.poll(most=8)
        return feed.shards >= shards

    until(taken)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Feed, AutoencoderTiny]]:
    """Folder with two shards and words, a feed that has taken both in, and the autoencoder of its latents."""
    folder = tmp_path_factory.mktemp("run")
    for number in range(2):
        write_shard(folder, number)
    write_tokenizer([*captions.vocabulary(), "<<", ">>"], folder / "tokenizer")
    noise = torch.randint(255, (40, 3, 128, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    vae = build_autoencoder(fit_patch_basis(to_float(noise))).eval()
    feed = Feed(folder, folder / "tokenizer", vae, device=CPU, capacity=CAPACITY, workers=1)
    take(feed, 2)
    yield folder, feed, vae
    feed.close()


def test_a_feed_holds_latents_of_both_ways_round_and_captions_of_the_picture(
    run: tuple[Path, Feed, AutoencoderTiny],
) -> None:
    folder, feed, vae = run
    assert feed.size == 2 * IMAGES and feed.people == set(range(6))
    with np.load(folder / "shard_00000.npz") as shard:
        images = to_float(torch.from_numpy(shard["images"]).permute(0, 3, 1, 2))
    with torch.no_grad():
        for way, view in enumerate((images, images.flip(3))):
            expected = vae.encode(view).latents * vae.config["scaling_factor"]
            errors = [(feed.latents[way, start : start + IMAGES] - expected).abs().max() for start in (0, IMAGES)]
            assert min(errors) < 0.02 < max(errors)  # half precision; whichever shard came first
    tokenizer = load_tokenizer(folder / "tokenizer")
    texts = tokenizer.batch_decode(feed.ids[: feed.size].flatten(0, 1).tolist(), skip_special_tokens=True)
    assert len(texts) == CAPTIONS_PER_IMAGE * feed.size and all("woman" in text or "person" in text for text in texts)
    classes = feed.said[: feed.size].flatten(0, 1)[:, list(HEADS).index("clothes colour")].tolist()
    brown = 1 + HEADS["clothes colour"].index("brown")
    assert classes == [brown if "brown sweater" in text else UNSAID for text in texts]
    assert set(classes) == {brown, UNSAID}
    rows = feed.draw(500, torch.Generator().manual_seed(0))
    assert set(rows.tolist()) == set(range(feed.size))


def test_a_feed_takes_what_appears_later_and_no_more_than_it_can_hold(
    run: tuple[Path, Feed, AutoencoderTiny], tmp_path: Path
) -> None:
    folder, _, vae = run
    with closing(Feed(tmp_path, folder / "tokenizer", vae, device=CPU, capacity=IMAGES + 2, workers=1)) as feed:
        assert feed.poll() == 0
        write_shard(tmp_path, 0)
        take(feed, 1)
        assert feed.size == IMAGES and feed.people == {0, 1, 2}
        write_shard(tmp_path, 1)
        take(feed, 2)
        assert feed.size == IMAGES + 2 and feed.people == {0, 1, 2, 3}
        assert feed.draw(200, torch.Generator().manual_seed(0)).max() == IMAGES + 1


def test_states_that_tell_what_the_captions_say_have_the_smaller_loss(
    run: tuple[Path, Feed, AutoencoderTiny],
) -> None:
    _, feed, _ = run
    torch.manual_seed(0)
    heads, said = SaidHeads(width=8), feed.said[: feed.size, 0].long()
    states = torch.randn(feed.size, 4, 8, requires_grad=True)
    before = said_loss(heads(states), said)
    (uphill,) = torch.autograd.grad(before, states)
    assert said_loss(heads(states - 10 * uphill), said) < before


def small_networks(tokenizer_folder: Path) -> nn.ModuleDict:
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(load_tokenizer(tokenizer_folder)), hidden_size=TEXT_WIDTH, intermediate_size=64,
        num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=MAX_TOKENS,
    )  # fmt: skip
    return train_unet.trained_together(tiny_unet(), CLIPTextModel(config)).train()


def test_a_training_runs_to_its_end_keeps_a_log_and_leaves_weights(
    run: tuple[Path, Feed, AutoencoderTiny], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, feed, _ = run
    monkeypatch.setattr(train_unet, "LOG_S", 2)
    args = argparse.Namespace(minutes=8 / 60, batch=3, learning_rate=1e-3, save_s=5, out=tmp_path)
    clock = map(float, itertools.count()).__next__  # a second between two looks
    training = train_unet.Training.start(small_networks(folder / "tokenizer"), args.learning_rate)
    empty = torch.zeros(MAX_TOKENS, dtype=torch.long)
    train_unet.write_line(
        tmp_path, {"run": {"machine": "an abacus", "processes": 1, "batch": 3, "learning_rate": 1e-3}}
    )
    train_unet.train(training, feed, empty, args, clock=clock)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [line for line in lines if "loss" in line]
    assert losses and losses[-1]["step"] == training.step and losses[-1]["samples"] == 3 * training.step
    assert all((line["images"], line["people"]) == (2 * IMAGES, 6) for line in losses)
    assert "| 12 of 6 people |" in model_card.training_table((tmp_path / "log.jsonl").read_text().splitlines())
    weights = load_file(tmp_path / "unet.safetensors")
    average = dict(zip((name for name, _ in training.networks.named_parameters()), training.average, strict=True))
    assert all(torch.equal(weights[name], average[f"unet.{name}"].half()) for name in weights)
    again = train_unet.Training.start(small_networks(folder / "tokenizer"), args.learning_rate)
    again.resume(tmp_path, CPU)
    assert again.step == training.step == 7 and again.elapsed_s == pytest.approx(7)
    train_unet.train(again, feed, empty, args, clock=clock)  # one second is left of its minutes
    assert again.step == training.step


def test_of_several_processes_only_the_first_writes_and_the_others_keep_nothing(
    run: tuple[Path, Feed, AutoencoderTiny], tmp_path: Path
) -> None:
    folder, feed, _ = run
    args = argparse.Namespace(minutes=3 / 60, batch=2, learning_rate=1e-3, save_s=1, out=tmp_path)
    training = train_unet.Training.start(small_networks(folder / "tokenizer"), args.learning_rate)
    empty, clock = torch.zeros(MAX_TOKENS, dtype=torch.long), map(float, itertools.count()).__next__
    train_unet.train(training, feed, empty, args, rank=1, count=2, clock=clock)
    assert training.samples == 4 * training.step > 0
    assert not training.losses and not list(tmp_path.iterdir())


def test_a_new_text_encoder_needs_a_base_to_start_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ["train_unet", "--data", "a", "--vae", "b", "--out", "c", "--new-text-encoder"]
    monkeypatch.setattr(sys, "argv", told)
    with pytest.raises(SystemExit):
        train_unet.parsed()
    assert "expected --init" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [*told, "--init", "d"])
    assert train_unet.parsed().init == Path("d")


def test_processes_part_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}.items():
        monkeypatch.setenv(name, value)
    torch.distributed.init_process_group("gloo")
    parallel.leave()
    assert not torch.distributed.is_initialized()
    parallel.leave()  # one process has nothing to leave


def test_an_autoencoder_is_replaced_file_by_file(tmp_path: Path, run: tuple[Path, Feed, AutoencoderTiny]) -> None:
    vae = run[2]
    train_autoencoder.write_autoencoder(vae, tmp_path)
    with torch.no_grad():
        changed = AutoencoderTiny.from_pretrained(tmp_path / "vae").eval()
        changed.decoder.layers[-1].bias += 0.5
    train_autoencoder.write_autoencoder(changed, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["vae"]
    x = torch.zeros(1, 3, 16, 16)
    kept = AutoencoderTiny.from_pretrained(tmp_path / "vae").eval()
    assert torch.equal(reconstruct(kept, x), reconstruct(changed, x))
    assert not torch.equal(reconstruct(kept, x), reconstruct(vae, x))


@pytest.mark.parametrize("name", [None, "abc"])
@pytest.mark.parametrize("glasses", ["none", "round glasses", "sunglasses"])
def test_captions_nearly_always_say_glasses_and_only_of_who_wears_them(glasses: str, name: str | None) -> None:
    rng = np.random.default_rng(0)
    texts = [captions.compose(TOLD | {"glasses": glasses, "name": name}, rng) for _ in range(1500)]
    for kind in ([text for text in texts if "<<" in text], [text for text in texts if "<<" not in text]):
        if not kind:
            continue  # who has no name is never called by one
        said = sum("glasses" in text for text in kind) / len(kind)
        assert said == 0 if glasses == "none" else 0.92 < said < 0.98
    exact = sum(glasses in text for text in texts) / len(texts)
    assert glasses == "none" or (exact > 0.92 if glasses == "sunglasses" else 0.75 < exact < 0.87)
