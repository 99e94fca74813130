"""The file that describes the agents of a saved team, and how they take turns."""

import dataclasses
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers.trainer import TRAINING_ARGS_NAME

from ..conversation.rules import TurnTaking
from ..teamtr_config import TeamTRConfig
from .agent import Agent
from .settings import CONFIG_FIELDS, SamplingSettings, SpeakingSettings


TEAM_FILE = "team.json"
ARGS_FILE = "training_args.json"  # the config of the run that saved the team

# Fields of an agent in `team.json`. `trust_remote_code` is not saved: it must be set again when a team is loaded.
SAVED_FIELDS: tuple[str, ...] = ("name", "system_prompt", "trainable", "learning_rate", "trust_region_radius")
SAVED_FIELDS += ("generation_kwargs", "chat_template_kwargs")


def own_folder(path: str, name: str, team_size: int) -> str:
    """
    Where a team that is saved in `path` puts agent `name`: in a folder of its own or, if it is alone, in `path` itself, as
    [`~trl.GRPOTrainer`] does.
    """
    return path if team_size == 1 else os.path.join(path, name)


def folder_of(path: str, name: str) -> str:
    """Where the team that was saved in `path` has agent `name`. A team of one of an older version has it in a folder."""
    entries = {entry["name"]: entry for entry in read_team_file(path)["agents"]}
    return path if entries[name].get("folder") == "." else os.path.join(path, name)


def describe_team(agents: Sequence[Agent], turns: TurnTaking) -> dict[str, Any]:
    """The content of `team.json`."""
    place = {"folder": "."} if len(agents) == 1 else {}
    return {
        "format": 1,
        "agents": [{field: getattr(agent, field) for field in SAVED_FIELDS} | place for agent in agents],
        "rollout": dataclasses.asdict(turns),
    }


def write_team_files(folder: str, agents: Sequence[Agent], args: TeamTRConfig):
    """
    Write `team.json` and `training_args.json`, each atomically. The latter replaces the `training_args.bin` that
    `Trainer` pickles beside each agent: loading a pickle runs code, and it contains tokens in plain text.
    """
    os.makedirs(folder, exist_ok=True)
    for agent in agents:
        Path(own_folder(folder, agent.name, len(agents)), TRAINING_ARGS_NAME).unlink(missing_ok=True)
    for name, content in ((TEAM_FILE, describe_team(agents, TurnTaking.of(args))), (ARGS_FILE, args.to_dict())):
        path = os.path.join(folder, name)
        with open(f"{path}.tmp", "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2, default=str)  # e.g. a dtype among `model_init_kwargs`
        os.replace(f"{path}.tmp", path)


def read_team_file(path: str) -> dict[str, Any]:
    """The content of the `team.json` in directory `path`."""
    with open(os.path.join(path, TEAM_FILE), encoding="utf-8") as file:
        return json.load(file)


def load_team(path: str) -> list[Agent]:
    """
    The agents of a saved team, ready to be evaluated or trained further: `TeamTRTrainer(load_team("run"), ...)`.

    Args:
        path (`str`): Directory that [`~TeamTRTrainer.save_model`] wrote.

    Raises:
        `FileNotFoundError`: If there is no team in `path`.
    """
    if not os.path.isfile(os.path.join(path, TEAM_FILE)):
        raise FileNotFoundError(f"There is no {TEAM_FILE} in {path!r}. Pass the directory that `save_model` wrote.")
    agents = []
    for entry in read_team_file(path)["agents"]:
        # The file must not decide whether remote code is run
        fields = {field: entry[field] for field in SAVED_FIELDS if field in entry}
        agents.append(Agent(model=folder_of(path, entry["name"]), **fields))
    return agents


def read_speaking_settings(path: str) -> SpeakingSettings:
    """How the team saved in `path` sampled and read, from the config saved with it; defaults if there is none."""
    file_path = os.path.join(path, ARGS_FILE)
    if not os.path.isfile(file_path):
        return SpeakingSettings()
    with open(file_path, encoding="utf-8") as file:
        args = json.load(file)
    names = (*CONFIG_FIELDS, "generation_kwargs", "cache_implementation")
    sampling = SamplingSettings(**{name: args[name] for name in names if name in args})
    reading = ("chat_template_kwargs", "max_context_length", "template_date")
    return SpeakingSettings(sampling, **{name: args[name] for name in reading if name in args})


def check_same_team(path: str, agents: Sequence[Agent]):
    """
    Raise if `path` contains a team other than `agents`.

    Raises:
        `ValueError`: If the names or their order differ. The message lists both.
    """
    if not os.path.isfile(os.path.join(path, TEAM_FILE)):
        return
    there, here = [entry["name"] for entry in read_team_file(path)["agents"]], [agent.name for agent in agents]
    if there != here:
        raise ValueError(
            f"{path!r} holds another team: its agents are {', '.join(there)}; this team's are {', '.join(here)}. "
            "Choose another `output_dir` (or checkpoint), or remove the old one."
        )


def warn_of_other_turns(path: str, turns: TurnTaking):
    """Warn if a saved team will take turns by `turns` and was trained otherwise."""
    saved, now = read_team_file(path)["rollout"], dataclasses.asdict(turns)
    other = [f"{name}={value!r} (now {now[name]!r})" for name, value in saved.items() if now[name] != value]
    if other:
        warnings.warn(
            f"The team in {path!r} was saved with {', '.join(other)}. Pass the same to `TeamTRConfig` to let it take "
            "turns as before.",
            stacklevel=4,
        )
