"""How far contexts have moved since the stage began, and what stale rollouts would have cost: `log_occupancy=True`."""

from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
from accelerate.utils import gather_object

from .diagnostics import MeasuredUpdate
from .drafts import Drafts
from .occupancy import context_weights, occupancy_metrics, stale_gap, surrogate_gain
from .resampling import resample
from .returns import compute_returns
from .rollout import Rollouts
from .stage_weights import ScoredView, StageWeights


if TYPE_CHECKING:
    from .agent_trainer import AgentTrainer


class OccupancyProbe:
    """
    Of each update: `occupancy/tv`, `ess`, `w_p95`, `w_p99`, `w_max` of its contexts; and Δ_stale with its two parts
    and their standard errors (`occupancy/stale_gap...`), for which the team as it was before the update also goes on
    from the agent's last messages in the stage's first rollouts. `occupancy/stale_gap_floor` is what was found at the
    stage's first update, where the true gap is 0.
    """

    needs_first = True

    def start_stage(self):
        self._weights: StageWeights | None = None
        self._returns: torch.Tensor | None = None  # of the stage's first rollouts
        self._floor = 0.0
        self._moved: set[str] = set()  # agents that were updated in this stage

    def measure(self, update: MeasuredUpdate) -> dict[str, float]:
        """All processes call this together."""
        agent, lead = update.agent, update.agent.lead
        if update.position == 0:
            self._weights = StageWeights(update.first)
            self._returns = compute_returns(lead, update.rows, update.first)
        weights = context_weights(self._weights.log_ratios, self._weights.turns_of(agent.name)).tolist()
        found = occupancy_metrics(torch.tensor(gather_object(weights), dtype=torch.float64))

        start = ScoredView(agent, self._weights.rollouts, update.snapshot)
        with update.snapshot.current_policy():
            mixed = go_on_after(agent, self._weights.rollouts, self._moved)
        update.tokens_decoded += mixed.tokens_decoded
        mixed_returns = compute_returns(lead, update.rows, mixed)
        gains = [
            self._gain(update, *pair)
            for pair in ((start, self._returns), (start, mixed_returns), (update.scored, update.fresh_returns))
        ]
        found |= stale_gap(*gains, group=agent.num_generations)
        self._floor = found["stale_gap"] if update.position == 0 else self._floor
        self._weights.add(agent, start)
        self._moved.add(agent.name)
        return {f"occupancy/{name}": value for name, value in (found | {"stale_gap_floor": self._floor}).items()}

    @staticmethod
    def _gain(update: MeasuredUpdate, scored: ScoredView, returns: torch.Tensor) -> torch.Tensor:
        agent = update.agent
        own = update.own(agent.normalise(returns, agent.num_generations))
        return agent.accelerator.gather(
            surrogate_gain(scored.log_ratios, scored.mask, own, agent.epsilon_low, agent.epsilon_high)
        )


def go_on_after(agent: "AgentTrainer", rollouts: Rollouts, moved: Collection[str]) -> Rollouts:
    """
    `rollouts` up to each one's last message of `agent` (none of them, where it is silent), and from there on as the
    present team writes.

    What follows stands too, up to the first message of an agent whose policy is another by now: it has the present
    team's law as it is. So where nobody who was updated speaks later, nothing is written.

    Args:
        agent (`AgentTrainer`): The agent, with its policy of when the rollouts were written.
        rollouts (`Rollouts`): Of this process.
        moved (`Collection[str]`): Names of the agents that were updated since.
    """
    standing = []
    for transcript in rollouts.transcripts:
        turns = transcript.turns_of(agent.name)
        standing.append(transcript.first_turn_of(moved, turns[-1] + 1 if turns else 0))
    return resample(agent.lead, Drafts(rollouts, updated=None, standing=standing))
