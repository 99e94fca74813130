"""Turns what a user passes as `model` into the members of a team, before any model is loaded."""

import copy
import itertools
import os
from collections.abc import Sequence
from typing import Any

from peft import PeftConfig, PeftModel
from transformers import PreTrainedModel
from transformers.utils import find_adapter_config_file
from trl.trainer.utils import get_config_model_id

from ..conversation.rules import TurnTaking
from ..teamtr_config import TeamTRConfig
from .agent import Agent, check_names, check_trainable
from .model_copies import copy_untouched
from .settings import CONFIG_FIELDS, SpeakingSettings
from .team_file import (
    TEAM_FILE,
    find_team,
    load_team,
    read_speaking_settings,
    read_team,
    read_team_file,
    warn_of_changes,
    warn_of_other_rewards,
)


def resolve_team(model: Any, args: TeamTRConfig, peft_config: PeftConfig | None = None) -> list[Agent]:
    """
    The members of the team that `model` specifies, to be trained with `args` ([`resolve_agents`]).

    Raises:
        `ValueError`: If `args` monitors the KL, but no trained agent has a radius.
    """
    agents = resolve_agents(model, args.num_agents, TurnTaking.of(args), peft_config, SpeakingSettings.of(args))
    if args.monitor_fraction and all(agent.radius_in(args) is None for agent in agents if agent.trainable):
        raise ValueError(
            f"`monitor_fraction={args.monitor_fraction}` is for the radius, but no agent that is trained has one: "
            "`trust_region_radius` is `None`. Leave `monitor_fraction` at 0, or set a radius."
        )
    return agents


def resolve_agents(
    model: Any,
    num_agents: int | None,
    turns: TurnTaking,
    peft_config: PeftConfig | None = None,
    settings: SpeakingSettings | None = None,
) -> list[Agent]:
    """
    The members of the team that `model` specifies.

    Args:
        model: A list of [`Agent`]; the directory of a saved team; or one model (id, path, model or `PeftModel`), for
            `num_agents` agents of the same kind, named `agent_1`, `agent_2`, ..., or a team of one named `agent`.
        num_agents (`int`, *optional*): Number of agents, if `model` is one model.
        turns ([`TurnTaking`]): How they will take turns. Warns if a saved team did so differently.
        peft_config ([`~peft.PeftConfig`], *optional*): For trainable agents without one.
        settings ([`SpeakingSettings`], *optional*): How they will sample and read. Warns likewise.
    """
    if is_saved_team(model):
        warn_of_changes(model, turns, settings)
        saved, model = model, load_team(model)
        if settings is not None:  # to be trained
            warn_of_other_rewards(saved, model)
    if isinstance(model, dict):
        raise TypeError(
            "`model` is a dict. A team is a list of agents: `[Agent(name, model) for name, model in models.items()]`."
        )
    model = [model] if isinstance(model, Agent) else model
    if isinstance(model, (list, tuple)):
        agents = [copy.copy(agent) for agent in model]
        check_trainable(agents)
        if num_agents is not None and num_agents != len(agents):
            raise ValueError(
                f"`num_agents` is {num_agents}, but `model` lists {len(agents)} agents. Leave `num_agents` out."
            )
    else:
        count = num_agents or 1
        if count > 1 and isinstance(model, PeftModel):
            raise ValueError(
                "A `PeftModel` is one agent. For a team, pass the base model and a `peft_config`, or a list of `Agent`."
            )
        names = ["agent"] if count == 1 else [f"agent_{i + 1}" for i in range(count)]
        agents = [Agent(name, model) for name in names]
        if count > 1 and peft_config is None and isinstance(model, PreTrainedModel):
            for agent in agents[1:]:
                agent.model = copy_untouched(model)
    for agent in agents:
        if peft_config and agent.peft_config is None and agent.trainable and not _is_adapter(agent.model):
            agent.peft_config = peft_config
    _check_shared_instances(agents)
    return agents


def _is_adapter(model: Any) -> bool:
    return isinstance(model, PeftModel) or (isinstance(model, str) and find_adapter_config_file(model) is not None)


def _check_shared_instances(agents: Sequence[Agent]):
    """Two agents may have the same model object only if neither trains its weights."""
    for a, b in itertools.combinations(agents, 2):
        whole = [x.name for x in (a, b) if x.trainable and x.peft_config is None]
        if a.model is b.model and isinstance(a.model, PreTrainedModel | PeftModel) and whole:
            raise ValueError(
                f"Agents {a.name!r} and {b.name!r} hold the same model object, and training {whole[0]!r} would change "
                "both. Give each a model of its own (or its path), or a `peft_config` to train adapters on the shared "
                "base."
            )


def is_saved_team(model: Any) -> bool:
    """Whether `model` is the directory of a saved team."""
    return isinstance(model, str) and os.path.isfile(os.path.join(model, TEAM_FILE))


def resolve_code(model: Any, **given: Any) -> dict[str, Any]:
    """
    The router, the stop condition and the environment of the team that `model` specifies: those that are `given`, else those saved
    with it.
    """
    return read_team(model).find_code(**given) if is_saved_team(model) else given


def default_args(model: Any) -> TeamTRConfig:
    """
    A default config for a `model` as in [`resolve_team`]; `output_dir` is named after its first model. A saved team takes
    turns, samples and reads as before.
    """
    if isinstance(model, (list, tuple, Agent)):
        team = [model] if isinstance(model, Agent) else model
        check_names(team)
        model = team[0].model
    saved = speaking_defaults(model) if is_saved_team(model) else {}
    name = model if isinstance(model, str) else get_config_model_id(model.config)
    return TeamTRConfig(f"{os.path.basename(name.rstrip('/'))}-TeamTR", **saved)


def speaking_defaults(team: str) -> dict[str, Any]:
    """
    The fields of a [`TeamTRConfig`] by which the saved team in directory or repository `team` takes turns, samples and reads as it
    did when it was saved.

    Raises:
        `FileNotFoundError`: If there is no team.
    """
    folder = find_team(team)  # its agents are not needed, nor is the code of its tools
    settings = read_speaking_settings(folder)
    sampling, reading = vars(settings.sampling), vars(settings)
    return (
        {name: sampling[name] for name in (*CONFIG_FIELDS, "generation_kwargs", "cache_implementation")}
        | read_team_file(folder)["rollout"]
        | vars(settings.tools)
        | {name: reading[name] for name in ("chat_template_kwargs", "max_context_length", "template_date")}
    )
