"""The bank: many people's LoRA adapters stacked beside one frozen base, for serving and for training.

One row of `flat` (S, P) is one person's whole adapter. Each adapted layer uses its columns as
A (S, r, d_in) and B (S, d_out, r); a batch names a slot for each of its rows:

    y = W x + b + scale * (x A[slots]^T) B[slots]^T                (Hu et al. 2021, eq. 3, batched over rows)

Layers that read the same tensor, such as those of queries, keys and values, are a group: their A lie side by side, and
x A^T is one product for all of them. The factors of a batch are gathered from the slots once, for all layers.

A row can have several adapters, whose deltas are added, each with a scale of its own. Slot 0 is zeros: the base without
an adapter. Rows of different people share a forward pass, and, because a row's gradient reaches only its slot, a
backward pass. Loading an adapter copies one row. The base is never written to: forward hooks apply the adapters, and
the base's modules, names and weights are not replaced. A base can have any number of banks. A route belongs to the
thread that set it.

The bank is independent of adapter files and of how slots are assigned.
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
from .family import input_of, is_target
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
    a_start: int  # first column of A
    b_start: int  # first column of B

    @property
    def a_size(self) -> int:
        return math.prod(self.a_shape)

    @property
    def b_size(self) -> int:
        return math.prod(self.b_shape)

    @property
    def a(self) -> slice:
        """The columns of A."""
        return slice(self.a_start, self.a_start + self.a_size)

    @property
    def b(self) -> slice:
        """The columns of B."""
        return slice(self.b_start, self.b_start + self.b_size)

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
        if isinstance(module, nn.Linear | nn.Conv2d) and is_target(name, endings)
    }


def down(x: Tensor, A: Tensor) -> Tensor:
    """x A^T, (G, B / G * N, r): each of the G factors applies to B / G consecutive rows.

    x: (B, ..., d_in); A: (G, r, d_in)
    """
    # Contiguous, because rounding depends on the memory layout.
    rows = x.contiguous().view(len(A), -1, x.shape[-1])
    return cast(Tensor, _Down.apply(rows, A)) if A.requires_grad else torch.bmm(rows, A.mT)


def up(output: Tensor, h: Tensor, B: Tensor) -> Tensor:
    """output + h B^T, the addition inside the product.

    output: (B, ..., d_out); h: (G, B / G * N, r); B: (G, d_out, r)
    """
    flat = output.reshape(len(B), -1, output.shape[-1])
    added = cast(Tensor, _Up.apply(flat, h, B)) if B.requires_grad else torch.baddbmm(flat, h, B.mT)
    return added.view(output.shape)


class _Down(torch.autograd.Function):
    """x A^T with the gradient of A as it is laid out; autograd would transpose and copy it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, A: Tensor) -> Tensor:
        ctx.save_for_backward(x, A)
        return torch.bmm(x, A.mT)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor]:
        (g,) = gradients  # (G, n, r)
        x, A = ctx.saved_tensors
        return torch.bmm(g, A) if ctx.needs_input_grad[0] else None, torch.bmm(g.mT, x)


class _Up(torch.autograd.Function):
    """y + h B^T with the gradient of B as it is laid out."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, h: Tensor, B: Tensor) -> Tensor:
        ctx.save_for_backward(h, B)
        return torch.baddbmm(y, h, B.mT)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (g,) = gradients  # (G, n, d_out)
        h, B = ctx.saved_tensors
        return g, torch.bmm(g, B), torch.bmm(g.mT, h)


def adapted_conv(output: Tensor, x: Tensor, A: Tensor, B: Tensor, layer: nn.Conv2d) -> Tensor:
    """`down` and `up` for a convolution: `layer`'s geometry with A (one group per row), then B at each position.

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


Joined = tuple[Tensor, Tensor]  # A (R, k, d_in) and B (R, d_out, k) of a layer: all adapters of each row
LEAST_JOINED_RANK = 4  # k; compiled code may treat 1, and a k equal to another size, as special
_Group = tuple[int, ...]  # numbers of the layers that read the same tensor


@dataclass(frozen=True, eq=False)
class _Factors:
    """The factors of one network's layers for the runs of a route, by the number of the layer."""

    A: dict[int, Tensor]  # (runs, r, ...)
    B: dict[int, Tensor]  # (runs, d_out, r)
    joint: dict[_Group, Tensor]  # all A of a group, (runs, layers * r, d_in)


class _Routed:
    """A route with its factors, which are gathered when a network is first called, for all its layers."""

    def __init__(self, route: Route, gather: Callable[[Route, Network], _Factors]) -> None:
        self.route, self._gather = route, gather
        self._factors: dict[Network, _Factors] = {}

    def factors(self, network: Network) -> _Factors:
        if network not in self._factors:
            self._factors[network] = self._gather(self.route, network)
        return self._factors[network]


_State = tuple[int | None, tuple[_Routed, ...], Sequence[bool]]


class _Here(threading.local):
    """The routes of one thread's forward passes."""

    rows: int | None = None  # of the batch; None: not routed
    routed: tuple[_Routed, ...] = ()
    adapts: Sequence[bool] = ()  # per layer: whether any adapter of the routes has it; other layers are skipped

    def __init__(self) -> None:
        # of the group whose layers are being called: the group, the tensor that they read, and x A^T of each
        self.shared: dict[_Routed, tuple[_Group, Tensor, tuple[Tensor, ...]]] = {}

    @property
    def state(self) -> _State:
        return self.rows, self.routed, self.adapts

    @state.setter
    def state(self, state: _State) -> None:
        self.rows, self.routed, self.adapts = state
        self.shared.clear()


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
        self._groups = _groups(found)
        self.spans = _lay_out(found, self._groups, rank)
        self._by_name = {(span.network, span.module): span for span in self.spans}
        weight = next(next(iter(networks.values())).parameters())
        self.flat = torch.zeros(slots, self.columns, device=weight.device, dtype=dtype or weight.dtype)  # (S, P)
        self._factors = [self._views(self.flat, span) for span in self.spans]
        self._used = [[False] * len(self.spans) for _ in range(slots)]  # per slot: the layers of its adapter
        self._ranks = [1] * slots  # per slot: the rank of its adapter
        self._here = _Here()
        self._latest: tuple[object, tuple[_Routed, ...], Sequence[bool]] | None = None  # of `route`, without gradients
        self._dtype = weight.dtype  # of the layers
        self._loss_scale = HALF_LOSS_SCALE if weight.dtype == torch.float16 else 1.0
        self._is_training = False
        self._tape: list[tuple[slice, Route, Tensor]] = []  # columns, route, and their leaf tensor (runs, columns)
        self._hooks = [
            found[span.network][span.module].register_forward_hook(self._hook(i)) for i, span in enumerate(self.spans)
        ]

    @property
    def columns(self) -> int:
        """P: the number of parameters of an adapter with the bank's rank."""
        return max((span.b.stop for span in self.spans), default=0)

    def columns_of(self, network: Network) -> slice:
        """The columns of one network's layers; they are contiguous."""
        mine = [span for span in self.spans if span.network == network]
        return slice(min(span.a.start for span in mine), max(span.b.stop for span in mine)) if mine else slice(0, 0)

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
        here.state = len(slots), *self._routed(slots, scales)
        try:
            yield
        finally:
            here.state = before

    def _routed(self, slots: Tensor, scales: Tensor | None) -> tuple[tuple[_Routed, ...], Sequence[bool]]:
        """The routes of these rows, and which layers have an adapter; those of the latest call if nothing changed."""
        trains = self._is_training and torch.is_grad_enabled()
        key = slots.tolist(), None if scales is None else scales.tolist(), self.flat._version
        latest = self._latest  # other threads may replace it
        if latest is not None and latest[0] == key and not trains:
            return latest[1:]
        mine = set(slots.flatten().tolist())
        routes = routes_of(slots, scales, self.flat)
        if trains and any(route.width > 1 for route in routes):
            raise UsageError("expected one adapter a row while training")
        adapts = [any(layer) for layer in zip(*[self._used[slot] for slot in mine], strict=True)]
        routed = tuple(_Routed(route, self._with_gradients if trains else self._gathered) for route in routes)
        if not trains:
            self._latest = key, routed, adapts
        return routed, adapts

    def write(self, slot: int, row: Tensor, *, rank: int | None = None) -> None:
        """Put one adapter's row (P,) into a slot.

        Args:
            rank: of the adapter; the row is zero beyond it. None: the bank's. The cost of a forward pass depends on the
                largest rank among its rows, not on the bank's.
        """
        if slot == BASE_SLOT:
            raise UsageError("slot 0 is the base without an adapter and stays zeros")
        with torch.no_grad():
            self.flat[slot].copy_(row)
            self._used[slot] = torch.stack([row[span.a].any() | row[span.b].any() for span in self.spans]).tolist()
        self._ranks[slot] = self.rank if rank is None else rank
        self._latest = None  # may have a copy of what was in the slot

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

    def joined(self, network: Network, slots: Tensor, scales: Tensor) -> dict[str, Joined]:
        """The adapters of each row joined along the rank, by layer; without an adapter they are zeros.

        Args:
            slots: (R, K); 0: none.
            scales: (R, K) of the slots.
        """
        rank = min(self.rank, max(LEAST_JOINED_RANK, *(self._ranks[slot] for slot in slots.flatten().tolist())))
        index, scaled = slots.T.to(self.flat.device), scales.T.to(self.flat)[..., None, None]
        out = {}
        for span, (A, B) in zip(self.spans, self._factors, strict=True):
            if span.network == network and len(span.a_shape) == 2:  # compiled blocks have no convolutions
                own_a, own_b = A[:, :rank], B[:, :, :rank]
                a = [own_a.index_select(0, mine) for mine in index]
                b = [own_b.index_select(0, mine) * scale for mine, scale in zip(index, scaled, strict=True)]
                out[span.module] = side_by_side(a, 1).to(self._dtype), side_by_side(b, 2).to(self._dtype)
        return out

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
            self.slots, self._latest = slots, None

    def forget_forwards(self) -> None:
        """Drop the records of forward passes whose gradient is not needed."""
        self._tape.clear()

    def close(self) -> None:
        """Remove the hooks; the base is as before."""
        for hook in self._hooks:
            hook.remove()

    def _views(self, flat: Tensor, span: LayerSpan) -> tuple[Tensor, Tensor]:
        return flat[:, span.a].view(-1, *span.a_shape), flat[:, span.b].view(-1, *span.b_shape)

    def _hook(self, index: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def add_delta(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            here = self._here
            if torch.compiler.is_compiling() or here.rows is None:  # see `compiled`
                return output
            x = inputs[0]
            if x.shape[0] != here.rows:
                raise UsageError(f"expected a batch of {here.rows} rows, one per routed slot, got {x.shape[0]}")
            if not here.adapts[index]:
                return output
            for routed in here.routed:
                mine = routed.route.rows
                is_whole = mine == slice(0, here.rows)  # backward copies even a slice of all
                own_x, own = (x, output) if is_whole else (x[mine], output[mine])
                factors = routed.factors(self.spans[index].network)
                A, B = factors.A[index], factors.B[index]
                if isinstance(layer, nn.Conv2d):
                    head = adapted_conv(own, own_x, A, B, layer)
                elif x.ndim == 2:  # one product per row: see `batch_invariance`
                    head = up(own, down(own_x, _each(A, len(own))), _each(B, len(own)))
                else:
                    head = up(own, self._down(routed, index, x, own_x), B)
                if is_whole:
                    return head
                output[mine] = head
            return output

        return add_delta

    def _down(self, routed: _Routed, index: int, x: Tensor, mine: Tensor) -> Tensor:
        """x A^T of a linear layer for the route's own rows of x; the layers of a group share one product."""
        group, factors = self._groups[index], routed.factors(self.spans[index].network)
        if group not in factors.joint:
            return down(mine, factors.A[index])
        shared = self._here.shared.get(routed)
        if shared is None or shared[0] is not group or shared[1] is not x:
            shared = group, x, down(mine, factors.joint[group]).chunk(len(group), dim=-1)
            self._here.shared[routed] = shared
        return shared[2][group.index(index)]

    def _gathered(self, route: Route, network: Network) -> _Factors:
        """The factors of the route's runs, up to their largest rank; in training at full rank."""
        rows = route.take(self.flat[:, self.columns_of(network)]).to(self._dtype)
        rank = self.rank if self._is_training else max(self._ranks[slot] for slot in route.used)
        return self._split(network, route, rows, rank)

    def _with_gradients(self, route: Route, network: Network) -> _Factors:
        """The same, as parts of a leaf tensor on the tape: one cast and one split, so one gradient for all layers."""
        columns = self.columns_of(network)
        leaf = route.take(self.flat[:, columns]).detach().requires_grad_()
        self._tape.append((columns, route, leaf))
        return self._split(network, route, leaf.to(self._dtype), self.rank)

    def _split(self, network: Network, route: Route, rows: Tensor, rank: int) -> _Factors:
        """The factors of this rank in rows (runs * width, columns of the network)."""
        mine = {index: span for index, span in enumerate(self.spans) if span.network == network}
        groups = {group: [self.spans[k] for k in group] for group in (self._groups[index] for index in mine)}
        a_sizes = [sum(span.a_size for span in spans) for spans in groups.values()]
        b_sizes = [span.b_size for span in mine.values()]
        all_a, all_b = rows.split([sum(a_sizes), sum(b_sizes)], dim=1)
        if route.scales is not None:
            all_b = all_b * route.scales.to(rows.dtype)
        factors = _Factors({}, {}, {})
        is_whole = rank == self.rank  # backward copies even a slice of all
        for (index, span), part in zip(mine.items(), all_b.split(b_sizes, dim=1), strict=True):
            B = part.view(-1, *span.b_shape)
            factors.B[index] = B if is_whole else B[:, :, :rank]
        for (group, spans), part in zip(groups.items(), all_a.split(a_sizes, dim=1), strict=True):
            if len(group) == 1:
                A = part.view(-1, *spans[0].a_shape)
                factors.A[group[0]] = A if is_whole else A[:, :rank]
                continue
            A = part.view(-1, len(group), *spans[0].a_shape)  # (runs * width, layers, r, d_in)
            A = A if is_whole else A[:, :, :rank]
            factors.A.update(zip(group, A.unbind(1), strict=True))
            if route.width == 1:
                factors.joint[group] = A.flatten(1, 2)
        if route.width > 1:
            for index in mine:
                factors.A[index], factors.B[index] = route.joined(factors.A[index], factors.B[index])
        return factors


def side_by_side(parts: Sequence[Tensor], dim: int) -> Tensor:
    """Parts joined along a dimension, without a copy if there is one part."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)


def _each(factor: Tensor, rows: int) -> Tensor:
    """A factor (runs, ...) for each of `rows` rows."""
    return factor.repeat_interleave(rows // len(factor), 0) if rows > len(factor) else factor


def _groups(found: Mapping[Network, Mapping[str, nn.Module]]) -> tuple[_Group, ...]:
    """The group of each layer, in the order of `LoraBank.spans`; most are alone."""
    names = [(network, module) for network, modules in found.items() for module in modules]
    members: dict[tuple[str, ...], list[int]] = {}
    for index, (network, module) in enumerate(names):
        members.setdefault((network, *input_of(module)), []).append(index)
    of_layer = {index: group for group in map(tuple, members.values()) for index in group}
    return tuple(of_layer[index] for index in range(len(names)))


def _lay_out(
    found: Mapping[Network, Mapping[str, nn.Module]], groups: Sequence[_Group], rank: int
) -> tuple[LayerSpan, ...]:
    """The columns of each layer: of each network all A, those of a group side by side, then all B."""
    weights = [(network, name, cast(Tensor, one.weight)) for network in found for name, one in found[network].items()]
    a_starts, b_starts, start = {}, {}, 0
    for network in found:
        mine = [index for index, (own, _, _) in enumerate(weights) if own == network]
        for index in (k for group in dict.fromkeys(groups[index] for index in mine) for k in group):
            a_starts[index] = start
            start += rank * weights[index][2][0].numel()
        for index in mine:
            b_starts[index] = start
            start += rank * len(weights[index][2])
    return tuple(
        LayerSpan(network, name, (rank, *weight.shape[1:]), (len(weight), rank), a_starts[index], b_starts[index])
        for index, (network, name, weight) in enumerate(weights)
    )
