"""The baseline "importance": stale rollouts, weighted by their probability under the updated team."""

import torch


def importance_weights(log_ratios: torch.Tensor, clip: float | None) -> torch.Tensor:
    r"""
    Weight of each rollout, $w = \min(\prod_m \pi_{now}(m|s) / \pi_{start}(m|s), w_{clip})$ over all its messages: those
    before an agent's turn affect its contexts, those after it the returns.

    Args:
        log_ratios (`torch.Tensor` of shape `(rows, turns)`): Log-ratio of each message; 0 where nothing has changed.
        clip (`float`, *optional*): Largest weight. `None` for no clipping.

    Returns:
        `torch.Tensor` of shape `(rows,)`, float64.
    """
    weights = log_ratios.double().sum(dim=1).exp()
    return weights if clip is None else weights.clamp(max=clip)
