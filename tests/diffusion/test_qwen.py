"""A network that is kept in host memory: each layer is on the device while it computes."""

import torch
from torch import nn

from likeness.diffusion.qwen import stream

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
