"""
How far an agent's contexts have shifted since the stage began, and the error that stale rollouts would have caused.

Knows tensors, not trainers. docs/metrics.md names what is logged.
"""

import torch


def context_weights(log_ratios: torch.Tensor, speaks: torch.Tensor) -> torch.Tensor:
    r"""
    Importance weight of each context that an agent speaks in, for rollouts of the team at the start of a stage:
    $w = \prod \pi_{now}(m|s) / \pi_{start}(m|s)$ over the messages $m$ before the agent's turn.

    Args:
        log_ratios (`torch.Tensor` of shape `(rows, turns)`): Log-ratio of each message of the rollouts; 0 for those of
            agents that were not updated since, and after a rollout's end.
        speaks (`torch.Tensor` of shape `(rows, turns)`, bool): The agent's turns.

    Returns:
        `torch.Tensor` of shape `(contexts,)`, float64.
    """
    log_ratios = log_ratios.double()
    return (log_ratios.cumsum(dim=1) - log_ratios)[speaks].exp()


def occupancy_metrics(weights: torch.Tensor) -> dict[str, float]:
    r"""
    Metrics of the occupancy shift, from the weights of contexts.

    Args:
        weights (`torch.Tensor` of shape `(contexts,)`): From [`context_weights`].

    Returns:
        `dict` with `tv` ($D_{occ}$: mean of $\max(0, 1 - w)$, whose expectation is the total variation between the
        two distributions of contexts), `ess` ($(\sum w)^2 / (B \sum w^2)$, 1 for equal weights), `w_p95`, `w_p99`,
        `w_max`, and `w_above_10` (the share of weights above 10). Empty if the agent never speaks.
    """
    weights = weights.double()
    if weights.numel() == 0:
        return {}
    # Divided by the largest, so that squares of large weights do not overflow
    scaled = weights / weights.max()
    p95, p99 = weights.quantile(torch.tensor([0.95, 0.99], dtype=weights.dtype, device=weights.device)).tolist()
    return {
        "tv": (1 - weights).clamp(min=0).mean().item(),
        "ess": (scaled.sum().square() / (len(weights) * scaled.square().sum())).item(),
        "w_p95": p95,
        "w_p99": p99,
        "w_max": weights.max().item(),
        "w_above_10": (weights > 10).double().mean().item(),
    }


def surrogate_gain(
    log_ratios: torch.Tensor, mask: torch.Tensor, advantages: torch.Tensor, clip_low: float, clip_high: float
) -> torch.Tensor:
    r"""
    Gain of the clipped surrogate of an update (eq. 10, token form) on each rollout: the sum over the agent's tokens
    of $\min(r\tilde A, \mathrm{clip}(r)\tilde A) - \tilde A$, with $r = \pi_{new}(x) / \pi_{cur}(x)$.

    Args:
        log_ratios (`torch.Tensor` of shape `(rows, length)`): $\log r$ of each token.
        mask (`torch.Tensor` of shape `(rows, length)`): 1 on the agent's tokens.
        advantages (`torch.Tensor` of shape `(rows,)`): $\tilde A$.
        clip_low, clip_high (`float`): $r$ is clipped to `[1 - clip_low, 1 + clip_high]`.

    Returns:
        `torch.Tensor` of shape `(rows,)`, float64.
    """
    ratio, advantages = log_ratios.double().exp(), advantages.double()[:, None]
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    gain = torch.minimum(ratio * advantages, clipped * advantages) - advantages
    return torch.where(mask.bool(), gain, 0.0).sum(dim=1)


def stale_gap(stale: torch.Tensor, mixed: torch.Tensor, fresh: torch.Tensor, group: int) -> dict[str, float]:
    r"""
    Δ_stale: the error of an update's surrogate on the stage's first rollouts, and its two parts.

    Args:
        stale (`torch.Tensor` of shape `(rows,)`): Gain on the stage's first rollouts ([`surrogate_gain`]).
        mixed (`torch.Tensor` of shape `(rows,)`): On the same contexts and messages, with the returns of the team
            just before the update.
        fresh (`torch.Tensor` of shape `(rows,)`): On independent rollouts of that team.
        group (`int`): Rollouts of a prompt, which are consecutive; the three are of the same prompts in the same order.

    Returns:
        `dict` with `stale_gap` (the absolute difference of the means of `stale` and `fresh`), its parts
        `stale_gap_contexts` (`mixed` - `fresh`) and `stale_gap_returns` (`stale` - `mixed`), which add up to it up to
        sign, and the standard error of each over prompts (`..._se`).
    """
    found = {}
    for name, difference in (
        ("stale_gap", stale - fresh),
        ("stale_gap_contexts", mixed - fresh),
        ("stale_gap_returns", stale - mixed),
    ):
        by_prompt = difference.view(-1, group).mean(dim=1)
        found[name] = by_prompt.mean().item()
        error = by_prompt.std() / len(by_prompt) ** 0.5 if len(by_prompt) > 1 else torch.tensor(torch.nan)
        found[f"{name}_se"] = error.item()
    found["stale_gap"] = abs(found["stale_gap"])
    return found
