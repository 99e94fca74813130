"""Group-normalised, clipped advantages (eq. 9)."""

import torch


def group_advantages(
    returns: torch.Tensor,
    num_generations: int,
    scale: str = "group",
    clip: float | None = 3.0,
    epsilon: float = 1e-6,
) -> torch.Tensor:
    r"""
    Advantages of a batch of rollouts, in groups of `num_generations` rollouts of the same prompt.

    Eq. 9: $\tilde A_g = \mathrm{clip}((R_g - \mu)/\sigma, -A_{clip}, A_{clip})$ with $\mu$ the mean of the group and
    $\sigma = \sqrt{\mathrm{mean}((R_g - \mu)^2) + \epsilon}$.

    Args:
        returns (`torch.Tensor` of shape `(num_groups * num_generations,)`):
            Returns; groups are contiguous. NaN marks a rollout without a return: it is left out of the mean and the
            variance, and its advantage is 0.
        num_generations (`int`): Size G of a group.
        scale (`str`, *optional*, defaults to `"group"`):
            TRL's `scale_rewards`: `"group"` for σ of the group, `"batch"` for σ of the whole batch, `"none"` for 1.
        clip (`float`, *optional*, defaults to `3.0`): A_clip, or `None` for no clipping.
        epsilon (`float`, *optional*, defaults to `1e-6`): ε, added to the variance.

    Returns:
        `torch.Tensor` of the same shape and dtype.
    """
    # Equal returns must give exactly 0, which rounding in float32 would not
    groups = returns.double().view(-1, num_generations)
    deviations = groups - groups.nanmean(dim=1, keepdim=True)
    if scale == "group":
        sigma = (deviations.square().nanmean(dim=1, keepdim=True) + epsilon).sqrt()
    elif scale == "batch":
        centred = groups - groups.nanmean()
        sigma = (centred.square().nanmean() + epsilon).sqrt()
    elif scale == "none":
        sigma = torch.ones_like(deviations)
    else:
        raise ValueError(f"`scale` is {scale!r}; it must be 'group', 'batch' or 'none'.")
    advantages = (deviations / sigma).nan_to_num(nan=0.0).view(-1).to(returns.dtype)
    return advantages if clip is None else advantages.clamp(-clip, clip)
