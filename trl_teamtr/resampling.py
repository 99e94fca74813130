"""Whose rollouts each update of a stage is made on: wholly fresh, resampled from where they changed, or stale."""

import dataclasses
import json
import os
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import DistributedType, gather_object
from safetensors.torch import load_file, save_file

from .drafts import Drafts
from .importance import importance_weights
from .occupancy import occupancy_metrics
from .rollout import Rollouts, collect_rollouts, replay
from .snapshot import Snapshot
from .stage_weights import ScoredView, StageWeights
from .transcript import Message, Transcript
from .trust_region import UpdateReport


if TYPE_CHECKING:
    from .agent_trainer import AgentTrainer
    from .teamtr_trainer import TeamTRTrainer


# Modes that write only what an update has changed
RESAMPLED = ("suffix", "speculative")


class Resampler:
    """
    Provides the rollouts of each update of a stage in one of the modes of `resampling`. A stage begins with fresh ones.

    After an update, `"full"` writes all rollouts anew (with `resample_every`, only after every so many updates);
    `"suffix"` keeps what was said before the updated agent's first turn and decodes on from there; `"speculative"` also
    verifies what follows, and draws anew only where the updated team would have said something else ([`Drafts`]);
    `"stale"` and `"joint"` keep the stage's first rollouts; `"importance"` keeps and weights them. An update that was
    undone, or made no step, has changed no law: then only `"full"` writes anything.

    Args:
        trainer (`TeamTRTrainer`): The trainer of the team.
        mode (`str`): One of `RESAMPLINGS`.
    """

    def __init__(self, trainer: "TeamTRTrainer", mode: str):
        self._trainer = trainer
        self.mode = mode
        self._every = trainer.args.resample_every
        self.start_stage()

    @property
    def needs_snapshot(self) -> bool:
        """Whether the policy before an update is needed after it."""
        return self.mode in ("speculative", "importance")

    def start_stage(self):
        """Forget the rollouts of the stage before."""
        self._rollouts: Rollouts | None = None
        self._num_served = 0  # updates of this stage
        self._updated: str | None = None  # since these rollouts
        self._snapshot: Snapshot | None = None  # its policy before the update
        self._weights: StageWeights | None = None

    def rollouts(self, rows: list[dict[str, Any]]) -> Rollouts:
        """The rollouts of `rows` for the next update of the stage."""
        trainer = self._trainer
        if self._rollouts is None or (self.mode == "full" and self._num_served % self._every == 0):
            rollouts = trainer.collect_rollouts(rows)
        else:
            drafts = Drafts(self._rollouts, self._updated, self._snapshot, self.mode == "speculative")
            rollouts = resample(trainer, drafts)
        if self.mode == "importance":
            self._weigh(rollouts)
        self._num_served += 1
        self._rollouts = rollouts if self.mode != "full" or self._every > 1 else None
        self._updated, self._snapshot = None, None
        return rollouts

    def agent_was_updated(self, agent: "AgentTrainer", report: UpdateReport):
        """Note whose law has changed since the last rollouts."""
        if report.inner_steps > 0 and not report.rejected:
            if self.mode in RESAMPLED:
                self._updated, self._snapshot = agent.name, agent.before_update
            if self.mode == "importance":
                self._weights.add(agent, ScoredView(agent, self._rollouts, agent.before_update))
        agent.before_update = None

    def _weigh(self, rollouts: Rollouts):
        if self._weights is None:
            self._weights = StageWeights(rollouts)
        trainer, log_ratios = self._trainer, self._weights.log_ratios
        rollouts.weights = importance_weights(log_ratios, trainer.args.importance_clip)
        unclipped = gather_object(importance_weights(log_ratios, None).tolist())
        for name, value in occupancy_metrics(torch.tensor(unclipped, dtype=torch.float64)).items():
            if name != "tv":
                trainer._metrics["train"][f"importance/{name}"].append(value)

    def save(self, folder: str):
        """Write what the next update of the stage needs, if it is not the first one."""
        trainer = self._trainer
        if self._rollouts is None or trainer.state.global_step % len(trainer.trained_members) == 0:
            return
        transcripts = gather_object([dataclasses.asdict(transcript) for transcript in self._rollouts.transcripts])
        full = gather_object([row in self._rollouts.full for row in range(len(self._rollouts.transcripts))])
        log_ratios = gather_object(self._weights.log_ratios.tolist()) if self._weights is not None else None
        if trainer.args.should_save:
            state = {"updated": self._updated, "transcripts": transcripts, "full": full}
            state["log_ratios"] = log_ratios
            with open(os.path.join(folder, "rollouts.json"), "w", encoding="utf-8") as file:
                json.dump(state, file)
        if self._snapshot is not None and (self._is_partitioned or trainer.args.should_save):
            tensors = {str(i): tensor.cpu().contiguous() for i, tensor in enumerate(self._snapshot.weights)}
            save_file(tensors, self._snapshot_path(folder))

    def load(self, folder: str):
        """Read back what [`~Resampler.save`] wrote in a checkpoint in the middle of a stage."""
        path, trainer = os.path.join(folder, "rollouts.json"), self._trainer
        if not os.path.isfile(path):
            return
        with open(path, encoding="utf-8") as file:
            state = json.load(file)
        count = len(state["transcripts"]) // trainer.accelerator.num_processes
        first = trainer.accelerator.process_index * count
        transcripts = [_from_dict(entry) for entry in state["transcripts"][first : first + count]]
        self._rollouts, self._updated = replay(transcripts, trainer.members), state["updated"]
        self._num_served = trainer.state.global_step % len(trainer.trained_members)
        self._rollouts.full = {row for row in range(count) if state["full"][first + row]}
        if state["log_ratios"] is not None:
            self._weights = StageWeights(self._rollouts)
            for row, values in zip(self._weights.log_ratios, state["log_ratios"][first : first + count], strict=True):
                # Each process had as many columns as its longest rollout has messages
                width = min(len(row), len(values))
                row[:width] = torch.tensor(values[:width], dtype=torch.float64)
        if os.path.isfile(self._snapshot_path(folder)):
            (agent,) = [member for member in trainer.members if member.name == self._updated]
            tensors = load_file(self._snapshot_path(folder))
            weights = [tensors[str(i)].to(trainer.args.device) for i in range(len(tensors))]
            self._snapshot = Snapshot(agent.engine, with_optimizer=False, weights=weights)

    @property
    def _is_partitioned(self) -> bool:
        return self._trainer.accelerator.distributed_type == DistributedType.DEEPSPEED

    def _snapshot_path(self, folder: str) -> str:
        rank = self._trainer.accelerator.process_index if self._is_partitioned else 0
        return os.path.join(folder, f"before_update_{rank}.safetensors")


def resample(trainer: "TeamTRTrainer", drafts: Drafts) -> Rollouts:
    """The rollouts of `drafts` as the present team writes them: what may stay stays."""
    empty = [dataclasses.replace(transcript, messages=[]) for transcript in drafts.rollouts.transcripts]
    return collect_rollouts(empty, trainer.members, trainer.rules, trainer.accelerator, drafts)


def _from_dict(entry: dict[str, Any]) -> Transcript:
    messages = [Message(**{**message, "ids": tuple(message["ids"])}) for message in entry["messages"]]
    return Transcript(**{**entry, "agents": tuple(entry["agents"]), "messages": messages})
