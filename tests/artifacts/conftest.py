"""A random adapter and two tiny random networks that it fits: one transformer block, Linear and Conv2d layers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from likeness.diffusion.family import SD_21_BASE, BaseOutline
from likeness.types import Adapter, AdapterCard, LoraPair, Network

BASE_SHA256 = "ab" * 32
ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0"
UNET_SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {  # module: (A without r, B without r)
    f"{ATTENTION}.attn1.to_q": ((8,), (8,)),
    f"{ATTENTION}.attn2.to_k": ((16,), (8,)),
    f"{ATTENTION}.attn1.to_out.0": ((8,), (8,)),
    f"{ATTENTION}.ff.net.0.proj": ((8,), (64,)),
    "down_blocks.0.resnets.0.conv1": ((8, 3, 3), (8,)),
}
TEXT_SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "encoder.layers.0.self_attn.q_proj": ((16,), (16,)),
    "encoder.layers.0.self_attn.out_proj": ((16,), (16,)),
    "encoder.layers.0.mlp.fc1": ((16,), (32,)),
}


def a_card(**changes: Any) -> AdapterCard:
    values: dict[str, Any] = {
        "name": "anna-2",
        "class_noun": "woman",
        "identifier": "<<TOK>>",
        "base_id": "tiny",
        "base_sha256": BASE_SHA256,
        "family": "sd-2.1-base",
        "recipe": {"rank": 4, "learning_rate": 1e-4, "targets": ["to_q"]},
        "seed": 7,
        "photos": 10,
        "steps": 300,
        "seconds": 12.5,
        "created": "2026-01-02T03:04:05+00:00",
        "versions": {"likeness": "0.1.0", "torch": "2.13.0"},
        "rank": 4,
        "alpha": 6.0,
    }
    return AdapterCard(**(values | changes))


def an_adapter(rank: int = 4, alpha: float = 6.0, seed: int = 0) -> Adapter:
    rng = np.random.default_rng(seed)

    def pair(ins: tuple[int, ...], outs: tuple[int, ...]) -> LoraPair:
        ones = (1, 1) if len(ins) == 3 else ()
        A, B = rng.normal(size=(rank, *ins)), rng.normal(size=(*outs, rank, *ones))
        return LoraPair(A.astype(np.float16) / 4, B.astype(np.float16) / 4)

    weights: dict[Network, dict[str, LoraPair]] = {
        "unet": {name: pair(*shapes) for name, shapes in UNET_SHAPES.items()},
        "text_encoder": {name: pair(*shapes) for name, shapes in TEXT_SHAPES.items()},
    }
    return Adapter(a_card(rank=rank, alpha=alpha), weights)


def assert_same(one: Adapter, other: Adapter) -> None:
    """Bit-equal weights and equal cards."""
    assert one.card == other.card
    assert {n: set(w) for n, w in one.weights.items()} == {n: set(w) for n, w in other.weights.items()}
    for network, found in one.weights.items():
        for module, pair in found.items():
            twin = other.weights[network][module]
            for mine, its in ((pair.A, twin.A), (pair.B, twin.B)):
                assert mine.dtype == its.dtype
                np.testing.assert_array_equal(mine, its)


def delta(adapter: Adapter, network: Network, module: str) -> np.ndarray:
    """alpha / r * B A in float64, shaped as the layer's weight: (d_out, d_in) or (C_out, C_in, k, k)."""
    pair = adapter.weights[network][module]
    rank = pair.A.shape[0]
    product = pair.B.astype(np.float64).reshape(-1, rank) @ pair.A.astype(np.float64).reshape(rank, -1)
    return adapter.card.alpha / rank * product.reshape(pair.B.shape[0], *pair.A.shape[1:])


@dataclass(frozen=True)
class Toolbox:
    card: Callable[..., AdapterCard]
    adapter: Callable[..., Adapter]
    assert_same: Callable[[Adapter, Adapter], None]
    delta: Callable[[Adapter, Network, str], np.ndarray]
    base_sha256: str


@pytest.fixture(scope="session")
def tools() -> Toolbox:
    return Toolbox(a_card, an_adapter, assert_same, delta, BASE_SHA256)


@pytest.fixture(scope="session")
def base() -> BaseOutline:
    """The tiny networks, with some layers that the adapter does not touch."""

    def weights(shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]) -> dict[str, tuple[int, ...]]:
        return {name: (*outs, *ins) for name, (ins, outs) in shapes.items()}

    unet = {"conv_in": (8, 4, 3, 3), "down_blocks.0.resnets.0.conv2": (8, 8, 3, 3), f"{ATTENTION}.attn1.to_v": (8, 8)}
    return BaseOutline(
        "tiny", BASE_SHA256, SD_21_BASE,
        {"unet": weights(UNET_SHAPES) | unet,
         "text_encoder": weights(TEXT_SHAPES) | {"encoder.layers.0.mlp.fc2": (16, 32)}},
    )  # fmt: skip
