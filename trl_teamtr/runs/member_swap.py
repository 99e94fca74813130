"""A checkpoint in which another member takes the place of one: the others keep their optimizers, and it starts anew."""

import json
import os
import re
import shutil
from typing import Any

from accelerate import Accelerator
from transformers.trainer import TRAINER_STATE_NAME

from ..agents.agent import Agent
from ..agents.agent_folders import MODEL_FILES
from ..agents.gathering import gather_weights
from ..agents.history import REPLACED
from ..agents.saving import save_agents
from ..agents.team_file import TEAM_FILE, describe_team, folder_of, read_team_file
from ..conversation.rules import TurnTaking
from .checkpoint_files import put_in_place
from .manifest import write_manifest
from .member_state import MEMBER_STATE
from .run_state import RUN_STATE


# What a member has in its folder of the training so far: optimizer, schedule, scaler, those of DeepSpeed
_OF_TRAINING = re.compile(
    r"optimizer.*|scheduler.*|scaler.*|teamtr_state\.json|trainer_state\.json|global_step\d+|latest|zero_to_fp32\.py"
)
# In a team of one, what at its folder's root is not the member's, but the run's
_OF_RUN = (TRAINER_STATE_NAME, "zero_to_fp32.py")


def is_checkpoint(folder: str) -> bool:
    """Whether `folder` is a checkpoint of a run, and not only a saved team."""
    return os.path.isfile(os.path.join(folder, RUN_STATE))


def updates_of(checkpoint: str) -> int:
    """The number of updates before a checkpoint."""
    with open(os.path.join(checkpoint, TRAINER_STATE_NAME), encoding="utf-8") as file:
        return json.load(file)["global_step"]


def check_between_stages(step: int, trained: int, where: str):
    """
    Raise `ValueError` unless `step` updates, of `trained` members in each stage, are whole stages, and at least one.

    Args:
        step (`int`): Number of updates so far.
        trained (`int`): Number of members that are updated in a stage.
        where (`str`): The run or the checkpoint, for the message.
    """
    if step == 0:
        raise ValueError(f"{where} has no updates yet. Pass the new member to the trainer instead: `model=[...]`.")
    if step % trained:
        raise ValueError(
            f"{where} is within a stage, after {step % trained} of its {trained} updates, and members are replaced between stages. "
            f"Take a checkpoint after a multiple of {trained} updates: `save_steps={trained}`."
        )


def swap_in_checkpoint(
    checkpoint: str,
    final: str,
    agent: Agent,
    accelerator: Accelerator,
    aligned: bool | None = None,
    event: dict[str, Any] | None = None,
):
    """
    Write, as `final`, the checkpoint of a run in which `agent` has the place of the member of its name. `final` may be the
    checkpoint itself; it is whole at any time.

    Args:
        checkpoint (`str`): Between two stages.
        final (`str`): The new checkpoint.
        agent ([`Agent`]): The new member, with its model, which ZeRO-3 may have partitioned, and tokenizer.
        accelerator ([`~accelerate.Accelerator`]): All processes call this together.
        aligned (`bool`, *optional*): Whether it has been aligned, if it is known.
        event (`dict`, *optional*): What the history of the team says of it. By default from what is in the checkpoint.

    Raises:
        `ValueError`: If the checkpoint is within a stage, has weights alone, or another number of members would be trained.
    """
    folder = os.path.join(os.path.dirname(os.path.abspath(final)), f"tmp-{os.path.basename(os.path.abspath(final))}")
    step = _check(checkpoint, agent)
    model: Any = agent.model  # loaded, and no path
    weights = gather_weights(model, accelerator)
    if accelerator.is_main_process:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(checkpoint, folder)
        _write(folder, agent, weights, step, aligned, event)
    accelerator.wait_for_everyone()
    write_manifest(folder, accelerator)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        put_in_place(folder, final)
    accelerator.wait_for_everyone()


def _check(checkpoint: str, agent: Agent) -> int:
    """The number of updates before a checkpoint, in which `agent` can take the place of the member of its name."""
    names, step = [entry["name"] for entry in read_team_file(checkpoint)["agents"]], updates_of(checkpoint)
    if agent.name not in names:
        raise ValueError(f"{checkpoint!r} has no member {agent.name!r}. Its members are {', '.join(names)}.")
    with open(os.path.join(checkpoint, RUN_STATE), encoding="utf-8") as file:
        trained = json.load(file)["trained"]
    check_between_stages(step, len(trained), f"The checkpoint {checkpoint!r}")
    if (agent.name in trained) != agent.trainable:
        raise ValueError(
            f"Member {agent.name!r} is {'' if agent.name in trained else 'not '}trained in {checkpoint!r}, and stages are counted in "
            f"updates of those that are. Set `trainable={agent.name in trained}`, or start a new run from the saved team."
        )
    folder = folder_of(checkpoint, agent.name)
    if agent.trainable and not any(name.startswith(("optimizer", "global_step")) for name in os.listdir(folder)):
        raise ValueError(
            f"{checkpoint!r} has weights alone (`save_only_model=True`), so that the others' optimizers are lost. Start a new run from "
            "the saved team instead."
        )
    return step


def _write(
    folder: str,
    agent: Agent,
    weights: dict[str, Any] | None,
    step: int,
    aligned: bool | None,
    event: dict[str, Any] | None,
):
    """Let `agent` have the place of the member of its name in the copy of a checkpoint in `folder`."""
    content = read_team_file(folder)
    own, alone = folder_of(folder, agent.name), len(content["agents"]) == 1
    _forget_training(own, alone)
    save_agents(folder, [(agent, agent.model)], len(content["agents"]), weights={agent.name: weights})
    if agent.trainable:
        with open(os.path.join(own, MEMBER_STATE), "w", encoding="utf-8") as file:
            json.dump({"joined": step}, file)
    (entry,) = describe_team([agent], TurnTaking(), models={agent.name: agent.model})["agents"]
    entry = {key: value for key, value in entry.items() if key != "folder"} | ({"folder": "."} if alone else {})
    (old,) = [other for other in content["agents"] if other["name"] == agent.name]
    if event is None:
        before, after = ((each.get("base_model") or {}).get("id") or "a model" for each in (old, entry))
        event = {"event": REPLACED, "member": agent.name, "before": before, "after": after, "aligned": aligned}
    agents = [entry if other is old else other for other in content["agents"]]
    history = [*content.get("history", []), event | {"step": step}]
    with open(os.path.join(folder, TEAM_FILE), "w", encoding="utf-8") as file:
        json.dump(content | {"agents": agents, "history": history}, file, indent=2, default=str)


def _forget_training(folder: str, alone: bool):
    """Remove the member's model and all that its training has left beside it."""
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if alone and name in _OF_RUN:
            continue
        if os.path.isdir(path) and _OF_TRAINING.fullmatch(name):
            shutil.rmtree(path)
        elif os.path.isfile(path) and (_OF_TRAINING.fullmatch(name) or MODEL_FILES.fullmatch(name)):
            os.remove(path)
