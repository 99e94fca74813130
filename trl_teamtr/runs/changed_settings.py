"""What a resumed run sets otherwise than the interrupted one."""

import json
import os
import warnings
from collections.abc import Sequence
from typing import Any

from ..agents.agent import Agent
from ..agents.team_file import ARGS_FILE, read_team_file


# Read from the checkpoint with the optimizers and their schedules, or with the KL controllers
OF_OPTIMIZERS = ("learning_rate", "optim", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon")
OF_CONTROLLERS = ("kl_coef",)

# Where a run is and how it is shown, which differs without any change to what is computed
_PLACES: tuple[str, ...] = ("output_dir", "logging_dir", "run_name", "resume_from_checkpoint", "local_rank")
_PLACES += ("vllm_server_base_url", "vllm_server_host", "vllm_server_port", "vllm_server_timeout", "vllm_sync_dir")
_PLACES += ("vllm_gpu_memory_utilization", "vllm_enable_sleep_mode")


def check_settings(args: Any, agents: Sequence[Agent], folder: str, tell: bool):
    """
    Warn of settings that differ from those of the checkpoint `folder`, all of which take effect.

    Args:
        args ([`TeamTRConfig`]): The config of the resumed run.
        agents (`Sequence[Agent]`): Its team.
        folder (`str`): The checkpoint.
        tell (`bool`): Whether this process warns.

    Raises:
        `ValueError`: If one differs that would have no effect, because the checkpoint restores it.
    """
    path = os.path.join(folder, ARGS_FILE)
    if not os.path.isfile(path):
        return
    with open(path, encoding="utf-8") as file:
        there = json.load(file)
    here = json.loads(json.dumps(args.to_dict(), default=str))
    changed = {
        key: f"`{key}` {there[key]!r} → {here[key]!r}"
        for key in sorted(here)
        if key not in _PLACES and key in there and here[key] != there[key]
    }
    restored = OF_CONTROLLERS if there.get("save_only_model") else OF_CONTROLLERS + OF_OPTIMIZERS
    lost = [changed[key] for key in restored if key in changed]
    own = {entry["name"]: entry.get("learning_rate") for entry in read_team_file(folder)["agents"]}
    if "learning_rate" in restored:
        lost += [
            f"`learning_rate` of agent {agent.name!r} {own[agent.name]!r} → {agent.learning_rate!r}"
            for agent in agents
            if agent.name in own and own[agent.name] != agent.learning_rate
        ]
    if lost:
        raise ValueError(
            f"{folder!r} was saved with other settings: {'; '.join(lost)}. They are restored with the optimizers and the KL "
            "controllers, so these changes would have no effect. Set them as they were, or start a new run from the saved "
            f"weights: `model={folder!r}`."
        )
    if changed and tell:
        warnings.warn(
            f"These settings differ from those that {folder!r} was saved with, and take effect from here on: "
            f"{'; '.join(changed.values())}.",
            stacklevel=2,
        )
