"""Which rollouts each update of a stage is made on: fresh, resampled from the first change on, or stale."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import gather_object

from ..maths.importance import importance_weights
from ..maths.occupancy import occupancy_metrics
from ..policy.speaker import Speaker
from ..trust_region.snapshot import Snapshot
from ..trust_region.update import UpdateReport
from .drafts import Drafts
from .rollouts import Rollouts
from .stage_weights import ScoredView, StageWeights
from .turn_loop import TurnLoop


# Modes that generate only what an update has changed
RESAMPLED = ("suffix", "speculative")
# Modes that keep a stage's first rollouts
KEPT = ("stale", "joint", "importance")


@dataclass
class StageRollouts:
    """
    The rollouts of the current stage.

    Args:
        rollouts (`Rollouts`, *optional*): Those that the last update was made on.
        num_served (`int`): Number of updates of the stage that got rollouts so far.
        updated (`str`, *optional*): The agent that was updated since they were generated.
        snapshot (`Snapshot`, *optional*): Its policy before that.
        log_ratios (`torch.Tensor` of shape `(rows, length)`, *optional*): By how much that changed the log-probabilities of
            the tokens of its own messages, if the update measured it.
        weights (`StageWeights`, *optional*): Their log-ratios under the current team.
    """

    rollouts: Rollouts | None = None
    num_served: int = 0
    updated: str | None = None
    snapshot: Snapshot | None = None
    log_ratios: torch.Tensor | None = None
    weights: StageWeights | None = None


class Resampler:
    """
    Provides the rollouts of each update of a stage in one of the modes of `resampling`. A stage begins with fresh ones.

    After an update, `"full"` generates all rollouts again (with `resample_every`, only after that many updates);
    `"suffix"` keeps the messages before the updated agent's first turn and generates the rest; `"speculative"` also
    verifies the rest, and resamples only what is rejected ([`Drafts`]); `"stale"` and `"joint"` keep the stage's first
    rollouts; `"importance"` keeps and weights them. An update that was reverted, or made no step, has changed no
    distribution: then only `"full"` generates anything.

    Args:
        turn_loop ([`TurnLoop`]): The team's.
        mode (`str`): One of `RESAMPLINGS`.
        every (`int`): With `"full"`: number of updates per rollout.
        importance_clip (`float`, *optional*): With `"importance"`: largest weight.
        batch_size (`int`): Rows per forward pass that scores rollouts.
        log (`Callable[[str, float], None]`): Logs a metric.
        group (`int`, *optional*, defaults to `1`): Number of rows of an update's batch that belong to each rollout, which is
            the first of them: with groups by turn, the trunk and its branches.

    Attributes:
        stage ([`StageRollouts`]): The rollouts of the current stage.

    Raises:
        `ValueError`: If there is no such mode.
    """

    def __init__(
        self,
        turn_loop: TurnLoop,
        mode: str,
        every: int,
        importance_clip: float | None,
        batch_size: int,
        log: Callable[[str, float], None],
        group: int = 1,
    ):
        self._turn_loop, self.mode, self._every, self._clip = turn_loop, mode, every, importance_clip
        self._batch_size, self._log, self._group = batch_size, log, group
        if mode not in ("full", *RESAMPLED, *KEPT):
            raise ValueError(f"There is no `resampling` mode {mode!r}.")
        self.start_stage()

    @property
    def needs_snapshot(self) -> bool:
        """Whether the policy before an update is needed after it."""
        return self.mode in ("speculative", "importance")

    def start_stage(self):
        """Discard the rollouts of the previous stage."""
        self.stage = StageRollouts()

    def rollouts(self, rows: list[dict[str, Any]]) -> Rollouts:
        """The rollouts of `rows` for the next update of the stage."""
        stage = self.stage
        if stage.rollouts is None or (self.mode == "full" and stage.num_served % self._every == 0):
            rollouts = self._turn_loop.run(self._turn_loop.begin(rows))
        else:
            drafts = Drafts(
                stage.rollouts,
                stage.updated,
                stage.snapshot,
                self.mode == "speculative",
                log_ratios=stage.log_ratios,
            )
            rollouts = self._turn_loop.resample(drafts)
        weights = None
        if self.mode == "importance":
            weights = stage.weights if stage.weights is not None else StageWeights(rollouts)
            self._weigh(rollouts, weights)
        kept = rollouts if self.mode != "full" or self._every > 1 else None
        self.stage = StageRollouts(kept, stage.num_served + 1, weights=weights)
        return rollouts

    def agent_was_updated(self, speaker: Speaker, report: UpdateReport, before: Snapshot | None):
        """Note that `speaker` was updated since the last rollouts; `before` is its policy before the update."""
        if report.inner_steps == 0 or report.rejected:
            return
        speaker.backend.publish(speaker.name)
        stage = self.stage
        if self.mode in RESAMPLED:
            stage.updated, stage.snapshot = speaker.name, before
            stage.log_ratios = None if report.log_ratios is None else report.log_ratios[:: self._group]
        if stage.weights is not None and stage.rollouts is not None and before is not None:
            stage.weights.add(speaker.name, ScoredView(speaker, stage.rollouts, before, self._batch_size))

    def _weigh(self, rollouts: Rollouts, weights: StageWeights):
        rollouts.weights = importance_weights(weights.log_ratios, self._clip)
        unclipped = gather_object(importance_weights(weights.log_ratios, None).tolist())
        for name, value in occupancy_metrics(torch.tensor(unclipped, dtype=torch.float64)).items():
            if name != "tv":
                self._log(f"importance/{name}", value)
