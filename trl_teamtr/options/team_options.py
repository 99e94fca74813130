"""The options that a team adds to those of TRL: their choices, and which of them go together."""

from datetime import date
from typing import Any

from .advantage_options import check_advantages
from .checking import check, check_choice
from .diagnostics_options import check_diagnostics


# The choices of each option; the error for another value lists them.
UPDATE_ORDERS = ("sequential", "reversed", "random")
RESAMPLINGS = ("full", "suffix", "speculative", "stale", "joint", "importance")
ROUTERS = ("round_robin", "random")
KL_CONTROLLERS = ("adaptive", "fixed")
KL_ESTIMATORS = ("k3", "exact")
PRECISIONS = ("float32", "float16", "bfloat16")
RADIUS_SCHEDULES = ("uniform", "horizon")


def check_radius(radius: float | None, owner: str):
    """Raise unless `radius` is a trust-region radius: `None`, or a positive number of nats per message."""
    check(
        radius is None or radius > 0,
        f"`trust_region_radius` of {owner} is {radius}, but a radius is a positive KL in nats per message (the paper "
        "uses 0.01). Pass a positive number, or `None` for no trust region.",
    )


def check_team_options(args: Any):
    """
    Check the options of a team.

    Args:
        args ([`TeamTRConfig`]): The options.

    Raises:
        `ValueError`: Naming the option, what was given and what is allowed.
    """
    _check_stages(args)
    check_rollout_options(args)
    _check_trust_region(args)
    check_diagnostics(args)
    check_advantages(args)
    check(
        not (args.offload_idle_agents and args.deepspeed_plugin is not None),
        "`offload_idle_agents=True` is not supported with DeepSpeed, which keeps the weights in its own buffers. "
        "Leave it `False` and use accelerate_configs/zero3_offload.yaml.",
    )


def _check_stages(args: Any):
    check(
        args.num_stages is None or args.max_steps <= 0,
        f"Both `num_stages` ({args.num_stages}) and `max_steps` ({args.max_steps}) are set. `max_steps` counts "
        "updates, of which a stage has one for each trainable agent: set one of the two.",
    )
    check(args.num_stages is None or args.num_stages >= 1, f"`num_stages` must be at least 1, got {args.num_stages}.")
    check(args.num_iterations >= 1, f"`num_iterations` must be at least 1, got {args.num_iterations}.")
    check_choice(args, "update_order", UPDATE_ORDERS)
    check(
        1 <= args.gradient_accumulation_steps <= args.steps_per_generation,
        f"`gradient_accumulation_steps` is {args.gradient_accumulation_steps} and `steps_per_generation` is "
        f"{args.steps_per_generation}: an optimizer step accumulates at least one of the micro-batches of an update, and at "
        "most all of them, since the next update has other rollouts. Leave one of the two out, or set a number from 1 to "
        f"{args.steps_per_generation}.",
    )


def check_rollout_options(args: Any):
    """Check how rollouts are generated: by the options of a team, or of an agent that has settings of its own."""
    for name in ("num_agents", "max_turns", "max_context_length"):
        value = getattr(args, name)
        check(value is None or value >= 1, f"`{name}` must be at least 1 or `None`, got {value}.")
    check(args.num_rounds >= 1, f"`num_rounds` must be at least 1, got {args.num_rounds}.")
    check(
        args.max_completion_length is None or args.max_completion_length >= 1,
        f"`max_completion_length` must be at least 1, or `None` for what room the context of an agent has left, got "
        f"{args.max_completion_length}. TRL's default is 512.",
    )
    check(
        args.max_completion_length is not None or args.loss_type != "dr_grpo",
        "`loss_type='dr_grpo'` divides by `max_completion_length`, which is `None`. Set it, or use another loss.",
    )
    check(
        args.reward_timeout is None or args.reward_timeout > 0,
        f"`reward_timeout` must be a positive number of seconds, or `None` to wait forever, got "
        f"{args.reward_timeout}.",
    )
    cache = args.generation_cache_gib
    check(
        cache is None or cache > 0,
        f"`generation_cache_gib` must be a positive number of GiB, or `None` for half of what is free, got {cache}.",
    )
    _check_date(args.template_date)
    check_choice(args, "router", ROUTERS)
    if args.resampling is not None:
        check_choice(args, "resampling", RESAMPLINGS)
    check(
        args.resample_every == 1 or (args.resample_every > 1 and args.resampling in (None, "full")),
        f"`resample_every` is {args.resample_every} with `resampling={args.resampling!r}`. It must be at least 1, "
        "and above 1 it is the baseline that resamples all rollouts, but less often: use `resampling='full'`.",
    )
    check(
        args.importance_clip is None or args.importance_clip > 0,
        f"`importance_clip` must be positive or `None`, got {args.importance_clip}.",
    )
    check(
        args.resampling != "speculative" or args.disable_dropout,
        "`resampling='speculative'` compares the distributions of a policy before and after its update, and "
        "dropout changes them. Leave `disable_dropout=True`, or use `resampling='suffix'`.",
    )


def _check_date(given: str | None):
    try:
        date.fromisoformat(given or "2026-01-31")
    except ValueError as error:
        raise ValueError(
            "`template_date` must be a date such as '2026-01-31', or `None` for the day on which the run begins, got "
            f"{given!r}."
        ) from error


def _check_trust_region(args: Any):
    check_radius(args.trust_region_radius, "the config")
    check_choice(args, "radius_schedule", RADIUS_SCHEDULES)
    if args.kl_estimator is not None:
        check_choice(args, "kl_estimator", KL_ESTIMATORS)
    check_choice(args, "kl_controller", KL_CONTROLLERS)
    check_choice(args, "scoring_precision", PRECISIONS)
    if args.speaking_precision is not None:
        check_choice(args, "speaking_precision", PRECISIONS)
    check(args.floor_every >= 1, f"`floor_every` must be at least 1 stage, got {args.floor_every}.")
    check(args.kl_coef >= 0, f"`kl_coef` must be at least 0, got {args.kl_coef}.")
    check(
        0 <= args.monitor_fraction < 1,
        f"`monitor_fraction` is a share of the rollouts, from 0 up to but not 1, got {args.monitor_fraction}.",
    )
    rows = args.per_device_train_batch_size
    check(
        args.monitor_fraction == 0 or 0 < round(args.monitor_fraction * rows) < rows,
        f"`monitor_fraction={args.monitor_fraction}` of the {rows} rollouts of a micro-batch "
        f"(`per_device_train_batch_size`) is {round(args.monitor_fraction * rows)}: at least one must be monitored, "
        "and one trained on. Use larger micro-batches, or another share.",
    )
    check(args.max_backtracks >= 0, f"`max_backtracks` must be at least 0, got {args.max_backtracks}.")
    idle = args.max_idle_updates
    check(idle is None or idle >= 1, f"`max_idle_updates` must be at least 1, or `None` for no limit, got {idle}.")
