"""The options that control the reports and the diagnostics."""

from dataclasses import dataclass, field
from typing import Any

from .checking import check


@dataclass
class DiagnosticsOptions:
    """Fields of [`TeamTRConfig`], which describes them."""

    report: bool = field(default=False, metadata={"help": "Whether to write `report.html` when the training ends."})
    log_message_values: int = field(
        default=0, metadata={"help": "Held-out rollouts whose messages are valued at each evaluation."}
    )
    message_value_rollouts: int = field(
        default=16, metadata={"help": "Rollouts from each of these messages, and from each of its contexts."}
    )
    log_occupancy: bool = field(default=False, metadata={"help": "Whether to measure the occupancy shift."})
    log_certificate: bool = field(
        default=False, metadata={"help": "Whether to measure each update's improvement and its lower bound."}
    )
    certificate_prompts: int = field(default=128, metadata={"help": "Held-out rows on which updates are measured."})
    certificate_gamma: float | None = field(
        default=None, metadata={"help": "Discount per turn, to log also the paper's form of the bound."}
    )
    advantage_bound: float = field(default=1.0, metadata={"help": "Width of an interval with all returns."})
    diagnostics_every: int = field(
        default=10, metadata={"help": "Number of stages from one measurement of the diagnostics to the next."}
    )


def check_diagnostics(args: Any):
    """
    Check the options that control the diagnostics.

    Args:
        args ([`TeamTRConfig`]): The options.

    Raises:
        `ValueError`: Naming the option, what was given and what is allowed.
    """
    check(
        args.log_message_values >= 0,
        f"`log_message_values` is a number of rollouts at each evaluation, 0 for none, got {args.log_message_values}.",
    )
    check(
        not args.log_message_values or args.eval_strategy != "no" or args.eval_on_start,
        f"`log_message_values={args.log_message_values}` measures at evaluations, and there are none. Set `eval_strategy`.",
    )
    units = ("diagnostics_every", "stage"), ("certificate_prompts", "prompt"), ("message_value_rollouts", "rollout")
    for name, unit in units:
        value = getattr(args, name)
        check(value >= 1, f"`{name}` must be at least 1 {unit}, got {value}.")
    gamma = args.certificate_gamma
    check(
        gamma is None or 0 <= gamma < 1,
        f"`certificate_gamma` is {gamma}, but the discounted bound is infinite at 1: pass a discount from 0 up to but "
        "not 1, or `None` for the finite-horizon bound alone.",
    )
    check(
        args.advantage_bound > 0,
        f"`advantage_bound` must be positive, the largest difference of two returns, got {args.advantage_bound}.",
    )
