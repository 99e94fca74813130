"""The options that control the advantages, and what groups by turn need of the others."""

from dataclasses import dataclass, field
from typing import Any

from .checking import check, check_choice


ADVANTAGE_GROUPS = ("rollout", "turn")
CREDITS = ("suffix", "message")


@dataclass
class AdvantageOptions:
    """Fields of [`TeamTRConfig`], which describes them."""

    advantage_clip: float | None = field(
        default=3.0, metadata={"help": "Advantages are clipped to plus or minus this. `None` for no clipping."}
    )
    advantage_epsilon: float = field(
        default=1e-6, metadata={"help": "Added to the variance of the returns of a group."}
    )
    advantage_group: str = field(
        default="rollout",
        metadata={
            "help": "What has a common baseline: the rollouts of a prompt, or those that part at a turn of the agent.",
            "choices": list(ADVANTAGE_GROUPS),
        },
    )
    credit: str = field(
        default="suffix",
        metadata={
            "help": "With `advantage_group='turn'`: where a group parts, and what is trained.",
            "choices": list(CREDITS),
        },
    )


def check_advantages(args: Any):
    """
    Check the options that control the advantages.

    Args:
        args ([`TeamTRConfig`]): The options.

    Raises:
        `ValueError`: Naming the option, what was given and what is allowed.
    """
    check(
        args.advantage_clip is None or args.advantage_clip > 0,
        f"`advantage_clip` must be positive or `None`, got {args.advantage_clip}.",
    )
    check(args.advantage_epsilon > 0, f"`advantage_epsilon` must be positive, got {args.advantage_epsilon}.")
    check_choice(args, "advantage_group", ADVANTAGE_GROUPS)
    check_choice(args, "credit", CREDITS)
    check(
        args.credit == "suffix" or args.advantage_group == "turn",
        f"`credit={args.credit!r}` is for groups by turn. Set `advantage_group='turn'` too, or leave `credit` out.",
    )
    if args.advantage_group == "turn":
        _check_gradient(args)
        _check_rollouts(args)


def _check_gradient(args: Any):
    """Where groups part in other contexts, only a mean that nothing rescales has the gradient of the mean return."""
    check(
        args.scale_rewards == "none",
        f"`advantage_group='turn'` with `scale_rewards={args.scale_rewards!r}`: divided by their deviation, the advantages "
        "of groups that part in different contexts are in different units, and the expected gradient is another one. Set "
        "`scale_rewards='none'`.",
    )
    check(
        args.loss_type == "dr_grpo",
        f"`advantage_group='turn'` with `loss_type={args.loss_type!r}`, which divides by a number of tokens: what an agent says "
        "would decide how much its group counts. Set `loss_type='dr_grpo'`, whose denominator is constant.",
    )
    check(
        args.multi_objective_aggregation == "sum_then_normalize",
        f"`advantage_group='turn'` with `multi_objective_aggregation={args.multi_objective_aggregation!r}`, which divides by "
        "deviations. Leave it 'sum_then_normalize'.",
    )
    check(
        not args.mask_truncated_completions and args.top_entropy_quantile == 1.0,
        "`advantage_group='turn'` with `mask_truncated_completions=True` or a `top_entropy_quantile` below 1: what is left out "
        "of the loss would depend on what was said, and the baselines of groups that part in different contexts would no "
        "longer cancel. Leave both at their defaults.",
    )
    clip, width = args.advantage_clip, args.advantage_bound
    check(
        clip is None or clip >= width,
        f"`advantage_group='turn'` with `advantage_clip={clip}`, below the largest difference of two returns "
        f"(`advantage_bound={width}`): clipped advantages have no mean of 0. Set `advantage_clip=None`.",
    )


def _check_rollouts(args: Any):
    check(
        args.resampling in (None, "full", "suffix", "speculative") and args.resample_every == 1,
        f"`advantage_group='turn'` with `resampling={args.resampling!r}` and `resample_every={args.resample_every}`: branches are "
        "finished by the team as updated so far, so their trunks must be its rollouts too. Use 'full', 'suffix' or "
        "'speculative', with `resample_every=1`.",
    )
    rows = args.per_device_train_batch_size * args.steps_per_generation
    check(
        rows % args.num_generations == 0,
        f"`advantage_group='turn'` with {rows} rollouts per process (`per_device_train_batch_size` times "
        f"`steps_per_generation`) in groups of `num_generations={args.num_generations}`: a trunk and its branches are of one "
        "process. Use a multiple.",
    )
    watched = [name for name in ("log_occupancy", "log_certificate") if getattr(args, name)]
    check(
        not watched,
        f"`{'`, `'.join(watched)}` with `advantage_group='turn'`: it takes the rollouts of an update for independent ones of the "
        "team, and those of a group share their beginning. Leave it `False`, or use `advantage_group='rollout'`.",
    )
