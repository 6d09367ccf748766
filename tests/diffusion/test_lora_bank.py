"""The bank's laws: slot 0 is the base, a row sees its own slot only, and every slot is that person's merged model."""

import copy
import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.utils.peft_utils import set_weights_and_activate_adapters
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor

from fixtures.tiny import random_row, relative
from likeness.diffusion.base import BaseModel
from likeness.diffusion.conditioning import Conditioning
from likeness.diffusion.counting import Counting
from likeness.diffusion.lora import LoraBank, down, up
from likeness.diffusion.routing import Route, routes_of
from likeness.errors import CorruptAdapter, UsageError
from likeness.types import LoraPair, Network

RANK = 4


@pytest.fixture
def bank(tiny_base: BaseModel) -> Iterator[LoraBank]:
    bank = LoraBank(tiny_base.networks, tiny_base.family.targets, slots=4, rank=RANK)
    for slot in (1, 2, 3):
        bank.write(slot, random_row(bank, slot))
    yield bank
    bank.close()


@pytest.fixture(scope="module")
def inputs(tiny_base: BaseModel) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    ids = tiny_base.tokenize(["a photo of <<TOK>> person", "portrait of a man", "", "a woman in the snow"])
    return torch.randn(4, *tiny_base.latent_shape, generator=g), torch.tensor([3, 999, 400, 400]), ids


@torch.no_grad()
def forward(base: BaseModel, inputs: tuple[Tensor, ...], rows: list[int] | None = None) -> Tensor:
    x, t, ids = (tensor if rows is None else tensor[rows] for tensor in inputs)
    return base.denoise(x, t, base.encode_prompt(ids))


def routed(
    base: BaseModel, bank: LoraBank, inputs: tuple[Tensor, ...], *, slots: list[int], scales: list[float] | None = None
) -> Tensor:
    with bank.route(torch.tensor(slots), None if scales is None else torch.tensor(scales)):
        return forward(base, inputs)


def digest(base: BaseModel) -> str:
    state = [t.numpy().tobytes() for n in base.networks.values() for t in n.state_dict().values()]
    return hashlib.sha256(b"".join(state)).hexdigest()


def unhooked(base: BaseModel) -> dict[Network, Any]:
    """Copies of the networks that no bank reaches."""
    twins: dict[Network, Any] = {name: copy.deepcopy(network) for name, network in base.networks.items()}
    for twin in twins.values():
        for module in twin.modules():
            module._forward_hooks.clear()
    return twins


def merged_copy(base: BaseModel, bank: LoraBank, slot: int) -> BaseModel:
    """The base with W + B A written into its weights, layer by layer."""
    networks = unhooked(base)
    for span in bank.spans:
        A, B = (factor[slot] for factor in bank.factors(span))
        weight = networks[span.network].get_submodule(span.module).weight
        weight.data += (B @ A.flatten(1)).view_as(weight)
    return replace(base, parts=dict(base.parts) | {str(name): one for name, one in networks.items()})


def test_linear_and_convolution_layers_of_both_networks_are_adapted(bank: LoraBank) -> None:
    assert {span.network for span in bank.spans} == {"unet", "text_encoder"}
    assert {len(span.a_shape) for span in bank.spans} == {2, 4}
    unet, text = bank.columns_of("unet"), bank.columns_of("text_encoder")
    assert (unet.start, unet.stop, text.stop) == (0, text.start, bank.columns)


def test_slot_0_is_exactly_the_base(tiny_base: BaseModel, bank: LoraBank, inputs: tuple[Tensor, ...]) -> None:
    bare = forward(tiny_base, inputs)
    assert torch.equal(routed(tiny_base, bank, inputs, slots=[0, 0, 0, 0]), bare)
    mixed = routed(tiny_base, bank, inputs, slots=[0, 1, 2, 0])
    assert torch.equal(mixed[[0, 3]], bare[[0, 3]])
    assert relative(mixed[1], bare[1]) > 0.01


def test_mixed_batch_equals_separate(tiny_base: BaseModel, bank: LoraBank, inputs: tuple[Tensor, ...]) -> None:
    slots = [1, 2, 3, 2]
    mixed = routed(tiny_base, bank, inputs, slots=slots)
    for row, slot in enumerate(slots):
        with bank.route(torch.tensor([slot])):
            alone = forward(tiny_base, inputs, [row])
        assert relative(mixed[row], alone[0]) <= 1e-5


def test_companions_never_change_a_row(tiny_base: BaseModel, bank: LoraBank, inputs: tuple[Tensor, ...]) -> None:
    first = routed(tiny_base, bank, inputs, slots=[1, 2, 3, 2])
    others = tuple(torch.cat([tensor[:1], tensor[1:].flip(0)]) for tensor in inputs)
    second = routed(tiny_base, bank, others, slots=[1, 3, 0, 2])
    assert torch.equal(first[0], second[0])
    bank.write(2, torch.full((bank.columns,), torch.nan))
    poisoned = routed(tiny_base, bank, inputs, slots=[1, 2, 3, 2])
    assert torch.equal(poisoned[[0, 2]], first[[0, 2]])
    assert poisoned[1].isnan().all()


def test_slotted_equals_merged(tiny_base: BaseModel, bank: LoraBank, inputs: tuple[Tensor, ...]) -> None:
    for slot in (1, 2):
        merged = forward(merged_copy(tiny_base, bank, slot), inputs)
        assert relative(routed(tiny_base, bank, inputs, slots=[slot] * 4), merged) <= 1e-5


def test_equals_peft(tiny_base: BaseModel, bank: LoraBank, inputs: tuple[Tensor, ...]) -> None:
    alpha = 6
    weights = bank.pairs_of(bank.flat[1], RANK)
    bank.write(2, bank.row_of(weights, scale=alpha / RANK))
    networks = unhooked(tiny_base)
    for name, network in networks.items():
        inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=alpha, target_modules=list(weights[name])), network)
        for module, pair in weights[name].items():
            layer = network.get_submodule(module)
            layer.lora_A["default"].weight.data.copy_(torch.from_numpy(pair.A))
            layer.lora_B["default"].weight.data.copy_(torch.from_numpy(pair.B))
    theirs = forward(
        replace(tiny_base, parts=dict(tiny_base.parts) | {str(name): one for name, one in networks.items()}), inputs
    )
    assert relative(routed(tiny_base, bank, inputs, slots=[2] * 4), theirs) <= 1e-5


@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning")  # what is wanted here
@torch.no_grad()
def test_several_adapters_equal_pefts_set_adapters_with_weights(
    tiny_base: BaseModel, bank: LoraBank, inputs: tuple[Tensor, ...]
) -> None:
    """Three adapters of different alphas with weights, as diffusers' `set_adapters` sets them."""
    alphas, weights = {"a": 4, "b": 6, "c": 2}, {"a": 1.0, "b": 0.6, "c": 1.5}
    networks = unhooked(tiny_base)
    for slot, (name, alpha) in enumerate(alphas.items(), 1):
        pairs = bank.pairs_of(bank.flat[slot], RANK)
        bank.write(slot, bank.row_of(pairs, scale=alpha / RANK))
        for kind, network in networks.items():
            config = LoraConfig(r=RANK, lora_alpha=alpha, target_modules=list(pairs[kind]))
            inject_adapter_in_model(config, network, adapter_name=name)
            for module, pair in pairs[kind].items():
                layer = network.get_submodule(module)
                layer.lora_A[name].weight.data.copy_(torch.from_numpy(pair.A))
                layer.lora_B[name].weight.data.copy_(torch.from_numpy(pair.B))
    for network in networks.values():
        set_weights_and_activate_adapters(network, list(weights), list(weights.values()))
    parts = dict(tiny_base.parts) | {str(name): one for name, one in networks.items()}
    theirs = forward(replace(tiny_base, parts=parts), inputs)
    slots, scales = torch.tensor([[1, 2, 3]] * 4), torch.tensor([list(weights.values())] * 4)
    with bank.route(slots, scales):
        ours = forward(tiny_base, inputs)
    assert relative(ours, theirs) <= 1e-5
    mixed = torch.tensor([[1, 2, 3], [1, 2, 3], [2, 0, 0], [0, 0, 0]])
    with bank.route(mixed, scales):
        assert relative(forward(tiny_base, inputs)[:2], theirs[:2]) <= 1e-5
    assert relative(routed(tiny_base, bank, inputs, slots=[1] * 4), theirs) > 1e-3


def test_a_smaller_rank_is_padded_with_zeros(tiny_base: BaseModel, bank: LoraBank, inputs: tuple[Tensor, ...]) -> None:
    small = LoraBank(tiny_base.networks, tiny_base.family.targets, slots=2, rank=2)
    weights = small.pairs_of(random_row(small, 9), 2)
    small.write(1, small.row_of(weights))
    expected = routed(tiny_base, small, inputs, slots=[1] * 4)
    small.close()
    bank.write(1, bank.row_of(weights))
    assert relative(routed(tiny_base, bank, inputs, slots=[1] * 4), expected) <= 1e-5


def test_scales_multiply_each_rows_delta(tiny_base: BaseModel, bank: LoraBank, inputs: tuple[Tensor, ...]) -> None:
    bank.write(2, bank.row_of(bank.pairs_of(bank.flat[1], RANK), scale=0.5))
    scaled = routed(tiny_base, bank, inputs, slots=[1, 1, 1, 1], scales=[0.0, 0.5, 1.0, 0.5])
    folded = routed(tiny_base, bank, inputs, slots=[0, 2, 1, 2])
    assert relative(scaled, folded) <= 1e-6


def test_row_and_pairs_are_inverse(bank: LoraBank) -> None:
    for rank in (RANK, 2):
        row = random_row(bank, 5, rank)
        weights = bank.pairs_of(row, rank)
        assert torch.equal(bank.row_of(weights), row)
        convolution = weights["unet"]["down_blocks.0.resnets.0.conv1"]
        assert convolution.A.shape == (rank, 16, 3, 3)
        assert convolution.B.shape == (16, rank, 1, 1)
    half = bank.pairs_of(random_row(bank, 5, RANK), 2)
    assert all(pair.A.shape[0] == 2 for pairs in half.values() for pair in pairs.values())
    assert bank.pairs_of(torch.zeros(bank.columns), RANK) == {}


def test_a_forward_computes_with_the_largest_rank_among_its_own_rows(
    tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much room the bank has: one large adapter does not slow down those who share no forward with it."""
    ids, ranks = tiny_base.tokenize(["photo of person"] * 2), set()

    def noted(output: Tensor, h: Tensor, B: Tensor) -> Tensor:
        ranks.add((h.shape[-1], B.shape[2]))
        return up(output, h, B)

    monkeypatch.setattr("likeness.diffusion.lora.up", noted)
    roomy, exact = (LoraBank(tiny_base.networks, tiny_base.family.targets, slots=3, rank=rank) for rank in (32, 8))
    try:
        small = exact.pairs_of(random_row(exact, 1, 2), 2)
        large = exact.pairs_of(random_row(exact, 2, 8), 8)
        for bank in (roomy, exact):
            bank.write(1, bank.row_of(small), rank=2)
            bank.write(2, bank.row_of(large), rank=8)

        def states(bank: LoraBank, *slots: int) -> Tensor:
            ranks.clear()
            with torch.no_grad(), bank.route(torch.tensor(slots)):
                return tiny_base.encode_prompt(ids).states

        for slots, rank in (((1, 1), 2), ((2, 1), 8), ((1, 0), 2), ((2, 2), 8)):
            found = states(roomy, *slots)
            assert ranks == {(rank, rank)}
            torch.testing.assert_close(found, states(exact, *slots))
    finally:
        roomy.close()
        exact.close()


def test_factors_are_gathered_once_until_a_slot_changes(
    tiny_base: BaseModel, bank: LoraBank, inputs: tuple[Tensor, ...]
) -> None:
    def kernels() -> int:
        with Counting() as counted:
            routed(tiny_base, bank, inputs, slots=[3, 1, 3, 1], scales=[0.5, 1.0, 0.5, 1.0])
        return counted.kernels

    first, second = kernels(), kernels()
    assert second < first < second + 20  # a few for all layers, not a few for each
    before = routed(tiny_base, bank, inputs, slots=[3, 1, 3, 1])
    bank.write(3, bank.flat[2].clone())
    expected = routed(tiny_base, bank, inputs, slots=[2, 1, 2, 1])
    assert torch.equal(routed(tiny_base, bank, inputs, slots=[3, 1, 3, 1]), expected)
    assert not torch.equal(expected, before)


def test_layers_that_read_the_same_tensor_share_a_product(
    tiny_base: BaseModel, bank: LoraBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    products: list[int] = []

    def noted(x: Tensor, A: Tensor) -> Tensor:
        products.append(A.shape[1] // RANK)
        return down(x, A)

    monkeypatch.setattr("likeness.diffusion.lora.down", noted)
    with torch.no_grad(), bank.route(torch.tensor([1, 2])):
        tiny_base.encode_prompt(tiny_base.tokenize(["photo of person"] * 2))
    assert products == [3, 1, 1, 1] * (len(bank.module_names["text_encoder"]) // 6)  # q, k, v; out; two feed-forward


def test_a_prepared_prompt_gives_the_same_prediction(
    tiny_base: BaseModel, bank: LoraBank, inputs: tuple[Tensor, ...]
) -> None:
    x, t, ids = inputs
    with torch.no_grad(), bank.route(torch.tensor([1, 2, 3, 0])):
        prompts = tiny_base.encode_prompt(ids)
        prepared = tiny_base.prepared(prompts)
        assert prepared.states.shape[-1] > prompts.states.shape[-1]
        assert relative(tiny_base.denoise(x, t, prepared), tiny_base.denoise(x, t, prompts)) <= 1e-6


def test_foreign_layers_wrong_shapes_and_large_ranks_are_refused(bank: LoraBank) -> None:
    name = bank.module_names["text_encoder"][0]
    width = 192

    def pair(rank: int, d_in: int = width, d_out: int = width) -> LoraPair:
        return LoraPair(np.zeros((rank, d_in), np.float32), np.zeros((d_out, rank), np.float32))

    bank.row_of({"text_encoder": {name: pair(RANK)}})
    for bad in (pair(RANK, d_in=7), pair(RANK, d_out=7)):
        with pytest.raises(CorruptAdapter, match=f"another rank for {re.escape(name)}, got"):
            bank.row_of({"text_encoder": {name: bad}})
    with pytest.raises(CorruptAdapter, match=f"rank {RANK} at most, got {RANK + 1}"):
        bank.row_of({"text_encoder": {name: pair(RANK + 1)}})
    with pytest.raises(CorruptAdapter, match="the base's text_encoder"):
        bank.row_of({"text_encoder": {"nowhere": pair(RANK)}})


def test_misuse_is_refused(tiny_base: BaseModel, bank: LoraBank, inputs: tuple[Tensor, ...]) -> None:
    with pytest.raises(UsageError, match="slot 0"):
        bank.write(0, torch.zeros(bank.columns))
    with pytest.raises(UsageError, match="at least 2 slots"):
        LoraBank(tiny_base.networks, tiny_base.family.targets, slots=1, rank=RANK)
    with pytest.raises(UsageError, match="one per routed slot"):
        routed(tiny_base, bank, inputs, slots=[1])
    torch.testing.assert_close(forward(tiny_base, inputs), routed(tiny_base, bank, inputs, slots=[0] * 4))


def test_the_base_is_bit_identical_and_free_of_hooks_afterwards(
    tiny_base: BaseModel, inputs: tuple[Tensor, ...]
) -> None:
    before, bare = digest(tiny_base), forward(tiny_base, inputs)
    keys = [list(network.state_dict()) for network in tiny_base.networks.values()]
    bank = LoraBank(tiny_base.networks, tiny_base.family.targets, slots=3, rank=RANK)
    for seed in range(3):
        bank.write(1 + seed % 2, random_row(bank, seed))
        routed(tiny_base, bank, inputs, slots=[1, 2, 1, 0])
    assert keys == [list(network.state_dict()) for network in tiny_base.networks.values()]
    bank.close()
    assert not any(m._forward_hooks for network in tiny_base.networks.values() for m in network.modules())
    assert digest(tiny_base) == before
    with bank.route(torch.tensor([1, 1, 1, 1])):
        assert torch.equal(forward(tiny_base, inputs), bare)


def test_gradients_touch_only_their_slot(tiny_base: BaseModel, inputs: tuple[Tensor, ...]) -> None:
    bank = LoraBank(tiny_base.networks, tiny_base.family.targets, slots=3, rank=RANK)
    bank.write(1, random_row(bank, 1))
    bank.write(2, random_row(bank, 2))
    bank.enable_training()
    x, t, ids = inputs
    with bank.route(torch.tensor([1, 1, 1, 1])):
        gradient = bank.gradient(tiny_base.denoise(x, t, tiny_base.encode_prompt(ids)).square().mean())
    bank.close()
    assert gradient.shape == bank.flat.shape
    assert gradient[1, bank.columns_of("unet")].norm() > 0
    assert gradient[1, bank.columns_of("text_encoder")].norm() > 0
    assert gradient[[0, 2]].norm() == 0
    assert all(p.grad is None for network in tiny_base.networks.values() for p in network.parameters())


@pytest.mark.parametrize("is_training", [False, True])
def test_layers_that_nobody_routed_has_are_left_alone(
    tiny_base: BaseModel, inputs: tuple[Tensor, ...], is_training: bool
) -> None:
    bank = LoraBank(tiny_base.networks, tiny_base.family.targets, slots=3, rank=RANK)
    if is_training:
        bank.enable_training()
    full = random_row(bank, 1)
    pairs = bank.pairs_of(full, RANK)
    attention = bank.row_of({"unet": {name: pair for name, pair in pairs["unet"].items() if name.endswith("to_q")}})
    calls: list[str] = []
    convolution = next(module for name, module in tiny_base.networks["unet"].named_modules() if name.endswith("conv1"))
    watch = convolution.register_forward_hook(
        lambda *seen: calls.append("changed" if seen[2].requires_grad else "bare")
    )
    try:
        bank.write(1, attention)
        x, t, ids = inputs
        with bank.route(torch.tensor([1, 1, 0, 0])):
            tiny_base.denoise(x, t, Conditioning(tiny_base.encode_prompt(ids).states.detach()))
        assert calls == ["bare"]  # the first convolution lies before all attention
        bank.write(2, full)
        mixed = routed(tiny_base, bank, inputs, slots=[1, 2, 0, 1])
        alone = routed(tiny_base, bank, inputs, slots=[1, 1, 0, 1])
        assert torch.equal(mixed[[0, 2, 3]], alone[[0, 2, 3]])
        assert relative(mixed[1], alone[1]) > 1e-2
        bank.write(2, torch.zeros(bank.columns))
        assert torch.equal(routed(tiny_base, bank, inputs, slots=[2] * 4), forward(tiny_base, inputs))
    finally:
        watch.remove()
        bank.close()


def test_runs_of_one_person_are_fetched_once() -> None:
    like = torch.zeros(9, 2)

    def route_of(slots: list[int], scales: list[float] | None = None) -> Route:
        (route,) = routes_of(torch.tensor(slots), None if scales is None else torch.tensor(scales), like)
        return route

    even = route_of([2, 2, 3, 3, 4, 4])
    assert (even.runs, even.length, even.slots, even.scales) == (3, 2, slice(2, 5), None)
    mixed = route_of([5, 5, 1, 1, 1, 1], [1.0, 1.0, 0.5, 0.5, 0.5, 0.5])
    assert (mixed.runs, mixed.length, mixed.rows) == (3, 2, slice(0, 6))
    assert mixed.slots.tolist() == [5, 1, 1] and mixed.scales.flatten().tolist() == [1, 0.5, 0.5]  # type: ignore[union-attr]
    uneven = route_of([1, 1, 2])
    assert (uneven.runs, uneven.length) == (3, 1)
    last = route_of([1, 1, 0, 3, 0, 0])
    assert (last.runs, last.length, last.rows) == (4, 1, slice(0, 4))
    assert routes_of(torch.tensor([0, 0]), torch.tensor([1.0, 0.5]), like) == ()
    pairs = torch.tensor([[3, 1], [3, 1], [0, 2], [2, 0], [0, 0]])
    two, one = routes_of(pairs, torch.tensor([[1.0, 0.5]] * 5), like)
    assert (two.rows, two.width, two.runs, two.used) == (slice(0, 2), 2, 1, (3, 1))
    assert (one.rows, one.width, one.runs, one.used) == (slice(2, 4), 1, 2, (2, 2))
    assert two.scales.flatten().tolist() == [1.0, 0.5] and one.scales.flatten().tolist() == [0.5, 1.0]  # type: ignore[union-attr]
    A, B = torch.randn(1, 2, 2, 5), torch.randn(1, 2, 3, 2)
    assert one.joined(A[0], B[0])[0].data_ptr() == A.data_ptr()  # one adapter a row: nothing is copied
    joined_A, joined_B = two.joined(A[0], B[0])
    assert torch.allclose(joined_B[0] @ joined_A[0], B[0, 0] @ A[0, 0] + B[0, 1] @ A[0, 1], atol=1e-6)
    stacked = torch.arange(18.0).view(9, 2)
    assert torch.equal(mixed.take(stacked), stacked[[5, 1, 1]]) and torch.equal(even.take(stacked), stacked[2:5])
    for route, expected in ((mixed, [0, 2, 0, 0, 0, 1, 0, 0, 0]), (even, [0, 0, 1, 1, 1, 0, 0, 0, 0])):
        total = torch.zeros(9, 1)
        route.give(total, torch.ones(3, 1))
        assert total.flatten().tolist() == expected
