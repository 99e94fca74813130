"""The shift of the occupancy since the stage began, and the error of stale rollouts: `log_occupancy=True`."""

from collections.abc import Collection

import torch
from accelerate.utils import gather_object

from ..maths.occupancy import context_weights, occupancy_metrics, stale_gap, surrogate_gain
from ..rollouts.drafts import Drafts
from ..rollouts.rollouts import Rollouts
from ..rollouts.stage_weights import ScoredView, StageWeights
from .callback import MeasuredUpdate
from .watched import Watched


class OccupancyProbe:
    """
    For each update: `occupancy/tv`, `ess`, `w_p95`, `w_p99`, `w_max` of its contexts; and Δ_stale with its two parts
    and their standard errors (`occupancy/stale_gap...`), for which the team before the update also continues the
    stage's first rollouts from the agent's last messages. `occupancy/stale_gap_floor` is the gap measured at the
    stage's first update, where the true one is 0.

    Args:
        trainer ([`Watched`]): The training.
    """

    needs_first = True

    def __init__(self, trainer: Watched):
        self._trainer = trainer
        self.start_stage()

    def start_stage(self):
        self._start: tuple[StageWeights, torch.Tensor] | None = None  # the stage's first rollouts, and their returns
        self._floor = 0.0
        self._moved: set[str] = set()  # agents that were updated in this stage

    def measure(self, update: MeasuredUpdate) -> dict[str, float]:
        """All processes call this together."""
        agent, trainer = update.agent, self._trainer
        stage, returns = self._start = self._start or self._look_at_start(update)
        weights = context_weights(stage.log_ratios, stage.turns_of(agent.name)).tolist()
        found = occupancy_metrics(torch.tensor(gather_object(weights), dtype=torch.float64))

        batch_size = agent.args.per_device_train_batch_size
        start = ScoredView(agent.speaker, stage.rollouts, update.snapshot, batch_size)
        with update.snapshot.current_policy():
            mixed = trainer.team.resample(go_on_after(agent.name, stage.rollouts, self._moved))
        update.tokens_decoded += mixed.tokens_decoded
        mixed_returns = trainer.compute_returns(update.rows, mixed.transcripts)
        found |= stale_gap(
            stale=self._gain(update, start, returns),
            mixed=self._gain(update, start, mixed_returns),
            fresh=self._gain(update, update.scored, update.fresh_returns),
            group=agent.num_generations,
        )
        self._floor = found["stale_gap"] if update.position == 0 else self._floor
        stage.add(agent.name, start)
        self._moved.add(agent.name)
        return {f"occupancy/{name}": value for name, value in (found | {"stale_gap_floor": self._floor}).items()}

    def _look_at_start(self, update: MeasuredUpdate) -> tuple[StageWeights, torch.Tensor]:
        if update.first is None:
            raise RuntimeError("The first update of a stage was not measured: its first rollouts are missing.")
        returns = self._trainer.compute_returns(update.rows, update.first.transcripts)
        return StageWeights(update.first), returns

    @staticmethod
    def _gain(update: MeasuredUpdate, scored: ScoredView, returns: torch.Tensor) -> torch.Tensor:
        agent = update.agent
        own = update.own(agent.normalise(returns, agent.num_generations))
        return agent.speaker.policy.accelerator.gather(
            surrogate_gain(scored.log_ratios, scored.mask, own, agent.epsilon_low, agent.epsilon_high)
        )


def go_on_after(name: str, rollouts: Rollouts, moved: Collection[str]) -> Drafts:
    """
    Drafts that keep `rollouts` up to each one's last message of agent `name` (no message, where it is silent). The
    current team continues from there.

    The messages after it are kept too, up to the first message of an agent whose policy has changed since: they
    already have the current team's distribution. So where no updated agent speaks later, nothing is generated.

    Args:
        name (`str`): The agent. Its policy is still the one that generated the rollouts.
        rollouts (`Rollouts`): Of this process.
        moved (`Collection[str]`): Names of the agents that were updated since.
    """
    standing = []
    for transcript in rollouts.transcripts:
        turns = transcript.turns_of(name)
        standing.append(transcript.first_turn_of(moved, turns[-1] + 1 if turns else 0))
    return Drafts(rollouts, updated=None, standing=standing)
