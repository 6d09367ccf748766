"""The bank: many people's LoRA adapters stacked beside one frozen base, for serving and for training.

One row of `flat` (S, P) is one person's whole adapter. Each adapted layer uses its columns as
A (S, r, d_in) and B (S, d_out, r); a batch names a slot for each of its rows:

    y = W x + b + scale * (x A[slots]^T) B[slots]^T                (Hu et al. 2021, eq. 3, batched over rows)

A row can have several adapters, whose deltas are added, each with a scale of its own. Slot 0 is zeros: the base without
an adapter. Rows of different people share a forward pass, and, because a row's gradient reaches only its slot, a
backward pass. Loading an adapter copies one row. The base is never written to: forward hooks apply the adapters, and
the base's modules, names and weights are not replaced. A base can have any number of banks. A route belongs to the
thread that set it.

The bank does not know adapter files, nor how slots are assigned.
"""

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..errors import CorruptAdapter, UsageError
from ..types import LoraPair, Network
from .batch_invariance import paired
from .routing import Route, routes_of

BASE_SLOT = 0
_IMPORT = "import the adapter again from its file: the import compares every layer with the base"
HALF_LOSS_SCALE = 4096.0  # factor for a loss with a float16 backward pass, where small gradients would underflow


@dataclass(frozen=True)
class LayerSpan:
    """The columns of one adapted layer's factors in a row (P,)."""

    network: Network
    module: str
    a_shape: tuple[int, ...]  # (r, d_in) or (r, C_in, k, k)
    b_shape: tuple[int, int]  # (d_out, r)
    start: int  # first column; A first, then B

    @property
    def a_size(self) -> int:
        return torch.Size(self.a_shape).numel()

    @property
    def stop(self) -> int:
        return self.start + self.a_size + self.b_shape[0] * self.b_shape[1]

    def fresh(self, rank: int, generator: torch.Generator) -> LoraPair:
        """Factors before training: A uniform in +-1/sqrt(fan-in), B zero (Hu et al. 2021, section 4.1)."""
        shape = (rank, *self.a_shape[1:])
        A = (torch.rand(shape, generator=generator) * 2 - 1) * math.prod(shape[1:]) ** -0.5
        return LoraPair(A.numpy(), torch.zeros(self.b_shape[0], rank).numpy())


def target_modules(network: nn.Module, endings: Sequence[str]) -> dict[str, nn.Module]:
    """Linear and convolution layers of `network` whose names end in one of `endings`, in network order."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and any(f".{name}".endswith(f".{end}") for end in endings)
    }


def adapted_linear(output: Tensor, x: Tensor, A: Tensor, B: Tensor) -> Tensor:
    """output + (x A^T) B^T, the addition inside the product; each of the G factors applies to B / G consecutive rows.

    output: (B, ..., d_out); x: (B, ..., d_in); A: (G, r, d_in); B: (G, d_out, r)
    """
    if x.ndim == 2 and len(x) > len(A):  # one product per row: see `batch_invariance`
        A, B = (factor.repeat_interleave(len(x) // len(A), 0) for factor in (A, B))
    # Contiguous, because rounding depends on the memory layout.
    rows = x.contiguous().view(len(A), -1, x.shape[-1])  # (G, B / G * N, d_in)
    flat = output.reshape(len(A), -1, output.shape[-1])  # (G, B / G * N, d_out)
    if A.requires_grad:
        return cast(Tensor, _Products.apply(flat, rows, A, B)).view(output.shape)
    return torch.baddbmm(flat, torch.bmm(rows, A.mT), B.mT).view(output.shape)


class _Products(torch.autograd.Function):
    """y + (x A^T) B^T with the gradients of A and B as they are laid out; autograd would transpose and copy each."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, A: Tensor, B: Tensor) -> Tensor:
        h = torch.bmm(x, A.mT)  # (G, n, r)
        ctx.save_for_backward(x, A, B, h)
        return torch.baddbmm(y, h, B.mT)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        (g,) = gradients  # (G, n, d_out)
        x, A, B, h = ctx.saved_tensors
        gh = torch.bmm(g, B)  # (G, n, r)
        of_x = torch.bmm(gh, A) if ctx.needs_input_grad[1] else None
        return g, of_x, torch.bmm(gh.mT, x), torch.bmm(g.mT, h)


def adapted_conv(output: Tensor, x: Tensor, A: Tensor, B: Tensor, layer: nn.Conv2d) -> Tensor:
    """The same for a convolution: `layer`'s geometry with A (one group per row), then B at each position.

    output: (B, d_out, H', W'); x: (B, C_in, H, W); A: (G, r, C_in, k, k); B: (G, d_out, r)
    """
    b, r, length = len(x), A.shape[1], len(x) // len(A)
    if length > 1:
        A, B = A.repeat_interleave(length, 0), B.repeat_interleave(length, 0)  # (B, ...)
    inputs, weights = paired(x), paired(A)  # one group would run as an ordinary convolution, with other rounding
    h = F.conv2d(
        inputs.reshape(1, -1, *x.shape[2:]),
        weights.flatten(0, 1),
        None,
        layer.stride,
        layer.padding,
        layer.dilation,
        groups=len(inputs),
    )[:, : b * r]  # (1, B * r, H', W')
    return torch.baddbmm(output.flatten(2), B, h.view(b, r, -1)).view(output.shape)


_Trained = dict[Network, dict[int, tuple[Tensor, Tensor]]]
_State = tuple[int | None, tuple[Route, ...], tuple[int, ...], Sequence[bool], _Trained | None]


class _Here(threading.local):
    """The routes of one thread's forward passes."""

    rows: int | None = None  # of the batch; None: not routed
    routes: tuple[Route, ...] = ()
    ranks: tuple[int, ...] = ()  # largest rank in each route
    adapts: Sequence[bool] = ()  # per layer: whether any adapter of the routes has it; other layers are skipped
    # in training: per network, the factors of each layer for the one route's runs, as parts of one leaf tensor
    trained: _Trained | None = None

    @property
    def state(self) -> _State:
        return self.rows, self.routes, self.ranks, self.adapts, self.trained

    @state.setter
    def state(self, state: _State) -> None:
        self.rows, self.routes, self.ranks, self.adapts, self.trained = state


class LoraBank:
    """S slots over the targeted layers of a base's networks.

    Args:
        networks: the base's frozen networks.
        targets: endings of the module names to adapt, per network.
        slots: S, slot 0 included.
        rank: r of the bank; determines its memory. Adapters of a smaller rank are padded with zeros; a larger rank is
            refused.
        dtype: of the factors; None: the base's. Training needs float32: its steps are smaller than bf16's spacing.
    """

    def __init__(
        self,
        networks: Mapping[Network, nn.Module],
        targets: Mapping[Network, Sequence[str]],
        *,
        slots: int,
        rank: int,
        dtype: torch.dtype | None = None,
    ) -> None:
        if slots < 2 or rank < 1:
            raise UsageError(
                "expected at least 2 slots (slot 0 is the base without an adapter) and a rank of at least 1"
            )
        self.slots, self.rank = slots, rank
        found = {name: target_modules(network, targets.get(name, ())) for name, network in networks.items()}
        self.spans = _lay_out(found, rank)
        self._by_name = {(span.network, span.module): span for span in self.spans}
        weight = next(next(iter(networks.values())).parameters())
        self.flat = torch.zeros(slots, self.columns, device=weight.device, dtype=dtype or weight.dtype)  # (S, P)
        self._factors = [self._views(self.flat, span) for span in self.spans]
        self._used = [[False] * len(self.spans) for _ in range(slots)]  # per slot: the layers of its adapter
        self._ranks = [1] * slots  # per slot: the rank of its adapter
        self._here = _Here()
        self._loss_scale = HALF_LOSS_SCALE if weight.dtype == torch.float16 else 1.0
        self._is_training = False
        self._tape: list[tuple[slice, Route, Tensor]] = []  # columns, route, and their leaf tensor (runs, columns)
        self._hooks = [
            found[span.network][span.module].register_forward_hook(self._hook(i)) for i, span in enumerate(self.spans)
        ]

    @property
    def columns(self) -> int:
        """P: the number of parameters of an adapter with the bank's rank."""
        return self.spans[-1].stop if self.spans else 0

    def columns_of(self, network: Network) -> slice:
        """The columns of one network's layers; they are contiguous."""
        mine = [span for span in self.spans if span.network == network]
        return slice(mine[0].start, mine[-1].stop) if mine else slice(0, 0)

    @property
    def module_names(self) -> dict[Network, tuple[str, ...]]:
        names: dict[Network, tuple[str, ...]] = {}
        for span in self.spans:
            names[span.network] = (*names.get(span.network, ()), span.module)
        return names

    @contextmanager
    def route(self, slots: Tensor, scales: Tensor | None = None) -> Iterator[None]:
        """Within the block, row i of every forward of this thread uses slot `slots[i]`, its delta times `scales[i]`.

        Outside the block and in other threads the base runs without adapters, so an engine and a training can share a
        base.

        Args:
            slots: (B,) int64, or (B, K): several adapters a row, whose deltas are added; 0: none.
            scales: of the slots, in the same shape; None: 1.

        Raises:
            UsageError: several adapters a row while training.
        """
        here = self._here
        before = here.state
        mine = set(slots.flatten().tolist())
        routes = routes_of(slots, scales, self.flat)
        trained: _Trained | None = {} if self._is_training and torch.is_grad_enabled() else None
        if trained is not None and any(route.width > 1 for route in routes):
            raise UsageError("expected one adapter a row while training")
        adapts = [any(layer) for layer in zip(*[self._used[slot] for slot in mine], strict=True)]
        ranks = tuple(max(self._ranks[slot] for slot in route.used) for route in routes)
        here.state = len(slots), routes, ranks, adapts, trained
        try:
            yield
        finally:
            here.state = before

    def write(self, slot: int, row: Tensor, *, rank: int | None = None) -> None:
        """Put one adapter's row (P,) into a slot.

        Args:
            rank: of the adapter; the row is zero beyond it. None: the bank's. The cost of a forward pass depends on the
                largest rank among its rows, not on the bank's.
        """
        if slot == BASE_SLOT:
            raise UsageError("slot 0 is the base without an adapter and stays zeros")
        sizes = [span.stop - span.start for span in self.spans]
        with torch.no_grad():
            self.flat[slot].copy_(row)
            self._used[slot] = torch.stack([part.any() for part in row.split(sizes)]).tolist()
        self._ranks[slot] = self.rank if rank is None else rank

    def row_of(self, weights: Mapping[Network, Mapping[str, LoraPair]], *, scale: float = 1.0) -> Tensor:
        """One adapter as a row (P,) on the host, `scale` (alpha / r) folded into B, rank padded with zeros.

        Raises:
            CorruptAdapter: a module that the bank does not have, a wrong shape, or a rank above the bank's.
        """
        row = torch.zeros(self.columns)
        for network, pairs in weights.items():
            for module, pair in pairs.items():
                span = self.span_for(network, module, pair)
                A, B = torch.as_tensor(pair.A).float(), torch.as_tensor(pair.B).float().flatten(1)
                r = A.shape[0]
                if r > self.rank:
                    raise CorruptAdapter(f"expected layers of rank {self.rank} at most, got {r}", hint=_IMPORT)
                a_view, b_view = self._views(row[None], span)
                a_view[0, :r], b_view[0, :, :r] = A, B * scale
        return row

    def span_for(self, network: Network, module: str, pair: LoraPair) -> LayerSpan:
        """The columns of a layer's factors, which may be of any rank.

        Raises:
            CorruptAdapter: a module that the bank does not have, or a wrong shape.
        """
        span = self._by_name.get((network, module))
        if span is None:
            raise CorruptAdapter(f"expected only layers that the base's {network} has, got another", hint=_IMPORT)
        r, d_out = pair.A.shape[0], span.b_shape[0]
        fits = pair.A.shape[1:] == span.a_shape[1:] and pair.B.shape in ((d_out, r), (d_out, r, 1, 1))
        if not fits:
            raise CorruptAdapter(
                f"expected factors {span.a_shape} and {span.b_shape} or of another rank for {module}, "
                f"got {pair.A.shape} and {pair.B.shape}",
                hint=_IMPORT,
            )
        return span

    def pairs_of(self, row: Tensor, rank: int) -> dict[Network, dict[str, LoraPair]]:
        """The inverse of `row_of`: the first `rank` components of every layer, float32, without layers of zeros."""
        out: dict[Network, dict[str, LoraPair]] = {}
        host = row.detach().float().cpu()[None]
        for span in self.spans:
            a_view, b_view = self._views(host, span)
            A, B = a_view[0, :rank].clone(), b_view[0, :, :rank].clone()
            if not A.any():
                continue
            if len(span.a_shape) == 4:
                B = B[:, :, None, None]
            out.setdefault(span.network, {})[span.module] = LoraPair(A.numpy(), B.numpy())
        return out

    def factors(self, span: LayerSpan) -> tuple[Tensor, Tensor]:
        """The live (S, ...) factors of one layer."""
        return self._factors[self.spans.index(span)]

    def enable_training(self) -> None:
        """From now on every forward pass with gradients records the factors it used, for `gradient`."""
        self._is_training = True

    def recomputed(self, block: Callable[..., Any], *inputs: Any) -> Any:
        """Call a block whose activations are not kept: backward computes it again (Chen et al. 2016).

        The second computation has the route of this call, in any thread, and gives the same gradient to the last bit.
        """
        state = self._here.state

        def run(*given: Any) -> Any:
            there = self._here  # of the thread that runs backward
            before = there.state
            there.state = state
            try:
                return block(*given)
            finally:
                there.state = before

        return checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False)

    def gradient(self, loss: Tensor) -> Tensor:
        """d loss / d flat, (S, P): a person's gradient is one row, so an optimiser step is a few operations."""
        total = torch.zeros_like(self.flat)
        self.add_gradient(loss, total)
        return total

    def add_gradient(self, loss: Tensor, total: Tensor) -> None:
        """`gradient` added to `total` (S, P), in place. `loss` comes from the forward passes since the last call.

        If the base is float16, the loss is scaled (Micikevicius et al. 2018, 'Mixed Precision Training').
        """
        tape, self._tape = self._tape, []
        scale, leaves = self._loss_scale, [leaf for _, _, leaf in tape]
        found = torch.autograd.grad(loss if scale == 1 else loss * scale, leaves, materialize_grads=True)
        for (columns, route, _), part in zip(tape, found, strict=True):
            route.give(total[:, columns], part if scale == 1 else part / scale)

    def grow(self, slots: int) -> None:
        """Have at least so many slots; those that are there keep their adapters."""
        more = slots - self.slots
        if more > 0:
            self.flat = torch.cat([self.flat, self.flat.new_zeros(more, self.columns)])
            self._factors = [self._views(self.flat, span) for span in self.spans]
            self._used += [[False] * len(self.spans) for _ in range(more)]
            self._ranks += [1] * more
            self.slots = slots

    def forget_forwards(self) -> None:
        """Drop the records of forward passes whose gradient is not needed."""
        self._tape.clear()

    def close(self) -> None:
        """Remove the hooks; the base is as before."""
        for hook in self._hooks:
            hook.remove()

    def _views(self, flat: Tensor, span: LayerSpan) -> tuple[Tensor, Tensor]:
        middle = span.start + span.a_size
        A = flat[:, span.start : middle].view(-1, *span.a_shape)
        return A, flat[:, middle : span.stop].view(-1, *span.b_shape)

    def _hook(self, index: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def add_delta(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            here = self._here
            if here.rows is None:
                return output
            x = inputs[0]
            if x.shape[0] != here.rows:
                raise UsageError(f"expected a batch of {here.rows} rows, one per routed slot, got {x.shape[0]}")
            if not here.adapts[index]:
                return output
            for route, rank in zip(here.routes, here.ranks, strict=True):
                A, B = self._fetch(index, route, rank, x.dtype)
                if route.scales is not None:
                    B = B * route.scales.to(x.dtype)
                A, B = route.joined(A, B)
                mine = route.rows
                is_whole = mine == slice(0, here.rows)  # backward copies even a slice of all
                own = (output, x, A, B) if is_whole else (output[mine], x[mine], A, B)
                head = adapted_conv(*own, layer) if isinstance(layer, nn.Conv2d) else adapted_linear(*own)
                if is_whole:
                    return head
                output[mine] = head
            return output

        return add_delta

    def _fetch(self, index: int, route: Route, rank: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """One layer's factors for the route's runs, up to their rank; in training at full rank, with gradients."""
        here = self._here
        if here.trained is not None:
            network = self.spans[index].network
            if network not in here.trained:
                here.trained[network] = self._with_gradients(network, route, dtype)
            return here.trained[network][index]
        A, B = self._factors[index]
        if rank < self.rank and not self._is_training:
            A, B = A[:, :rank], B[:, :, :rank]
        return route.take(A).to(dtype), route.take(B).to(dtype)

    def _with_gradients(self, network: Network, route: Route, dtype: torch.dtype) -> dict[int, tuple[Tensor, Tensor]]:
        """The factors of all layers of a network: one leaf tensor, one cast and one split, so one gradient."""
        columns = self.columns_of(network)
        leaf = route.take(self.flat[:, columns]).detach().requires_grad_()
        self._tape.append((columns, route, leaf))
        mine = {index: span for index, span in enumerate(self.spans) if span.network == network}
        sizes = [size for span in mine.values() for size in (span.a_size, span.stop - span.start - span.a_size)]
        parts = leaf.to(dtype).split(sizes, dim=1)
        return {
            index: (A.view(-1, *span.a_shape), B.view(-1, *span.b_shape))
            for (index, span), A, B in zip(mine.items(), parts[::2], parts[1::2], strict=True)
        }


def _lay_out(found: Mapping[Network, Mapping[str, nn.Module]], rank: int) -> tuple[LayerSpan, ...]:
    spans: list[LayerSpan] = []
    start = 0
    for network, modules in found.items():
        for name, module in modules.items():
            weight = cast(Tensor, module.weight)  # (d_out, d_in) or (C_out, C_in, k, k)
            span = LayerSpan(network, name, (rank, *weight.shape[1:]), (weight.shape[0], rank), start)
            spans.append(span)
            start = span.stop
    return tuple(spans)
