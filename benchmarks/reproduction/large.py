"""Diagnostics on more rollouts than training has, of prompts of their own."""

from collections.abc import Collection
from typing import Any

from trl_teamtr.diagnostics.callback import DiagnosticsCallback, MeasuredUpdate, Probe
from trl_teamtr.rollouts.drafts import Drafts
from trl_teamtr.rollouts.rollouts import Rollouts
from trl_teamtr.rollouts.stage_weights import ScoredView
from trl_teamtr.trust_region.snapshot import Snapshot


class LargeDiagnostics(DiagnosticsCallback):
    """
    [`DiagnosticsCallback`] on given rows: the rollouts of the stage's start are of these too, and nothing was fitted to
    them. A stage's first rollouts and the fresh ones of its first update are independent; those of a later update are
    resampled from the ones before, as with `resampling="speculative"`, which costs a fraction of writing them anew.

    Args:
        trainer (`TeamTRTrainer`): The trainer that it is added to.
        probes (`list[Probe]`): What is measured.
        rows (`list[dict]`): Rows of each prompt's group, consecutive.
        stages (`Collection[int]`): The stages to measure, from 0.
    """

    def __init__(self, trainer, probes: list[Probe], rows: list[dict[str, Any]], stages: Collection[int]):
        super().__init__(trainer, probes)
        self._rows = rows
        self._stages = stages

    def is_measured(self, stage: int) -> bool:
        return stage in self._stages

    def _look_at_update(self, snapshot: Snapshot) -> MeasuredUpdate:
        trainer, rows = self._trainer, self._rows
        agent = trainer.active.agent
        position = (trainer.state.global_step - 1) % len(trainer.trained_members)
        with snapshot.current_policy():
            if position == 0:
                self._start = trainer.team.collect(rows)
                self._fresh = trainer.team.collect(rows)
            else:
                self._fresh = self._resample()
        self._last = agent.name, snapshot
        scored = ScoredView(agent.speaker, self._fresh, snapshot, agent.args.per_device_train_batch_size)
        returns = trainer.compute_returns(rows, self._fresh.transcripts)
        tokens = self._fresh.tokens_decoded + (self._start.tokens_decoded if position == 0 else 0)
        return MeasuredUpdate(agent, snapshot, position, rows, self._start, self._fresh, returns, scored, tokens)

    def _resample(self) -> Rollouts:
        """The rollouts of the update before, brought by block verification to the law of the team as it is now."""
        updated, before = self._last
        return self._trainer.team.resample(Drafts(self._fresh, updated, before, speculative=True))
