"""The memory of the calls of a run, by kind, measured on models without weights."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch._subclasses.fake_tensor import FakeTensorMode

from ..maths.kl import exact_kl
from ..policy.precision import AUTOCAST
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
        precision (`str`): `"no"`, or that of the autocast of training passes: `"bf16"` or `"fp16"`.
        scoring_precision (`str`): One of `PRECISIONS`.
        gradient_checkpointing (`bool`): Whether activations are computed again in the backward pass.
    """

    def __init__(self, mode: FakeTensorMode, precision: str, scoring_precision: str, gradient_checkpointing: bool):
        self._mode, self._checkpointing = mode, gradient_checkpointing
        self._trained_in = AUTOCAST[precision]
        self._scored_in = None if scoring_precision == "float32" else getattr(torch, scoring_precision)
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

        return self._measure(("generation", id(skeleton), rows, context, message), skeleton, call, None)

    def scoring(self, skeleton: Skeleton, rows: int, length: int) -> Cost:
        """Log-probabilities of the tokens of `rows` views, without a gradient."""
        return self._measure(
            ("scoring", id(skeleton), rows, length),
            skeleton,
            lambda ledger: self._fused(skeleton, rows, length),
            self._scored_in,
        )

    def hidden_states(self, skeleton: Skeleton, rows: int, length: int) -> Cost:
        """A forward pass that keeps what the output embeddings are given, and returns the logits of one position."""

        def call(ledger: Ledger):
            skeleton.model(**self._inputs(skeleton, rows, length), logits_to_keep=1, use_cache=False)

        return self._measure(("hidden", id(skeleton), rows, length), skeleton, call, self._scored_in)

    def exact_kl(self, skeleton: Skeleton, rows: int, positions: int) -> Cost:
        """The KL of two policies over the vocabulary, at a few `positions` of `rows` views."""

        def call(ledger: Ledger):
            new, old = (
                torch.empty(rows, positions, skeleton.vocab_size, dtype=skeleton.model.dtype) for _ in range(2)
            )
            exact_kl(old, new)

        return self._measure(("exact", id(skeleton), rows, positions), skeleton, call, self._scored_in)

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
            return self._measure(
                ("training", id(skeleton), rows, length, accumulates), skeleton, call, self._trained_in, grad=True
            )
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
        autocast: torch.dtype | None,
        grad: bool = False,
    ) -> Cost:
        if key not in self._found:
            ledger = Ledger(skeleton.tensors(), skeleton.vocab_size)
            with self._mode, ledger, torch.set_grad_enabled(grad):
                with torch.autocast("cpu", autocast, enabled=autocast is not None):
                    found = call(ledger)
            cache = found if isinstance(found, int) else 0
            self._found[key] = _cost(ledger.peak, cache, skeleton.widening)
        return self._found[key]


def _cost(peak: Counter[str], cache: int, widening: int) -> Cost:
    logits, gradients = peak["logits"], peak["gradients"]
    rest = peak.total() - logits - gradients - cache
    return Cost(widening * rest, widening * logits, widening * gradients, widening * cache)
