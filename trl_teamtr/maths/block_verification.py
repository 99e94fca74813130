r"""
Block verification (arXiv 2403.10444): which part of a message sampled from an old distribution is kept under a new
one, and what follows it, so that the result has exactly the new distribution.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import LogitsProcessorList


# Of a log-ratio, in nats
LARGEST_STEP = 1e4


class Indexed(Protocol):
    """A tensor, or what returns tensors as one does when it is indexed."""

    def __getitem__(self, index: Any, /) -> torch.Tensor: ...


class SampledLaw:
    """
    Log-probabilities of every token under the sampling distribution, computed when they are indexed: those of a long
    message and a large vocabulary, in float32, would take several times the memory of its logits.

    Args:
        logits (`torch.Tensor` of shape `(rows, length, vocab)`, or what is indexed as one): In the model's dtype.
        transforms (`LogitsProcessorList`): What `generate` applies after the temperature (top-k, top-p, min-p).
        temperature (`float`): Divides the logits, in float32 as in `generate`.
    """

    def __init__(self, logits: Indexed, transforms: LogitsProcessorList, temperature: float = 1.0):
        self._logits = logits
        self._transforms: Callable[..., torch.Tensor] = transforms  # none of them reads `input_ids`
        self._temperature = temperature

    def __getitem__(self, index) -> torch.Tensor:
        logits = self._logits[index]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / self._temperature
        flat = logits.flatten(0, -2)
        return self._transforms(None, flat).view_as(logits).log_softmax(dim=-1)


@dataclass
class Verdict:
    """
    What is kept of each draft.

    Args:
        kept (`torch.Tensor` of shape `(rows,)`, int64): Number of tokens that are kept.
        replacement (`torch.Tensor` of shape `(rows,)`, int64):
            The token that follows them if the draft was cut; meaningless if `kept` is the draft's length.
    """

    kept: torch.Tensor
    replacement: torch.Tensor


def keeping_probabilities(
    old_logps: "torch.Tensor | SampledLaw",
    new_logps: "torch.Tensor | SampledLaw",
    tokens: torch.Tensor,
    lengths: torch.Tensor,
    positions: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""
    With $P_0 = 1$, $P_i = \min(1, P_{i-1}\,p_{new}(x_i)/p_{old}(x_i))$ and
    $s_i = \sum_x (P_i\,p_{new}(x|x_{1:i}) - p_{old}(x|x_{1:i}))^+$: a prefix of length $i < T$ is accepted with
    probability $s_i / (s_i + 1 - P_i)$, the whole draft of length $T$ with probability $P_T$; the longest
    accepted prefix is kept.

    If $P_i = 1$ and the distributions are equal, 0/0 is taken as 1, so that an unchanged distribution rejects nothing.

    Args:
        old_logps, new_logps (`torch.Tensor` or [`SampledLaw`] of shape `(rows, length, vocab)`, float):
            Log-probabilities of every token, at each position of the draft, under the distribution that it was sampled
            from and under the new one. Positions beyond a draft's length are ignored.
        tokens (`torch.Tensor` of shape `(rows, length)`, int64): The drafts.
        lengths (`torch.Tensor` of shape `(rows,)`, int64): Their lengths, at least 1.
        positions (`int`, *optional*): Number of positions to process at a time; all of them by default.

    Returns:
        `tuple` of the probabilities, of shape `(rows, length + 1)`, 0 beyond a draft's length, and $P$, of that shape.
    """
    rows, length = tokens.shape
    total = torch.zeros(rows, 1, dtype=torch.float64, device=tokens.device)
    log_running, excesses, walk = [total], [], (total, total)
    for first in range(0, length, positions or length):
        part = slice(first, min(length, first + (positions or length)))
        old, new, taken = old_logps[:, part], new_logps[:, part], tokens[:, part].unsqueeze(-1)
        log_ratio = new.gather(-1, taken).squeeze(-1) - old.gather(-1, taken).squeeze(-1)
        found, walk = _reflected_walk(log_ratio.double(), walk)
        before = torch.cat([log_running[-1][:, -1:], found[:, :-1]], dim=1).exp().to(new.dtype)
        log_running.append(found)
        excesses.append(new.exp().mul_(before[:, :, None]).sub_(old.exp()).clamp_(min=0.0).sum(dim=-1))
    excess = torch.cat(excesses, dim=1)
    running = torch.cat(log_running, dim=1).exp().to(excess.dtype)
    keep = excess / (excess + 1 - running[:, :-1])
    keep = torch.cat([keep.nan_to_num(nan=1.0), torch.zeros_like(running[:, :1])], dim=1)
    keep[:, 0] = 1.0  # the empty prefix is kept if all others are rejected
    keep.scatter_(1, lengths[:, None], running.gather(1, lengths[:, None]))
    beyond = torch.arange(length + 1, device=tokens.device) > lengths[:, None]
    return keep.masked_fill(beyond, 0.0), running


def whole_probabilities(log_ratios: torch.Tensor) -> torch.Tensor:
    r"""
    $P_T$ of [`keeping_probabilities`], with which a draft is kept whole. Unlike the other prefixes it takes only the
    probabilities of the draft's own tokens.

    Args:
        log_ratios (`torch.Tensor` of shape `(rows, length)`, float): $\log p_{new}(x_i) - \log p_{old}(x_i)$ of each token; 0
            beyond a draft's length.

    Returns:
        `torch.Tensor` of shape `(rows,)`, float64.
    """
    start = torch.zeros(len(log_ratios), 1, dtype=torch.float64, device=log_ratios.device)
    log_running, _ = _reflected_walk(log_ratios.double(), (start, start))
    return log_running[:, -1].exp()


def _reflected_walk(
    steps: torch.Tensor, walk: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    r"""
    $\log P_i = \min(0, \log P_{i-1} + z_i)$ in closed form: a walk that is reflected at 0 is the free walk
    $S_i = z_1 + \dots + z_i$ less its maximum so far, $\log P_i = S_i - \max(0, S_1, \dots, S_i)$ (by induction:
    $\min(0, S_{i-1} - M_{i-1} + z_i) = S_i - \max(S_i, M_{i-1})$).

    Args:
        steps (`torch.Tensor` of shape `(rows, length)`, float64):
            $z_i$, the log-ratio of each token. Of $-\infty$, and of NaN for a token that is impossible under both
            distributions, no $P$ recovers.
        walk (`tuple[torch.Tensor, torch.Tensor]` of shape `(rows, 1)`, float64): $S$ and its maximum before `steps`.

    Returns:
        $\log P$ of that shape, and `walk` after them.
    """
    # A larger step is rounding or a mask (e^-10000 is 0 in float64): summed as it is, it would cancel all that follows
    steps = steps.nan_to_num(nan=-torch.inf, posinf=LARGEST_STEP, neginf=-torch.inf).clamp(max=LARGEST_STEP)
    steps = steps.masked_fill(steps < -LARGEST_STEP, -torch.inf)
    total, peak = walk
    totals = torch.cat([total + steps[:, :1], steps[:, 1:]], dim=1).cumsum(dim=1)
    peaks = totals.cummax(dim=1).values.maximum(peak)
    return totals - peaks, (totals[:, -1:], peaks[:, -1:])


def residual_weights(old_logps: torch.Tensor, new_logps: torch.Tensor, running: torch.Tensor) -> torch.Tensor:
    r"""
    $(P_i\,p_{new} - p_{old})^+$, the unnormalised distribution of the token after a prefix that was cut there.

    Args:
        old_logps, new_logps (`torch.Tensor` of shape `(rows, vocab)`, float): At the position of the cut.
        running (`torch.Tensor` of shape `(rows,)`): $P_i$ there.
    """
    weights = (running[:, None] * new_logps.exp() - old_logps.exp()).clamp(min=0.0)
    nothing = weights.sum(dim=-1, keepdim=True) <= 0  # rounding can cause a cut where the distributions are equal
    return torch.where(nothing, new_logps.exp(), weights)


def verify(
    old_logps: "torch.Tensor | SampledLaw",
    new_logps: "torch.Tensor | SampledLaw",
    tokens: torch.Tensor,
    lengths: torch.Tensor,
    positions: int | None = None,
    cut: torch.Tensor | None = None,
) -> Verdict:
    """
    Decide how much of each draft is kept. Samples from PyTorch's global generator.

    Args:
        old_logps, new_logps, tokens, lengths, positions: As in [`keeping_probabilities`].
        cut (`torch.Tensor` of shape `(rows,)`, bool, *optional*): The drafts that are known not to be kept whole, decided
            by their [`whole_probabilities`]. Prefixes are accepted independently of each other, so nothing else changes.
    """
    keep, running = keeping_probabilities(old_logps, new_logps, tokens, lengths, positions)
    if cut is not None:
        keep[cut, lengths[cut]] = 0.0
    stays = torch.rand_like(keep) < keep
    counts = torch.arange(keep.size(1), device=keep.device)
    kept = torch.where(stays, counts, 0).amax(dim=1)
    last = kept.clamp(max=tokens.size(1) - 1)
    rows = torch.arange(len(tokens), device=tokens.device)
    weights = residual_weights(old_logps[rows, last], new_logps[rows, last], running[rows, last])
    return Verdict(kept, torch.multinomial(weights, 1).squeeze(1))
