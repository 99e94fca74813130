"""The rollouts of a stage, in a checkpoint that is saved in the middle of it."""

import dataclasses
import json
import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object
from safetensors.torch import load_file, save_file

from ..conversation.transcript import Message, ToolCall, ToolUse, Transcript
from ..rollouts.acting import Acting
from ..rollouts.resampling import StageRollouts
from ..rollouts.rollouts import replay
from ..rollouts.stage_weights import StageWeights
from ..rollouts.turn_loop import TurnLoop
from ..tools.worlds import NEVER, REPLAY, SNAPSHOT
from ..trust_region.snapshot import Snapshot


ROLLOUTS = "rollouts.json"


def save_stage(stage: StageRollouts, folder: str, accelerator: Accelerator, should_save: bool):
    """
    Save what the next update of a stage needs.

    Args:
        stage ([`StageRollouts`]): The stage.
        folder (`str`): The checkpoint.
        accelerator ([`~accelerate.Accelerator`]): All processes call this together.
        should_save (`bool`): Whether this process writes what is the same on all.
    """
    if stage.rollouts is None:
        return
    transcripts = gather_object([_as_dict(transcript) for transcript in stage.rollouts.transcripts])
    full = gather_object([stage.rollouts.full.get(row) for row in range(len(stage.rollouts.transcripts))])
    log_ratios = gather_object(stage.weights.log_ratios.tolist()) if stage.weights is not None else None
    of_update = gather_object(stage.log_ratios.tolist()) if stage.log_ratios is not None else None
    if should_save:
        state = {"updated": stage.updated, "transcripts": transcripts, "full": full, "log_ratios": log_ratios}
        state["log_ratios_of_update"] = of_update
        with open(os.path.join(folder, ROLLOUTS), "w", encoding="utf-8") as file:
            json.dump(state, file)
    if stage.snapshot is not None and (_is_partitioned(accelerator) or should_save):
        tensors = {str(i): tensor.cpu().contiguous() for i, tensor in enumerate(stage.snapshot.weights)}
        save_file(tensors, _snapshot_path(folder, accelerator))


def load_stage(
    folder: str, turn_loop: TurnLoop, num_served: int, restore: Callable[[str, list[torch.Tensor]], Snapshot]
) -> StageRollouts:
    """
    Load what [`save_stage`] saved; an empty stage for a checkpoint at a stage's end.

    Args:
        folder (`str`): The checkpoint. If the environments of its rollouts cannot be had again, the stage goes on with fresh ones.
        turn_loop ([`TurnLoop`]): The team's.
        num_served (`int`): Number of updates of the stage made before the checkpoint.
        restore (`Callable[[str, list[torch.Tensor]], Snapshot]`): Makes the snapshot of an agent from its weights.
    """
    path, accelerator = os.path.join(folder, ROLLOUTS), turn_loop.accelerator
    if not os.path.isfile(path):
        return StageRollouts()
    with open(path, encoding="utf-8") as file:
        state = json.load(file)
    count = len(state["transcripts"]) // accelerator.num_processes
    own = slice(accelerator.process_index * count, (accelerator.process_index + 1) * count)
    entries = state["transcripts"][own]
    transcripts = [_from_dict(entry) for entry in entries]
    if not _reopen(transcripts, entries, turn_loop.acting, folder):
        return StageRollouts()
    rollouts = replay(transcripts, turn_loop.speakers)
    rollouts.full = {row: str(name) for row, name in enumerate(state["full"][own]) if name}
    stage = StageRollouts(rollouts, num_served, state["updated"])
    if state.get("log_ratios_of_update") is not None:  # older checkpoints have none
        stage.log_ratios = torch.tensor(state["log_ratios_of_update"][own], device=accelerator.device)
    if state["log_ratios"] is not None:
        stage.weights = StageWeights(rollouts)
        for row, values in zip(stage.weights.log_ratios, state["log_ratios"][own], strict=True):
            # Each process had as many columns as its longest rollout has messages
            width = min(len(row), len(values))
            row[:width] = torch.tensor(values[:width], dtype=torch.float64)
    if os.path.isfile(_snapshot_path(folder, accelerator)):
        tensors = load_file(_snapshot_path(folder, accelerator))
        weights = [tensors[str(i)].to(accelerator.device) for i in range(len(tensors))]
        stage.snapshot = restore(state["updated"], weights)
    return stage


def _is_partitioned(accelerator: Accelerator) -> bool:
    return accelerator.distributed_type == DistributedType.DEEPSPEED


def _snapshot_path(folder: str, accelerator: Accelerator) -> str:
    rank = accelerator.process_index if _is_partitioned(accelerator) else 0
    return os.path.join(folder, f"before_update_{rank}.safetensors")


def _as_tuple(values: list[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values)


def _as_dict(transcript: Transcript) -> dict[str, Any]:
    entry = dataclasses.asdict(dataclasses.replace(transcript, world=None))
    entry["world"] = None if transcript.world is None else transcript.world.describe()
    return entry


def _from_dict(entry: dict[str, Any]) -> Transcript:
    messages = [_message_from_dict(message) for message in entry["messages"]]
    return Transcript(**{**entry, "agents": tuple(entry["agents"]), "messages": messages, "world": None})


def _message_from_dict(entry: dict[str, Any]) -> Message:
    uses = [
        ToolUse(
            **{
                **use,
                "calls": tuple(ToolCall(**call) for call in use["calls"]),
                "results": tuple(use["results"]),
                "failed": tuple(use["failed"]),
            }
        )
        for use in entry.get("tool_uses", [])  # older checkpoints have none
    ]
    own = {"ids": tuple(entry["ids"]), "logps": _as_tuple(entry.get("logps")), "tool_uses": tuple(uses)}
    return Message(**{**entry, **own})


def _reopen(transcripts: list[Transcript], entries: list[dict[str, Any]], acting: Acting, folder: str) -> bool:
    """Bring the environments of `transcripts` into the states that they had; `False` if that cannot be done."""
    environments = acting.environments
    if environments is None:
        return True
    if environments.kind in (SNAPSHOT, NEVER):
        warnings.warn(
            f"The checkpoint {folder} was saved in the middle of a stage, and the environments of its rollouts cannot be made again: "
            "they are not `deterministic`. The rest of the stage is made on fresh rollouts, so that the resumed run is another one.",
            stacklevel=3,
        )
        return False
    for transcript, entry in zip(transcripts, entries, strict=True):
        transcript.world = environments.reopen(entry["world"])
        if environments.kind == REPLAY:
            acting.reach(transcript)
    return True
