r"""
The trust region of one update: estimators of $\mathrm{KL}(\pi_{cur}\|\pi_{new})$ (eq. 11), the controller of its
penalty, and the backtracking that keeps every accepted update inside the radius.

The direction is KL(π_cur ‖ π_new), estimated on samples of π_cur. TRL's `beta` term is unrelated: it is the other
direction, against a fixed reference.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from .sampling import SamplingReport
from .snapshot import Snapshot


class KLController:
    r"""
    Coefficient β of the KL penalty, adapted to the radius after each update by the proportional rule of Ziegler et
    al. (2019): $\beta \leftarrow \beta (1 + g\,\mathrm{clip}(\hat d/\delta - 1, -0.2, 0.2))$.

    Args:
        coef (`float`): Initial β. 0 stays 0.
        radius (`float`, *optional*): Target δ in nats per message. Without one, β is fixed.
        gain (`float`): Gain g.
        adaptive (`bool`): Whether β is adapted.
    """

    # β stays within this factor of its initial value, so that many small updates do not remove the penalty forever.
    MAX_FACTOR = 1e3

    def __init__(self, coef: float, radius: float | None, gain: float = 1.0, adaptive: bool = True):
        self.coef = coef
        self.radius = radius
        self.gain = gain
        self.adaptive = adaptive and radius is not None
        self._range = (coef / self.MAX_FACTOR, coef * self.MAX_FACTOR)

    def step(self, kl: float):
        """Adapt β after an update whose KL was `kl` (nats per message) before any backtracking."""
        if self.adaptive and self.radius is not None:
            error = max(-0.2, min(0.2, kl / self.radius - 1))
            low, high = self._range
            self.coef = max(low, min(high, self.coef * (1 + self.gain * error)))


@dataclass
class UpdateReport:
    """
    The result of one update.

    Args:
        inner_steps (`int`): Optimizer steps taken.
        kl (`float`): d̂ of the accepted update, in nats per message; 0 if it was rejected or made no step.
        kl_proposed (`float`): d̂ before backtracking.
        kl_last_pass (`float`): k3 estimate before the last optimizer step, or before the one that was not made. With
            several steps per pass and no radius to keep, on the rollouts of that step alone.
        backtracks (`int`): Number of halvings.
        rejected (`bool`): Whether the update was reverted.
        kl_floor (`float`, *optional*): The KL that is measured between policies that are equal but for rounding.
        sampling ([`SamplingReport`], *optional*): How far its messages were sampled from the policy that scored them.
        idle (`bool`): Whether it changed no weight although the agent spoke and some advantage was not 0.
        loss (`float`): Mean loss over the inner steps.
        grad_norm (`float`): Gradient norm before clipping, in the last inner step.
        num_messages (`int`): Number of messages of the agent, over all processes.
        num_tokens (`int`): Number of their tokens, over all processes.
        log_ratios (`torch.Tensor` of shape `(rows, completion length)`, *optional*): Of this process, in the order of the
            rollouts: log π_new - log π_cur of each token of the agent's views, in the scoring precision and at its
            temperature, where k3 was measured with the accepted weights. Meaningless for tokens that it did not sample.
    """

    inner_steps: int = 0
    kl: float = 0.0
    kl_proposed: float = 0.0
    kl_last_pass: float = 0.0
    backtracks: int = 0
    rejected: bool = False
    kl_floor: float | None = None
    sampling: SamplingReport | None = None
    idle: bool = False
    loss: float = 0.0
    grad_norm: float = 0.0
    num_messages: int = 0
    num_tokens: int = 0
    log_ratios: torch.Tensor | None = field(default=None, compare=False, repr=False)

    def as_metrics(self, name: str, radius: float | None, kl_coef: float) -> dict[str, float]:
        """The update under its logged names, for agent `name` with `radius` (nats per message) and coefficient β."""
        values = {"kl_coef": kl_coef, "kl_last_pass": self.kl_last_pass, "inner_steps": self.inner_steps}
        values["idle"] = self.idle
        if radius is not None:
            per_token = self.kl * self.num_messages / max(self.num_tokens, 1)
            values |= {"kl": self.kl, "kl_per_token": per_token, "kl_proposed": self.kl_proposed, "radius": radius}
            values |= {"backtracks": self.backtracks, "rejected": self.rejected}
            values |= {} if self.kl_floor is None else {"kl_floor": self.kl_floor}
        metrics = {f"agent/{name}/{key}": float(value) for key, value in values.items()}
        if radius is not None and not self.rejected:
            metrics["out_of_region_rate"] = float(self.kl > radius)
        return metrics | ({} if self.sampling is None else self.sampling.as_metrics())


def check_loss(loss: float, name: str, update: int):
    """Raise `FloatingPointError` if the loss of a pass of agent `name` is NaN or infinite."""
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"The loss of agent {name!r} is {loss} at update {update}; its pass was not applied. A smaller learning rate "
            "or `max_grad_norm` usually helps."
        )


def backtrack(
    snapshot: Snapshot, measure: Callable[[], float], radius: float, max_backtracks: int, report: UpdateReport
):
    """
    Move the policy back towards π_cur until its KL is within `radius`; revert the update if that never happens.

    Args:
        snapshot (`Snapshot`): π_cur.
        measure (`Callable[[], float]`): d̂ of the current weights, in nats per message, equal on all processes.
        radius (`float`): δ, in nats per message.
        max_backtracks (`int`): Number of halvings before the update is rejected.
        report (`UpdateReport`): Its `kl`, `backtracks` and `rejected` are set; `kl_proposed` is d̂ at the start.
    """
    report.kl = report.kl_proposed
    # The negation also catches a KL that is NaN
    while not report.kl <= radius:
        if report.backtracks == max_backtracks:
            snapshot.restore()
            report.kl, report.rejected = 0.0, True
            return
        snapshot.halve()
        report.backtracks += 1
        report.kl = measure()
