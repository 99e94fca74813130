"""The floor of a measured KL: what it is between two policies that are equal but for their rounding."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..policy.precision import computes_in_tf32
from ..policy.speaker import Speaker
from .engines import PlainEngine, ZeroEngine
from .policy_kl import mean_kl
from .snapshot import Snapshot
from .turn_radii import TurnRadii


# A nudge of float32 weights, relative to them; of narrower ones, a unit in the last place of this share of them. The true
# KL is then below a thousandth of any radius in use, and low-precision copies change here and there. Zeros stay, since a
# norm would blow up a row that is no longer zero (the embedding of padding), unless a tensor is nothing else (LoRA's B).
NUDGE, NUDGE_OF_ZEROS = 1e-5, 1e-7
NUDGED_SHARE = 1e-3

# A radius below so many floors is an error, or worth a warning
ERROR, WARNING = 3, 10


def nudge(weights: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Copies of `weights` with their entries, or in less than float32 a few, moved as little as makes a difference."""
    generator = torch.Generator().manual_seed(0)
    nudged = []
    for weight in weights:
        sign = torch.randint(0, 2, weight.shape, generator=generator, dtype=torch.int8).to(weight) * 2 - 1
        if torch.finfo(weight.dtype).bits >= 32:
            size = NUDGE * weight.abs() if weight.any() else torch.full_like(weight, NUDGE_OF_ZEROS)
            nudged.append(weight + sign * size)
        else:
            moved = torch.nextafter(weight, sign * math.inf)
            few = torch.rand(weight.shape, generator=generator).to(weight.device) < NUDGED_SHARE
            nudged.append(torch.where(few, moved, weight))
    return nudged


@dataclass
class Floors:
    """
    The floors of an agent's KLs, in nats per message, once they are measured.

    Args:
        scoring (`float`, *optional*): Of the KL that decides, in the scoring precision.
        training (`float`): Of k3 in the precision of training passes, which may only suggest that an update stops early.
    """

    scoring: float | None = None
    training: float = 0.0

    @torch.no_grad()
    def measure(
        self,
        speaker: Speaker,
        engine: PlainEngine | ZeroEngine,
        parts: Sequence[dict],
        turn_radii: TurnRadii,
        exact: bool,
    ):
        """
        Measure the KLs between the agent's policy and the same policy nudged, on its own rollouts. All processes call
        this together.

        Args:
            speaker ([`Speaker`]): The agent.
            engine (`PlainEngine` or `ZeroEngine`): Its engine.
            parts (`Sequence[dict]`): Rollouts of the policy, with their `scored_logps`.
            turn_radii ([`TurnRadii`]): How the messages are averaged.
            exact (`bool`): Whether the exact KL decides.
        """
        snapshot = Snapshot(engine, with_optimizer=False) if exact else None
        as_trained = []
        if not speaker.policy.scores_as_it_trains:
            as_trained = [{**part, "scored_logps": speaker.token_logps(part, as_trained=True)} for part in parts]
        with engine.holding(nudge(engine.weights)):
            self.scoring = mean_kl(speaker, parts, snapshot, turn_radii)
            self.training = mean_kl(speaker, as_trained, None, turn_radii, as_trained=True) if as_trained else 0.0

    def check(self, radius: float, speaker: Speaker):
        """
        Raise, or warn, if a radius is so small that the rounding of the KL decides.

        Args:
            radius (`float`): δ, in nats per message.
            speaker ([`Speaker`]): The agent.

        Raises:
            `ValueError`: If the radius is below three floors.
        """
        floor, precision = self.scoring or 0.0, speaker.policy.scoring_precision
        if radius >= WARNING * floor:
            return
        least = f"a `trust_region_radius` of at least {WARNING * floor:.2g}"
        remedy = f"Use {least}; shorter messages have a lower floor."
        if precision != "float32":
            remedy = f"Use `scoring_precision='float32'`, or {least}."
        elif computes_in_tf32(speaker.policy.accelerator.device):
            precision, remedy = "float32 with products in TF32", f"Use `tf32=False`, or {least}."
        text = (
            f"The radius of agent {speaker.name!r} is {radius:.3g} nats per message, but between two policies that are equal "
            f"but for rounding a KL of {floor:.3g} is measured in {precision}"
        )
        if radius < ERROR * floor:
            raise ValueError(f"{text}: updates would be stopped and reverted for nothing. {remedy}")
        warnings.warn(f"{text}, so that updates may be made smaller for nothing. {remedy}", stacklevel=2)
