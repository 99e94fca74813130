"""The file that describes the agents of a saved team, and how they take turns."""

import dataclasses
import importlib.metadata
import json
import os
import platform
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from huggingface_hub import snapshot_download
from peft import PeftModel
from torch import nn
from transformers.trainer import TRAINING_ARGS_NAME
from trl.trainer.utils import get_callable_name

from ..conversation.router import RandomRouter, RoundRobinRouter
from ..conversation.rules import RolloutRules, TurnTaking
from ..options.team_options import PRECISIONS
from ..teamtr_config import TeamTRConfig
from ..tools import ToolSettings
from .agent import Agent
from .base_model import without_adapters
from .history import history_of
from .remote import REMOTE_FIELDS
from .settings import CONFIG_FIELDS, SamplingSettings, SpeakingSettings
from .team_code import describe_code, describe_tools, find_code, load_tools


TEAM_FILE = "team.json"
ARGS_FILE = "training_args.json"  # the config of the run that saved the team
FORMAT = 2  # format 1 had neither code nor how the team samples and reads, which are in the config saved with it

# Whose versions are noted in `team.json`
PACKAGES = ("trl-teamtr", "trl", "transformers", "peft", "accelerate", "torch")
# Fields of `SpeakingSettings` in `team.json`
SPEAKING = ("chat_template_kwargs", "max_context_length", "template_date", "speaking_precision")

# Fields of an agent in `team.json`. `trust_remote_code` is not saved: it must be set again when a team is loaded.
SAVED_FIELDS: tuple[str, ...] = ("name", "system_prompt", "trainable", "learning_rate", "trust_region_radius")
SAVED_FIELDS += ("generation_kwargs", "chat_template_kwargs", "thoughts", "thinking_end", "keep_thoughts")
SAVED_FIELDS += ("tool_visibility",)


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


@dataclass(frozen=True)
class SavedTeam:
    """
    A team as it was saved, before its models are loaded.

    Args:
        path (`str`): Its directory.
        agents (`list[Agent]`): The members, in team order.
        settings ([`SpeakingSettings`]): How they sample and read.
        turns ([`TurnTaking`]): How they take turns.
        conversational (`bool`, *optional*): Whether its prompts were conversations, and not text; `None` if it is not known.
        content (`dict`): The content of `team.json`.
    """

    path: str
    agents: list[Agent]
    settings: SpeakingSettings
    turns: TurnTaking
    conversational: bool | None
    content: dict[str, Any]

    def find_code(
        self, router: Any = None, stop_condition: Any = None, environment_factory: Any = None, trusted: bool = True
    ) -> dict[str, Any]:
        """Its router, stop condition and environment ([`find_code`]), those that are given first."""
        given = {"router": router, "stop_condition": stop_condition, "environment_factory": environment_factory}
        return find_code(self.content, given, self.path, trusted)


def describe_team(
    agents: Sequence[Agent],
    turns: TurnTaking,
    settings: SpeakingSettings | None = None,
    rules: RolloutRules | None = None,
    conversational: bool | None = None,
    models: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """
    The content of `team.json`.

    Args:
        agents (`Sequence[Agent]`): The members, in team order.
        turns ([`TurnTaking`]): The options of their turns.
        settings ([`SpeakingSettings`], *optional*): Those of the team, which the agents' own override.
        rules ([`RolloutRules`], *optional*): Their rules, which may have a router or a stop condition of the user.
        conversational (`bool`, *optional*): As in [`SavedTeam`].
        models (`dict[str, PreTrainedModel or PeftModel]`, *optional*): Their models, by name; none of a remote member.
    """
    place = {"folder": "."} if len(agents) == 1 else {}
    models = models if models is not None else {}
    own = {agent.name: describe_model(agent, models[agent.name]) for agent in agents if agent.name in models}
    settings = settings if settings is not None else SpeakingSettings()
    environments = settings.environments
    router, stop_condition = (None, None) if rules is None else (rules.router, rules.stop_condition)
    if isinstance(router, RoundRobinRouter | RandomRouter):
        assert rules is not None
        kind = "random" if isinstance(router, RandomRouter) else "round_robin"
        fewer = router.max_turns if router.max_turns < rules.max_turns else turns.max_turns
        turns, router = dataclasses.replace(turns, router=kind, max_turns=fewer), None
    return {
        "format": FORMAT,
        "agents": [
            {field: getattr(agent, field) for field in SAVED_FIELDS}
            | (_describe_endpoint(agent) if agent.is_remote else place)
            | own.get(agent.name, {})
            | _name_rewards(agent)
            | describe_tools(agent)
            for agent in agents
        ],
        "rollout": dataclasses.asdict(turns),
        "code": {
            "router": describe_code(router),
            "stop_condition": describe_code(stop_condition),
            "environment_factory": None if environments is None else describe_code(environments.of_team),
        },
        "tools": dataclasses.asdict(settings.tools),
        "sampling": dataclasses.asdict(settings.sampling),
        "speaking": {name: getattr(settings, name) for name in SPEAKING},
        "conversational": conversational,
        "history": history_of(agents),
        "versions": {name: _version(name) for name in PACKAGES},
        "machine": _describe_machine(),
    }


def _describe_endpoint(agent: Agent) -> dict[str, Any]:
    """Where a remote member is. Its key is in the environment of those who ask it."""
    return {"model": agent.model} | {field: getattr(agent, field) for field in REMOTE_FIELDS}


def _name_rewards(agent: Agent) -> dict[str, Any]:
    """The names of the rewards of its own, which are code and are not saved."""
    funcs = agent.reward_funcs if isinstance(agent.reward_funcs, list) else []
    names = [
        func
        if isinstance(func, str)
        else type(func).__name__
        if isinstance(func, nn.Module)
        else get_callable_name(func)
        for func in funcs
    ]
    return {"reward_funcs": names} if names else {}


def _describe_machine() -> dict[str, Any]:
    """Where the team is saved; nothing by which one machine of a kind is known from another."""
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cpu_cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # this one, in a source tree that is not installed
        return None


def describe_model(agent: Agent, model: Any) -> dict[str, Any]:
    """What `team.json` says of the model of `agent`: what it was made from, and the dtype of its weights."""
    is_adapter = isinstance(model, PeftModel)
    base: Any = without_adapters(model)
    revision = vars(base.config).get("_commit_hash")
    origin: dict[str, Any] = {"id": base.config._name_or_path or None, "revision": revision}
    if isinstance(model, PeftModel):
        config = model.peft_config["default"]
        origin = {"id": config.base_model_name_or_path, "revision": config.revision or revision}
    elif agent.base_model is not None:
        origin = dict(agent.base_model)
    return {"base_model": origin, "is_adapter": is_adapter, "dtype": str(base.dtype).removeprefix("torch.")}


def write_team_files(folder: str, description: dict[str, Any], args: TeamTRConfig | None = None):
    """
    Write `team.json` and `training_args.json`, each atomically. The latter replaces the `training_args.bin` that
    `Trainer` pickles beside each agent: loading a pickle runs code, and it contains tokens in plain text.

    Args:
        folder (`str`): The team's directory.
        description (`dict`): What [`describe_team`] returns.
        args ([`TeamTRConfig`], *optional*): The config of the run that saves the team, if one does.
    """
    os.makedirs(folder, exist_ok=True)
    names = [entry["name"] for entry in description["agents"]]
    for name in names:
        Path(own_folder(folder, name, len(names)), TRAINING_ARGS_NAME).unlink(missing_ok=True)
    contents = {TEAM_FILE: description} | ({} if args is None else {ARGS_FILE: args.to_dict()})
    for name, content in contents.items():
        path = os.path.join(folder, name)
        with open(f"{path}.tmp", "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2, default=str)  # e.g. a dtype among `model_init_kwargs`
        os.replace(f"{path}.tmp", path)


def read_team_file(path: str) -> dict[str, Any]:
    """
    The content of the `team.json` in directory `path`.

    Raises:
        `ValueError`: If a newer version has written it.
    """
    with open(os.path.join(path, TEAM_FILE), encoding="utf-8") as file:
        content = json.load(file)
    if content.get("format", 1) > FORMAT:
        raise ValueError(
            f"The team in {path!r} was saved by a newer version: its {TEAM_FILE} has format {content['format']}, and this "
            f"version reads up to {FORMAT}. Upgrade trl-teamtr."
        )
    return content


def find_team(path: str, revision: str | None = None) -> str:
    """
    The directory of a saved team: `path`, or what is downloaded from the hub if `path` is the id of a repository.

    Raises:
        `FileNotFoundError`: If there is no team in it.
    """
    is_id = path.count("/") == 1 and not path.startswith((".", "/", "~")) and not os.path.isdir(path)
    folder = snapshot_download(path, revision=revision) if is_id else path
    if not os.path.isfile(os.path.join(folder, TEAM_FILE)):
        raise FileNotFoundError(f"There is no {TEAM_FILE} in {path!r}. Pass the directory that `save_model` wrote.")
    return folder


def load_team(
    path: str,
    revision: str | None = None,
    tools: Sequence[Callable] | None = None,
    trust_remote_code: bool = False,
) -> list[Agent]:
    """
    The agents of a saved team, ready to be evaluated or trained further: `TeamTRTrainer(load_team("run"), ...)`.

    Args:
        path (`str`): Directory that [`~TeamTRTrainer.save_model`] wrote, or the id of its repository on the hub.
        revision (`str`, *optional*): Branch, tag or commit of the repository.
        tools (`list[Callable]`, *optional*): Tools of agents in place of saved ones of their names, which are needed if these could
            not be saved.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Whether to import the tools that a team from the hub names, and
            whether it may have members behind the endpoints that it names.

    Raises:
        `FileNotFoundError`: If there is no team in `path`.
        `ValueError`: If a tool could not be saved and is not given; or a team from the hub has tools or a remote member, and is not
            trusted.
    """
    return _load_agents(find_team(path, revision), path, tools, trust_remote_code)


def _load_agents(folder: str, path: str, tools: Sequence[Callable] | None, trust_remote_code: bool) -> list[Agent]:
    """The agents of the team in `folder`, where `path` was found."""
    trusted, agents = trust_remote_code or os.path.isdir(path), []
    content = read_team_file(folder)
    for entry in content["agents"]:
        # The file must not decide whether remote code is run
        names = (*SAVED_FIELDS, *REMOTE_FIELDS, "model", "base_model")
        fields = {field: entry[field] for field in names if field in entry}
        if "endpoint" not in entry:
            fields["model"] = folder_of(folder, entry["name"])
        fields["history"] = list(content.get("history", []))
        agents.append(Agent(**fields, **load_tools(entry, tools or [], path, trusted)))
    check_endpoints(agents, path, trusted)
    return agents


def check_endpoints(agents: Sequence[Agent], path: str, trusted: bool):
    """Raise `ValueError` if a team, saved in `path`, that is not `trusted` has a remote member, which is sent a key."""
    remote = [agent for agent in agents if agent.is_remote]
    if remote and not trusted:
        raise ValueError(
            f"The team in {path!r}, which was downloaded, has its member {remote[0].name!r} at {remote[0].endpoint}: what the team "
            f"says would be sent there, with the key in the environment variable {remote[0].api_key_env}. Pass "
            "`trust_remote_code=True` if you trust the repository."
        )


def read_team(
    path: str,
    revision: str | None = None,
    tools: Sequence[Callable] | None = None,
    trust_remote_code: bool = False,
) -> SavedTeam:
    """The team in directory or repository `path`, with all that it needs to speak as it did when it was saved."""
    folder = find_team(path, revision)
    agents, content = _load_agents(folder, path, tools, trust_remote_code), read_team_file(folder)
    turns, conversational = TurnTaking(**content["rollout"]), content.get("conversational")
    return SavedTeam(folder, agents, read_speaking_settings(folder), turns, conversational, content)


def read_speaking_settings(path: str) -> SpeakingSettings:
    """How the team saved in `path` sampled and read. Of format 1, from the config saved with it; defaults if there is none."""
    content = read_team_file(path)
    if content.get("format", 1) == 1:
        return _read_from_config(os.path.join(path, ARGS_FILE))
    dtypes = {entry["name"]: entry["dtype"] for entry in content["agents"] if entry.get("dtype") in PRECISIONS}
    tools = ToolSettings(**content.get("tools", {}))  # older teams have none
    sampling = SamplingSettings(**content["sampling"])
    return SpeakingSettings(sampling, **content["speaking"], dtypes=dtypes or None, tools=tools)


def _read_from_config(file_path: str) -> SpeakingSettings:
    if not os.path.isfile(file_path):
        return SpeakingSettings()
    with open(file_path, encoding="utf-8") as file:
        args = json.load(file)
    names = (*CONFIG_FIELDS, "generation_kwargs", "cache_implementation")
    sampling = SamplingSettings(**{name: args[name] for name in names if name in args})
    reading = ("chat_template_kwargs", "max_context_length", "template_date")
    return SpeakingSettings(sampling, **{name: args[name] for name in reading if name in args})


def has_environment(path: str) -> bool:
    """Whether the team saved in directory or repository `path` shares an environment."""
    return (read_team_file(find_team(path)).get("code") or {}).get("environment_factory") is not None


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


def warn_of_changes(path: str, turns: TurnTaking, settings: SpeakingSettings | None = None):
    """
    Warn, in one message, of what a saved team will do otherwise than it was trained.

    Args:
        path (`str`): Directory of the team.
        turns ([`TurnTaking`]): How it will take turns.
        settings ([`SpeakingSettings`], *optional*): How it will sample and read, if that is for the new run to say.
    """
    saved, now = read_team_file(path)["rollout"], dataclasses.asdict(turns)
    if settings is not None:
        there = read_speaking_settings(path)
        for name in ("chat_template_kwargs", "max_context_length", "template_date"):
            # Without a date, that of the day on which the run begins
            if name != "template_date" or settings.template_date is not None:
                saved[name], now[name] = getattr(there, name), getattr(settings, name)
        saved |= dataclasses.asdict(there.sampling)
        now |= dataclasses.asdict(settings.sampling)
    other = [f"{name}={value!r} (now {now[name]!r})" for name, value in saved.items() if now[name] != value]
    if other:
        warnings.warn(
            f"The team in {path!r} was saved with {', '.join(other)}. Pass the same to `TeamTRConfig` to let it speak as "
            "before.",
            stacklevel=4,
        )


def warn_of_other_rewards(path: str, agents: Sequence[Agent]):
    """Warn if agents of the team in `path`, a saved one or a checkpoint, had other rewards of their own than `agents`."""
    saved = {entry["name"]: entry.get("reward_funcs", []) for entry in read_team_file(path)["agents"]}
    now = {agent.name: _name_rewards(agent).get("reward_funcs", []) for agent in agents}
    other = [f"{name!r} had {saved[name]} (now {now[name]})" for name in saved if saved[name] != now.get(name)]
    if other:
        warnings.warn(
            f"Of the team in {path!r}, {', '.join(other)} as `reward_funcs` of its own. They are code, and not saved: set them "
            "on the agents of `load_team`.",
            stacklevel=4,
        )
