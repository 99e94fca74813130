"""The memory of calls on tensors without storage: what a call would allocate, without a device that could hold it."""

import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Ledger(TorchDispatchMode):
    """
    Context that counts the bytes of the tensors that are made within it and are still alive, by kind: `"logits"` (the last
    dimension is the vocabulary), `"gradients"` of weights, and `"activations"`, which is everything else.

    Args:
        existing (`Iterable[torch.Tensor]`): Tensors that are there already: views of them are not counted.
        vocab_size (`int`): Size of the vocabulary.

    Attributes:
        live (`Counter[str]`): Bytes by kind now.
        peak (`Counter[str]`): Those of the moment at which there were most.
    """

    def __init__(self, existing: Iterable[torch.Tensor], vocab_size: int):
        super().__init__()
        self._vocab_size = vocab_size
        self._held: dict[int, tuple[str, int]] = {}
        self._existing = [tensor.untyped_storage() for tensor in existing]  # keeps them, and with them their ids
        self._known = {id(storage) for storage in self._existing}
        self.live: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, torch.Tensor):
                self._note(leaf)
        return output

    def count_gradient(self, weight: torch.Tensor):
        """Count what `weight` has accumulated as gradients."""
        assert weight.grad is not None  # called once it is accumulated
        key = id(weight.grad.untyped_storage())
        kind, size = self._held[key]
        self._held[key] = ("gradients", size)
        self.live[kind] -= size
        self.live["gradients"] += size

    def _note(self, tensor: torch.Tensor):
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._known or key in self._held:
            return
        is_logits = tensor.dim() > 1 and tensor.size(-1) == self._vocab_size and tensor.is_floating_point()
        kind = "logits" if is_logits else "activations"
        self._held[key] = (kind, size)
        weakref.finalize(storage, self._free, key)
        self.live[kind] += size
        if self.live.total() > self.peak.total():
            self.peak = self.live.copy()

    def _free(self, key: int):
        kind, size = self._held.pop(key)
        self.live[kind] -= size
