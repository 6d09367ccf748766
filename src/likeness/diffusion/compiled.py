"""Transformer blocks of the denoising network, compiled one by one (`torch.compile`), for serving.

The blocks are those that diffusers names as worth compiling alone (`_repeated_blocks`). Rows, tokens and rank are
symbolic, so the blocks of one class and width share one compilation, whatever the batch, the size of the images and the
adapters. What lies between the blocks is computed as before.

The hooks of a bank read Python objects that differ between routes and layers, for each of which a block would be
compiled again, so they are left out of a compiled block. It takes one pair of tensors a layer instead: the adapters of
each row joined along the rank.
"""

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .lora import Joined
from .model import BaseModel

MOST_COMPILATIONS = 32  # of one class of blocks: its widths, and inputs that are there or not


class _Given:
    """The factors of the block that is being compiled, by the place of the layer in the block."""

    factors: Sequence[Joined | None] | None = None  # None: no block is being compiled


class CompiledBlocks:
    """The compiled blocks of a base. Forward passes within `routed` use them, all others run as before.

    One engine at a time may compile the blocks of a base, and one thread at a time may use them.

    Args:
        backend: of `torch.compile`: a name, or a function of a graph and its inputs.
    """

    def __init__(self, base: BaseModel, *, backend: str | Callable[..., Any] = "inductor") -> None:
        denoiser: Any = base.networks[base.adapted[0]]
        kinds = denoiser._repeated_blocks
        self._blocks = {name: part for name, part in denoiser.named_modules() if type(part).__name__ in kinds}
        self._here = threading.local()
        self._latest: tuple[Hashable, dict[str, list[Joined | None]]] | None = None
        given = _Given()
        self._hooks = []
        self._layers: dict[str, list[str]] = {}  # of each block: the names of its linear layers
        for name, block in self._blocks.items():
            layers = {inner: layer for inner, layer in block.named_modules() if isinstance(layer, nn.Linear)}
            self._layers[name] = [f"{name}.{inner}" for inner in layers]
            for place, layer in enumerate(layers.values()):
                # the form of `batch_invariance`, for inputs that are a matrix: in the bases that have it no block's are
                vars(layer).pop("forward", None)
                self._hooks.append(layer.register_forward_hook(_joined_hook(given, place)))
        code = {kind: _compiled(kind, given, backend) for kind in {type(block) for block in self._blocks.values()}}
        for name, block in self._blocks.items():
            block.forward = partial(self._forward, name, block, code[type(block)])

    @contextmanager
    def routed(self, key: Hashable, joined: Callable[[], dict[str, Joined]]) -> Iterator[None]:
        """Within the block, forward passes of this thread use the compiled blocks.

        Args:
            key: of the factors.
            joined: the factors by layer; called when a block is, unless those of the latest call have this key.
        """
        self._here.wanted = key, joined
        try:
            yield
        finally:
            del self._here.wanted

    def close(self) -> None:
        """The base is as before."""
        for hook in self._hooks:
            hook.remove()
        for block in self._blocks.values():
            vars(block).pop("forward", None)
        self._latest = None

    def _forward(self, name: str, block: nn.Module, code: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        wanted = getattr(self._here, "wanted", None)
        if wanted is None:
            return type(block).forward(block, *args, **kwargs)
        return code(self._factors(*wanted)[name], block, *args, **kwargs)

    def _factors(self, key: Hashable, joined: Callable[[], dict[str, Joined]]) -> dict[str, list[Joined | None]]:
        """The factors of each block's layers."""
        if self._latest is None or self._latest[0] != key:
            of_layer = joined()
            self._latest = key, {name: [of_layer.get(one) for one in layers] for name, layers in self._layers.items()}
        return self._latest[1]


def _compiled(kind: type[nn.Module], given: _Given, backend: str | Callable[..., Any]) -> Callable[..., Any]:
    call = kind.forward

    def forward(factors: Sequence[Joined | None], block: nn.Module, *args: Any, **kwargs: Any) -> Any:
        given.factors = factors
        output = call(block, *args, **kwargs)
        given.factors = None
        return output

    compile: Any = torch.compile  # whose types lack the limit
    code: Callable[..., Any] = compile(
        forward, fullgraph=True, dynamic=True, backend=backend, recompile_limit=MOST_COMPILATIONS,
        isolate_recompiles=True,
    )  # fmt: skip
    return code


def _joined_hook(given: _Given, place: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def add_joined(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if given.factors is None:
            return output
        joined = given.factors[place]
        if joined is None:
            return output
        A, B = joined
        rows, width = A.shape[0], B.shape[1]
        h = torch.bmm(inputs[0].reshape(rows, -1, A.shape[2]), A.mT)  # (R, N, k)
        return torch.baddbmm(output.reshape(rows, -1, width), h, B.mT).view(output.shape)

    return add_joined
