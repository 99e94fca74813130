"""What a resumed run needs from the interrupted one beside the agents: its shape, and metrics not logged yet."""

import json
import os
import time
from collections.abc import Sequence
from typing import Any, Protocol

import torch

from .stage_state import ROLLOUTS


RUN_STATE = "teamtr_run.json"

DEEPSPEED = "DistributedType.DEEPSPEED"


class Run(Protocol):
    """What a checkpoint needs of the lead of a team: attributes of `Trainer` and `GRPOTrainer`."""

    args: Any
    state: Any
    control: Any
    accelerator: Any
    callback_handler: Any
    _metrics: dict[str, Any]
    _tr_loss: Any
    _total_loss_scalar: float
    _globalstep_last_logged: int
    _initial_num_input_tokens_seen: int
    _initial_global_step: int
    _start_time: float

    def _save_rng_state(self, output_dir: str) -> None: ...


def begin(trainer: Run, checkpoint: str | None) -> float:
    """
    Set the counters between two logs to 0 or, after a resume, to their saved values. Returns the run's start time.

    A resumed run continues the counters, so that its logs are those of an uninterrupted run: the loss and the speed in
    the last log are of the whole run, without the time between a stop and its resume.
    """
    trainer._tr_loss, trainer._total_loss_scalar = torch.tensor(0.0, device=trainer.args.device), 0.0
    trainer._initial_num_input_tokens_seen = trainer.state.num_input_tokens_seen
    trainer._initial_global_step = trainer._globalstep_last_logged = trainer.state.global_step
    trainer._start_time = time.time()
    saved = read(checkpoint) if checkpoint is not None else None
    if saved is not None:
        trainer._metrics["train"].clear()
        trainer._metrics["train"].update(saved["metrics"])
        trainer._tr_loss += saved["tr_loss"]
        trainer._total_loss_scalar = saved["total_loss"]
        trainer._globalstep_last_logged = saved["last_logged"]
        trainer._initial_num_input_tokens_seen = saved["initial_tokens"]
        trainer._initial_global_step = saved["initial_step"]
        trainer._start_time -= saved["seconds"]
    return trainer._start_time


def write(trainer: Run, trained: Sequence[str], folder: str):
    """Save what [`begin`] and [`check`] read."""
    state = {
        "num_processes": trainer.accelerator.num_processes,
        "distributed_type": str(trainer.accelerator.distributed_type),
        "generation_batch_size": trainer.args.generation_batch_size,
        "num_generations": trainer.args.num_generations,
        "advantage_group": trainer.args.advantage_group,
        "trained": list(trained),
        "metrics": {key: [float(value) for value in values] for key, values in trainer._metrics["train"].items()},
        "tr_loss": trainer._tr_loss.item(),
        "total_loss": trainer._total_loss_scalar,
        "last_logged": trainer._globalstep_last_logged,
        "initial_tokens": trainer._initial_num_input_tokens_seen,
        "initial_step": trainer._initial_global_step,
        "seconds": time.time() - trainer._start_time,
    }
    with open(os.path.join(folder, RUN_STATE), "w", encoding="utf-8") as file:
        json.dump(state, file)


def read(folder: str) -> dict[str, Any] | None:
    """Load what [`write`] saved; `None` for a checkpoint of an older version."""
    path = os.path.join(folder, RUN_STATE)
    if not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def check(trainer: Run, trained: Sequence[str], folder: str):
    """
    Raise unless `trainer`, which trains the agents `trained`, can resume from the checkpoint `folder`.

    Raises:
        `ValueError`: If other agents are trained, a stage has another number of prompts, its rollouts are of other groups,
            or DeepSpeed's partitions are for other processes.
    """
    saved = read(folder)
    if saved is not None:
        _check_trained(list(trained), folder, saved)
        _check_batch(trainer, folder, saved)
        _check_groups(trainer, folder, saved)
        _check_engine(trainer, folder, saved)


def _check_trained(here: list[str], folder: str, saved: dict[str, Any]):
    there = saved.get("trained", here)  # older checkpoints do not say
    if there != here:
        raise ValueError(
            f"In {folder!r} the trained agents are {', '.join(there)}, but in this run {', '.join(here)}: stages are counted "
            f"in updates of these. Set `trainable` as it was, or start a new run from the saved weights: `model={folder!r}`."
        )


def _check_batch(trainer: Run, folder: str, saved: dict[str, Any]):
    args, processes = trainer.args, trainer.accelerator.num_processes
    batch, group = saved["generation_batch_size"], saved["num_generations"]
    if (args.generation_batch_size, args.num_generations) == (batch, group):
        return
    advice = f"Set `num_generations={group}`"
    if args.generation_batch_size != batch and batch % processes:
        advice = f"Use a number of processes that divides {batch}; it is {processes}"
    elif args.generation_batch_size != batch:
        advice = (
            f"On {processes} process(es), `per_device_train_batch_size` times `steps_per_generation` must be "
            f"{batch // processes}; they are {args.per_device_train_batch_size} and {args.steps_per_generation}"
        )
    raise ValueError(
        f"{folder!r} was saved with `generation_batch_size={batch}` and `num_generations={group}`, but this run has "
        f"{args.generation_batch_size} and {args.num_generations}. The place in the dataset is counted in stages of "
        f"that size. {advice}, or start a new run from the saved weights: `model={folder!r}`."
    )


def _check_groups(trainer: Run, folder: str, saved: dict[str, Any]):
    there, here = saved.get("advantage_group", "rollout"), trainer.args.advantage_group  # older checkpoints do not say
    if there != here and os.path.isfile(os.path.join(folder, ROLLOUTS)):
        raise ValueError(
            f"{folder!r} was saved in the middle of a stage, whose rollouts are for `advantage_group={there!r}`, and this run has "
            f"{here!r}. Set it as it was, resume from a checkpoint at a stage's end, or start a new run from the saved weights: "
            f"`model={folder!r}`."
        )


def _check_engine(trainer: Run, folder: str, saved: dict[str, Any]):
    there = (saved["distributed_type"], saved["num_processes"])
    here = (str(trainer.accelerator.distributed_type), trainer.accelerator.num_processes)
    if there == here or DEEPSPEED not in (there[0], here[0]):
        return
    fresh = f"start a new run from the saved weights: `model={folder!r}`"
    if there[0] != DEEPSPEED:
        raise ValueError(
            f"{folder!r} was saved without DeepSpeed ({there[0]}), and DeepSpeed cannot load its optimizers. Resume "
            f"without DeepSpeed, or {fresh}."
        )
    raise ValueError(
        f"{folder!r} was saved under DeepSpeed, whose ZeRO checkpoints are partitioned for {there[1]} process(es); this "
        f"run has {here[1]} ({here[0]}). Resume under DeepSpeed with {there[1]}, or {fresh}."
    )
