"""The last layer of a model by itself: hidden states are much smaller than logits, which are computed from them in parts."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from ..agents.base_model import without_adapters
from .policy import Policy


class Head:
    """
    The output embeddings of a policy, with what its architecture does to their output (soft caps, scales), apart from the
    rest of the model.

    Logits are those of the model's own forward pass, in which hidden states from an earlier one are given to the output
    embeddings. So they are right for each architecture that treats positions independently after its output embeddings;
    and adapters, autocast, DDP and DeepSpeed do what they do otherwise. The rest of the model runs on one token, once,
    and then returns what it returned.

    Args:
        policy ([`Policy`]): The policy. All processes make its calls together, and equally many of them.

    Attributes:
        embeddings ([`~torch.nn.Module`]): The output embeddings.
    """

    def __init__(self, policy: Policy):
        base: Any = without_adapters(policy.model)
        self._policy = policy
        self.embeddings: nn.Module = base.get_output_embeddings()
        self._body: nn.Module | None = base.base_model if base.base_model is not base else None
        self._body_output: Any = None

    @property
    def is_trained(self) -> bool:
        """Whether the output embeddings differ between the policies of an agent."""
        return any(parameter.requires_grad for parameter in self.embeddings.parameters())

    @torch.no_grad()
    def hidden_states(self, call: dict[str, Any], keep: int) -> torch.Tensor:
        """
        What the output embeddings are given for the logits of the last `keep` tokens, in a forward pass with the
        arguments `call`; shape `(rows, keep, hidden size)`.
        """
        found: list[torch.Tensor] = []

        def take(hidden: torch.Tensor) -> torch.Tensor:
            found.append(hidden[:, -keep - 1 : -1])
            return hidden[:, -1:]

        with self._given(take):
            self._policy.logits({**call, "logits_to_keep": keep + 1, "use_cache": False})
        if len(found) != 1:
            raise NotImplementedError(
                f"A forward pass of {type(self._policy.model).__name__} calls its output embeddings {len(found)} times; "
                "verification and the exact KL need one call, whose output is the logits. Use `resampling='suffix'` and "
                "`kl_estimator='k3'` with this architecture."
            )
        return found[0]

    @torch.no_grad()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits of hidden states of shape `(..., hidden size)`, at least one; before the temperature."""
        flat = hidden.reshape(1, -1, hidden.size(-1))
        flat = torch.cat([flat, flat[:, -1:]], dim=1)  # `Policy.logits` leaves out the last position
        ids = torch.zeros(1, 1, dtype=torch.long, device=flat.device)
        call = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
        with self._given(lambda _: flat), self._without_body():
            return self._policy.logits(call)[0].unflatten(0, hidden.shape[:-1])

    @contextlib.contextmanager
    def _given(self, replace: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
        """Context in which the output embeddings are given `replace` of their input."""
        hook = self.embeddings.register_forward_pre_hook(lambda module, args: (replace(args[0]), *args[1:]))
        try:
            yield
        finally:
            hook.remove()

    @contextlib.contextmanager
    def _without_body(self) -> Iterator[None]:
        """Context in which the body of the model returns what it returned in the first one of these."""
        body = self._body
        if body is None:
            yield
        elif self._body_output is None:
            hook = body.register_forward_hook(self._keep_output)
            try:
                yield
            finally:
                hook.remove()
        else:
            own = vars(body).get("forward")  # a wrapper, as accelerate sets it, or the method of the class
            body.forward = lambda *args, **kwargs: self._body_output
            try:
                yield
            finally:
                if own is None:
                    del body.forward
                else:
                    body.forward = own

    def _keep_output(self, module: nn.Module, args: tuple, output: Any):
        self._body_output = output


class PartialLogits:
    """
    Logits that are computed when they are indexed.

    Args:
        head ([`Head`]): Computes them.
        hidden (`torch.Tensor` of shape `(rows, length, hidden size)`): On the device of the policy.
        weights (`Callable[[], AbstractContextManager]`): Makes a context in which the head has the weights that it had
            for the policy of `hidden`.
    """

    def __init__(
        self,
        head: Head,
        hidden: torch.Tensor,
        weights: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ):
        self._head, self._hidden, self._weights, self._calls = head, hidden, weights, 0

    def __getitem__(self, index: Any) -> torch.Tensor:
        self._calls += 1
        with self._weights():
            return self._head.logits(self._hidden[index])

    def catch_up(self, calls: int):
        """Compute logits for nothing until it is the call number `calls`, as on the other processes."""
        for _ in range(calls - self._calls):
            self[:1, :1]


class StoredLogits:
    """
    Logits in host memory, which are brought to the device when they are indexed.

    Args:
        logits (`torch.Tensor` of shape `(rows, length, vocab)`): In host memory.
        device (`torch.device`): Where they are needed.
    """

    def __init__(self, logits: torch.Tensor, device: torch.device):
        self._logits, self._device = logits, device

    def __getitem__(self, index: Any) -> torch.Tensor:
        on_host = tuple(part.cpu() if isinstance(part, torch.Tensor) else part for part in index)
        return self._logits[on_host].to(self._device)

    def catch_up(self, calls: int):
        """Indexing them is nothing that processes do together."""
