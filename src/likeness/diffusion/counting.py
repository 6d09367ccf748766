"""Counts a computation as it runs, on real or fake tensors: live bytes, floating point operations, kernels.

Bytes: a storage counts from the operation that makes it until it is freed, as in an allocator without rounding, caches
and workspaces. Kernels: calls of operators that compute; views and empty allocations launch none. Counts do not depend
on the machine. On an accelerator the backward pass runs in other threads, which a dispatch mode does not see: count on
the CPU.
"""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop, sdpa_flop

_aten = torch.ops.aten
_NO_KERNEL = {
    _aten.detach, _aten.empty, _aten.empty_like, _aten.empty_strided, _aten.new_empty, _aten.new_empty_strided,
    _aten.is_same_size, _aten._unsafe_view, _aten.reshape, _aten.view, _aten._reshape_alias,
}  # fmt: skip


class Counting(TorchDispatchMode):
    """Within the block, counts tensors made in it and operators called in it."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak_bytes = 0  # alive now, and the maximum so far
        self.operations = 0  # multiplications and additions
        self.kernels = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function.namespace != "aten":  # a question about a tensor
            return function(*args, **kwargs)
        for tensor in tree_leaves((args, kwargs)):  # those from before the block do not count
            if isinstance(tensor, torch.Tensor):
                self._seen.add(tensor.untyped_storage())
        out = function(*args, **kwargs)
        packet = function._overloadpacket
        self.kernels += not function.is_view and packet not in _NO_KERNEL
        self.operations += _operations(packet, args, kwargs, out)
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        self._seen.add(storage)
        size = storage.nbytes()
        self.bytes += size
        self.peak_bytes = max(self.peak_bytes, self.bytes)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.bytes -= size


def _operations(packet: Any, args: Any, kwargs: Any, out: Any) -> int:
    """By torch's formulas; it has none for the CPU's attention."""
    if packet is _aten._scaled_dot_product_flash_attention_for_cpu:
        return sdpa_flop(*(tensor.shape for tensor in args[:3]))
    if packet is _aten._scaled_dot_product_flash_attention_for_cpu_backward:
        return sdpa_backward_flop(*(tensor.shape for tensor in args[:4]))
    formula = flop_registry.get(packet)
    return 0 if formula is None else formula(*args, **kwargs, out_val=out)
