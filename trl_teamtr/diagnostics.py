"""What a stage's updates did to the contexts of later ones, measured beside training and without touching it."""

import contextlib
import dataclasses
import random
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import gather_object, set_seed
from transformers import TrainerCallback

from .advantages import group_advantages
from .occupancy import context_weights, occupancy_metrics, stale_gap, surrogate_gain
from .returns import compute_returns
from .rollout import Rollouts, collect_rollouts
from .snapshot import Snapshot
from .stage_weights import ScoredView, StageWeights
from .stages import evaluating


if TYPE_CHECKING:
    from .agent_trainer import AgentTrainer
    from .teamtr_trainer import TeamTRTrainer


class OccupancyCallback(TrainerCallback):
    """
    Logs the occupancy diagnostics of `log_occupancy=True`, in every `diagnostics_every`-th stage.

    For each update of such a stage: how far its contexts have moved since the stage began (`occupancy/tv`, `ess`,
    `w_p95`, `w_p99`, `w_max`), and Δ_stale with its parts and their standard errors (`occupancy/stale_gap...`), for
    which the team as it was before the update writes the stage's prompts once more, and goes on from its agent's last
    messages in the stage's first rollouts. `occupancy/stale_gap_floor` is what was found at the stage's first update,
    where the true gap is 0. The cost is logged as `diagnostics/seconds` and `diagnostics/tokens_decoded`.

    Training is the same with and without it, to the bit. A stage that a run was resumed in is not measured.

    Args:
        trainer (`TeamTRTrainer`): The trainer that it is added to.
    """

    def __init__(self, trainer: "TeamTRTrainer"):
        self._trainer = trainer
        self._weights: StageWeights | None = None  # of the stage in progress, if it is measured
        self._snapshot: Snapshot | None = None
        self._start_advantages: torch.Tensor | None = None
        self._floor = 0.0

    @property
    def _place(self) -> tuple[int, int]:
        """Number of the stage, and of the update in it, that the counter of updates stands at."""
        return divmod(self._trainer.state.global_step, len(self._trainer.trained_members))

    def on_step_begin(self, args, state, control, **kwargs):
        stage, position = self._place
        measured = stage % args.diagnostics_every == 0
        if position == 0 or not measured:
            self._weights = None
        if measured and (position == 0 or self._weights is not None):
            self._snapshot = Snapshot(self._trainer.active_agent.engine, with_optimizer=False)

    def on_step_end(self, args, state, control, **kwargs):
        if self._snapshot is None:
            return
        trainer, snapshot, begin = self._trainer, self._snapshot, time.perf_counter()
        self._snapshot = None
        with evaluating([member.model for member in trainer.members]), own_randomness(trainer):
            tokens = self._measure(trainer.active_agent, trainer.active_rows, snapshot)
        metrics = trainer._metrics["train"]
        metrics["diagnostics/seconds"].append(time.perf_counter() - begin)
        metrics["diagnostics/tokens_decoded"].append(sum(gather_object([tokens])))

    def _measure(self, agent: "AgentTrainer", rows: list[dict[str, Any]], snapshot: Snapshot) -> int:
        """Log the diagnostics of the update that was just made; returns the number of tokens decoded for them."""
        trainer = self._trainer
        first = self._weights is None
        if first:
            self._weights = StageWeights(trainer.active_rollouts)
            self._start_advantages = _advantages(trainer, rows, trainer.active_rollouts)
        start = self._weights.rollouts
        weights = context_weights(self._weights.log_ratios, self._weights.turns_of(agent.name)).tolist()
        found = occupancy_metrics(torch.tensor(gather_object(weights), dtype=torch.float64))

        with snapshot.current_policy():
            fresh, mixed = trainer.collect_rollouts(rows), go_on_after(agent, start)
        scored = ScoredView(agent, start, snapshot)
        gains = [
            _gain(agent, scored, self._start_advantages),
            _gain(agent, scored, _advantages(trainer, rows, mixed)),
            _gain(agent, ScoredView(agent, fresh, snapshot), _advantages(trainer, rows, fresh)),
        ]
        found |= stale_gap(*map(agent.accelerator.gather, gains), group=agent.num_generations)
        self._floor = found["stale_gap"] if first else self._floor
        found["stale_gap_floor"] = self._floor
        self._weights.add(agent, scored)
        for name, value in found.items():
            trainer._metrics["train"][f"occupancy/{name}"].append(value)
        return fresh.tokens_decoded + mixed.tokens_decoded


def go_on_after(agent: "AgentTrainer", rollouts: Rollouts) -> Rollouts:
    """
    `rollouts` up to each one's last message of `agent`, and from there on in the words of the present team; where it
    has none, all in the words of the present team.
    """
    kept = []
    for transcript in rollouts.transcripts:
        turns = [turn for turn, message in enumerate(transcript.messages) if message.agent == agent.name]
        kept.append(dataclasses.replace(transcript, messages=transcript.messages[: turns[-1] + 1 if turns else 0]))
    lead = agent.lead
    return collect_rollouts(kept, lead.members, lead.rules, lead.accelerator)


def _advantages(trainer: "TeamTRTrainer", rows: list[dict[str, Any]], rollouts: Rollouts) -> torch.Tensor:
    """Eq. 9 for `rollouts`, of this process."""
    args = trainer.args
    found = group_advantages(
        compute_returns(trainer, rows, rollouts),
        trainer.num_generations,
        trainer.scale_rewards,
        args.advantage_clip,
        args.advantage_epsilon,
    )
    first = trainer.accelerator.process_index * len(rows)
    return found[first : first + len(rows)]


def _gain(agent: "AgentTrainer", scored: ScoredView, advantages: torch.Tensor) -> torch.Tensor:
    return surrogate_gain(scored.log_ratios, scored.mask, advantages, agent.epsilon_low, agent.epsilon_high)


@contextlib.contextmanager
def own_randomness(trainer: "TeamTRTrainer") -> Iterator[None]:
    """Within it the draws are others, fixed by the seed and the update; after it they go on as if nothing had been."""
    device = trainer.args.device
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        key = f"{trainer.args.seed}/{trainer.state.global_step}/{trainer.accelerator.process_index}"
        set_seed(random.Random(key).getrandbits(32))
        yield
    random.setstate(states[0])
    np.random.set_state(states[1])
