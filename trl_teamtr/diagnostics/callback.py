"""The effect of an update on the rest of its stage, measured during training without changing it."""

import contextlib
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from accelerate.utils import gather_object, set_seed
from transformers import TrainerCallback

from ..policy.evaluating import evaluating
from ..rollouts.rollouts import Rollouts
from ..rollouts.stage_weights import ScoredView
from ..trust_region.snapshot import Snapshot
from .watched import Member, Watched


@dataclass
class MeasuredUpdate:
    """
    The update that was just made, and the data that the probes share.

    Args:
        agent ([`Member`]): The agent that was updated, with its new weights.
        snapshot (`Snapshot`): Its policy before the update.
        position (`int`): Number of the update in its stage, from 0.
        rows (`list[dict]`): The stage's prompts, of this process.
        first (`Rollouts`, *optional*): At a stage's first update, if a probe needs them: rollouts of the team at the
            start of the stage, of the same rows. No update was trained on them.
        fresh (`Rollouts`): Independent rollouts of the team before the update, of the same rows.
        fresh_returns (`torch.Tensor` of shape `(rows of all processes,)`): Their returns.
        scored (`ScoredView`): The agent's view of `fresh`, before and after the update.
        tokens_decoded (`int`): Number of tokens sampled for the measurement, on this process; the probes add theirs.
    """

    agent: Member
    snapshot: Snapshot
    position: int
    rows: list[dict[str, Any]]
    first: Rollouts | None
    fresh: Rollouts
    fresh_returns: torch.Tensor
    scored: ScoredView
    tokens_decoded: int

    def own(self, values: torch.Tensor) -> torch.Tensor:
        """This process's part of values for the rows of all processes."""
        first = self.agent.speaker.policy.accelerator.process_index * len(self.rows)
        return values[first : first + len(self.rows)]


class Probe(Protocol):
    """
    Measures one property of each update of a stage, in their order.

    Attributes:
        needs_first (`bool`): Whether it compares with rollouts of the team at the start of the stage.
    """

    needs_first: bool

    def start_stage(self) -> None: ...

    def measure(self, update: MeasuredUpdate) -> dict[str, float]: ...


class DiagnosticsCallback(TrainerCallback):
    """
    Lets `probes` measure each update of every `diagnostics_every`-th stage, and logs the results.

    For each update the team before it generates fresh rollouts of the stage's prompts, at the stage's first update
    twice, so that nothing is measured on rollouts that an update was trained on. The cost is logged as
    `diagnostics/seconds` and `diagnostics/tokens_decoded`. Training is bit-identical with and without it. If a run is
    resumed in the middle of a stage, the rest of that stage is not measured.

    Args:
        trainer ([`Watched`]): The trainer to add it to.
        probes (`list[Probe]`): The measurements.
    """

    def __init__(self, trainer: Watched, probes: list[Probe]):
        self._trainer = trainer
        self._probes = probes
        self._measuring = False  # whether the stage in progress is measured, set at its first update
        self._snapshot: Snapshot | None = None

    def is_measured(self, stage: int) -> bool:
        """Whether the updates of a stage, counted from 0, are measured."""
        return stage % self._trainer.args.diagnostics_every == 0

    def on_step_begin(self, args, state, control, **kwargs):
        stage, position = divmod(state.global_step, len(self._trainer.trained_members))
        if position == 0:
            self._measuring = self.is_measured(stage)
            for probe in self._probes:
                probe.start_stage()
        if self._measuring:
            # Kept until the update ends: `TrainerCallback` passes nothing from one event to another
            self._snapshot = Snapshot(self._trainer.active.agent.engine, with_optimizer=False)

    def on_step_end(self, args, state, control, **kwargs):
        if self._snapshot is None:
            return
        trainer, begin = self._trainer, time.perf_counter()
        snapshot, self._snapshot = self._snapshot, None
        with evaluating([speaker.policy.model for speaker in trainer.team.local_speakers]), own_randomness(trainer):
            update = self._look_at_update(snapshot)
            for probe in self._probes:
                for name, value in probe.measure(update).items():
                    trainer.log_metric(name, value)
        trainer.log_metric("diagnostics/tokens_decoded", sum(gather_object([update.tokens_decoded])))
        trainer.log_metric("diagnostics/seconds", time.perf_counter() - begin)

    def _look_at_update(self, snapshot: Snapshot) -> MeasuredUpdate:
        trainer = self._trainer
        agent, rows = trainer.active.agent, trainer.active.rows
        position = (trainer.state.global_step - 1) % len(trainer.trained_members)
        needs_first = position == 0 and any(probe.needs_first for probe in self._probes)
        with snapshot.current_policy():
            first = trainer.team.collect(rows) if needs_first else None
            fresh = trainer.team.collect(rows)
        return MeasuredUpdate(
            agent=agent,
            snapshot=snapshot,
            position=position,
            rows=rows,
            first=first,
            fresh=fresh,
            fresh_returns=trainer.compute_returns(rows, fresh.transcripts),
            scored=ScoredView(agent.speaker, fresh, snapshot, agent.args.per_device_train_batch_size),
            tokens_decoded=fresh.tokens_decoded + (first.tokens_decoded if first is not None else 0),
        )


@contextlib.contextmanager
def own_randomness(trainer: Watched) -> Iterator[None]:
    """Random states of its own, fixed by the seed and the update. Afterwards the previous states are restored."""
    device = trainer.args.device
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        key = f"{trainer.args.seed}/{trainer.state.global_step}/{trainer.team.accelerator.process_index}"
        set_seed(random.Random(key).getrandbits(32))
        yield
    random.setstate(states[0])
    np.random.set_state(states[1])
