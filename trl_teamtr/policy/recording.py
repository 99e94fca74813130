"""The log-probabilities with which `generate` samples, without the logits of all steps in memory."""

from typing import Any

import torch
from transformers import LogitsProcessor, StoppingCriteria


class Recorder(LogitsProcessor):
    """
    Records the log-probabilities of what `generate` samples, at a temperature and before any truncation. Nothing that is
    sampled changes. As a processor of its own it comes before the temperature, top-k, top-p and min-p.

    Args:
        temperature (`float`): That of the policy.

    Attributes:
        ending ([`~transformers.StoppingCriteria`]): To be passed to `generate` too: it sees the token that was sampled.
    """

    def __init__(self, temperature: float):
        self._temperature = temperature
        self._scores = torch.empty(0)
        self._found: list[torch.Tensor] = []
        self.ending: StoppingCriteria = _Ending(self)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self._scores = scores
        return scores

    def note(self, ids: torch.Tensor):
        """Record the log-probabilities of `ids`, of shape `(rows,)`, which were sampled from the last scores."""
        logps = (self._scores.float() / self._temperature).log_softmax(dim=-1)
        self._found.append(logps.gather(1, ids[:, None]))
        self._scores = torch.empty(0)

    @property
    def logps(self) -> list[list[float]]:
        """For each row, the log-probabilities of its new tokens, padding included, in nats."""
        return torch.cat(self._found, dim=1).tolist()


class _Ending(StoppingCriteria):
    """Ends no row."""

    def __init__(self, recorder: Recorder):
        self._recorder = recorder

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        self._recorder.note(input_ids[:, -1])
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
