"""A network that is kept in host memory: each layer is on the device while it computes."""

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2, AutoencoderTiny
from torch import nn

from likeness.diffusion.streaming import stream

META = torch.device("meta")  # stands in for a device: a layer whose weights are elsewhere cannot compute on it


def test_each_layer_is_on_the_device_only_while_it_computes() -> None:
    network = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 4), nn.LayerNorm(4)).requires_grad_(False)
    network[1].register_buffer("table", torch.ones(4))
    before = {name: weight.clone() for name, weight in network.named_parameters()}
    seen: list[list[str]] = []
    stream(network, META)
    for layer in network:
        layer.register_forward_pre_hook(
            lambda layer, _: seen.append([weight.device.type for weight in network.parameters()])
        )
    assert network(torch.zeros(2, 3, dtype=torch.int64, device=META)).device == META
    assert seen == [
        ["meta", "cpu", "cpu", "cpu", "cpu"],
        ["cpu", "meta", "meta", "cpu", "cpu"],
        ["cpu", "cpu", "cpu", "meta", "meta"],
    ]
    assert network[1].table.device == META
    for name, weight in network.named_parameters():
        assert torch.equal(weight, before[name])


SMALL: dict[str, Any] = {
    "block_out_channels": (8, 8), "down_block_types": ("DownEncoderBlock2D",) * 2, "layers_per_block": 1,
    "up_block_types": ("UpDecoderBlock2D",) * 2, "norm_num_groups": 4, "latent_channels": 4,
}  # fmt: skip
TINY: dict[str, Any] = {
    "encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8), "num_encoder_blocks": (1, 1),
    "num_decoder_blocks": (1, 1),
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "config"), [(AutoencoderKL, SMALL), (AutoencoderKLFlux2, SMALL), (AutoencoderTiny, TINY)]
)
def test_an_autoencoder_computes_on_the_device_and_stays_in_host_memory(kind: Any, config: dict[str, Any]) -> None:
    autoencoder = kind(**config).eval().requires_grad_(False)
    stream(autoencoder, META)
    assert autoencoder.decode(torch.zeros(1, 4, 8, 8, device=META)).sample.device == META
    autoencoder.encode(torch.zeros(1, 3, 16, 16, device=META))
    assert {weight.device.type for weight in autoencoder.parameters()} == {"cpu"}
