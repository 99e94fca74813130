"""The memory of the calls of a run, by kind, measured on models without weights."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch._subclasses.fake_tensor import FakeTensorMode

from ..maths.kl import exact_kl
from .ledger import Ledger
from .skeleton import Skeleton


@dataclass(frozen=True)
class Cost:
    """
    Of a call.

    Args:
        activations, logits, gradients, cache (`int`): Bytes, at the moment at which they are most together.
    """

    activations: int = 0
    logits: int = 0
    gradients: int = 0
    cache: int = 0

    @property
    def total(self) -> int:
        """Bytes."""
        return self.activations + self.logits + self.gradients + self.cache


class Calls:
    """
    Makes the calls of a run on a skeleton: the same code as in the run, on tensors without storage.

    Args:
        mode (`FakeTensorMode`): That of the skeletons.
        precision (`str`): `"no"`, or that of the autocast: `"bf16"` or `"fp16"`.
        gradient_checkpointing (`bool`): Whether activations are computed again in the backward pass.
    """

    def __init__(self, mode: FakeTensorMode, precision: str, gradient_checkpointing: bool):
        self._mode, self._checkpointing = mode, gradient_checkpointing
        self._dtype = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self._found: dict[Any, Cost] = {}

    def generation(self, skeleton: Skeleton, rows: int, context: int, message: int) -> Cost:
        """Reading `rows` contexts and sampling a message after each, with the cache at its largest; without autocast."""

        def call(ledger: Ledger) -> int:
            model, kwargs = skeleton.model, {"use_cache": True, "logits_to_keep": 1}
            output = model(**self._inputs(skeleton, rows, context + message - 1), **kwargs)
            kept = {name: value for name, value in output.items() if name != "logits"}
            del output
            cache = ledger.live.total()
            if "past_key_values" in kept:  # one more step, in which the cache of each layer is copied
                step = {"input_ids": torch.zeros(rows, 1, dtype=torch.long), **kept}
                if skeleton.reads_mask:
                    step["attention_mask"] = torch.ones(rows, context + message, dtype=torch.long)
                model(**step, **kwargs)
            return cache

        return self._measure(("generation", id(skeleton), rows, context, message), skeleton, call, cast=False)

    def scoring(self, skeleton: Skeleton, rows: int, length: int) -> Cost:
        """Log-probabilities of the tokens of `rows` views, without a gradient."""
        return self._measure(
            ("scoring", id(skeleton), rows, length),
            skeleton,
            lambda ledger: self._fused(skeleton, rows, length),
        )

    def logits(self, skeleton: Skeleton, rows: int, length: int, keep: int) -> Cost:
        """A forward pass that returns the logits of the last `keep` positions."""

        def call(ledger: Ledger):
            skeleton.model(**self._inputs(skeleton, rows, length), logits_to_keep=keep, use_cache=False)

        return self._measure(("logits", id(skeleton), rows, length, keep), skeleton, call)

    def logit_bytes(self, skeleton: Skeleton, rows: int, keep: int) -> int:
        """Bytes of the logits that [`~Calls.logits`] returns."""
        size = self._dtype.itemsize if self._dtype is not None else skeleton.widening * skeleton.model.dtype.itemsize
        return rows * keep * skeleton.vocab_size * size

    def exact_kl(self, skeleton: Skeleton, rows: int, length: int, keep: int) -> Cost:
        """The KL of two policies over the vocabulary, at the last `keep` positions of `rows` views."""

        def call(ledger: Ledger):
            inputs = self._inputs(skeleton, rows, length)
            new, old = (
                skeleton.model(**inputs, logits_to_keep=keep, use_cache=False).logits[:, :-1] for _ in range(2)
            )
            exact_kl(old, new)

        return self._measure(("exact", id(skeleton), rows, length, keep), skeleton, call)

    def training(self, skeleton: Skeleton, rows: int, length: int, accumulates: bool) -> Cost:
        """A forward and a backward pass over `rows` views; if it `accumulates`, onto gradients of a pass before."""

        def call(ledger: Ledger):
            weights = skeleton.trained_weights
            hooks = [weight.register_post_accumulate_grad_hook(ledger.count_gradient) for weight in weights]
            if accumulates:
                for weight in weights:
                    weight.grad = torch.empty_like(weight)
                    ledger.count_gradient(weight)
            self._fused(skeleton, rows, length).sum().backward()
            for weight, hook in zip(weights, hooks, strict=True):
                weight.grad = None
                hook.remove()

        model = skeleton.model
        if self._checkpointing:
            model.gradient_checkpointing_enable()
            if isinstance(model, PeftModel):
                model.enable_input_require_grads()  # as TRL does
        model.train()
        try:
            return self._measure(("training", id(skeleton), rows, length, accumulates), skeleton, call, grad=True)
        finally:
            if self._checkpointing:
                model.gradient_checkpointing_disable()
            model.eval()

    def _fused(self, skeleton: Skeleton, rows: int, length: int) -> torch.Tensor:
        inputs = self._inputs(skeleton, rows, length)
        return skeleton.model(**inputs, labels=inputs["input_ids"], fused_lm_head=True).log_probs

    def _inputs(self, skeleton: Skeleton, rows: int, length: int) -> dict[str, torch.Tensor]:
        ids = torch.zeros(rows, length, dtype=torch.long)
        return {"input_ids": ids, **({"attention_mask": torch.ones_like(ids)} if skeleton.reads_mask else {})}

    def _measure(
        self,
        key: tuple,
        skeleton: Skeleton,
        call: Callable[[Ledger], Any],
        cast: bool = True,
        grad: bool = False,
    ) -> Cost:
        if key not in self._found:
            ledger = Ledger(skeleton.tensors(), skeleton.vocab_size)
            with self._mode, ledger, torch.set_grad_enabled(grad):
                with torch.autocast("cpu", self._dtype, enabled=cast and self._dtype is not None):
                    found = call(ledger)
            cache = found if isinstance(found, int) else 0
            self._found[key] = _cost(ledger.peak, cache, skeleton.widening)
        return self._found[key]


def _cost(peak: Counter[str], cache: int, widening: int) -> Cost:
    logits, gradients = peak["logits"], peak["gradients"]
    rest = peak.total() - logits - gradients - cache
    return Cost(widening * rest, widening * logits, widening * gradients, widening * cache)
