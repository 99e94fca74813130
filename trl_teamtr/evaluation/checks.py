"""Checks of an evaluation's input, before any model is loaded."""

import inspect
import warnings
from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from torch import nn
from trl.trainer.utils import get_callable_name

from ..agents.agent import Agent
from ..checks import preflight
from ..teamtr_config import TeamTRConfig
from .evaluation_config import EvaluationConfig
from .panel import share_prompts
from .protocols import DEBATES, JUDGE, SAMPLED


# What TRL passes to reward functions beside the columns of the dataset, and what a team adds
PROVIDED = ("prompts", "completions", "completion_ids", "transcripts", "trainer_state", "log_extra", "log_metric")
# What they get besides, of rollouts with environments
OF_WORLDS = ("environments", "worlds")


def reads_transcripts(reward_func: Any) -> bool:
    """Whether a reward function has an argument `transcripts`, and so may judge more than the last message."""
    if isinstance(reward_func, str | nn.Module):
        return False
    return "transcripts" in inspect.signature(reward_func).parameters


def check_launch(args: TeamTRConfig):
    """Raise `ValueError` if DeepSpeed is in use, for which an evaluation has no engine, or vLLM in this process."""
    if args.deepspeed_plugin is not None:
        raise ValueError(
            "An evaluation cannot be launched with DeepSpeed: each process holds all models. Use "
            "accelerate_configs/multi_gpu.yaml, or a single process."
        )
    if args.use_vllm and args.vllm_mode == "colocate":
        raise ValueError(
            "`vllm_mode='colocate'` is of a training: each protocol of an evaluation has agents of its own, and an engine takes long "
            "to make. Start servers (`vllm_mode='server'`), or leave `use_vllm=False`."
        )


def check_dataset(dataset: Any, reward_funcs: Sequence, acts: bool = False):
    """
    Raise unless `dataset` has rows, and the columns that the reward functions require, beside environments if the team `acts` on some.

    Raises:
        `TypeError`: If it is not a map-style dataset.
        `ValueError`: If it is empty, or a column is missing.
    """
    if not isinstance(dataset, Dataset):
        raise TypeError(
            f"An evaluation needs a `datasets.Dataset`, whose rows can be counted, got {type(dataset).__name__}. Load "
            "a stream with `streaming=False`, and choose one split of a `DatasetDict`."
        )
    if not len(dataset):
        raise ValueError("The evaluation dataset is empty. It needs at least one row with a 'prompt'.")
    for func in reward_funcs:
        if isinstance(func, str | nn.Module):
            continue
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        required = [
            name
            for name, parameter in inspect.signature(func).parameters.items()
            if parameter.kind in named and parameter.default is parameter.empty
        ]
        provided = (*PROVIDED, *(OF_WORLDS if acts else ()))
        missing = [name for name in required if name not in (*provided, *dataset.column_names)]
        if missing:
            raise ValueError(
                f"The reward function {get_callable_name(func)!r} needs the column(s) {', '.join(missing)}, but those of the "
                f"evaluation dataset are {', '.join(dataset.column_names)}. Rename yours with "
                "`dataset.rename_column(...)`, or choose another reward."
            )


def check_rewards(config: EvaluationConfig, reward_funcs: Sequence):
    """
    Raise `ValueError` if there is no reward, those of environments included, or there are several and no threshold for their sum.
    """
    if not reward_funcs:
        raise ValueError(
            "There is no reward: no `reward_funcs`, and no environment with a `get_reward`. Pass the reward functions of the training."
        )
    if len(reward_funcs) > 1 and config.threshold is None:
        raise ValueError(
            f"There are {len(reward_funcs)} reward functions, and an answer with any of them at 1 may be wrong. Set "
            "`threshold`, the smallest weighted sum (`reward_weights`) of a right answer."
        )


def check_players(config: EvaluationConfig, team: Sequence[Agent] | None, players: Sequence[Agent]):
    """
    Raise unless every protocol has its agents.

    Args:
        config (`EvaluationConfig`): The protocols.
        team (`list[Agent]`, *optional*): The team that is evaluated.
        players (`list[Agent]`): The agents of the other protocols; empty if there are none.

    Raises:
        `TypeError`: If a team does not consist of `Agent`.
        `ValueError`: If a protocol lacks something; the message names both.
    """
    for agent in (*(team or ()), *players):
        if not isinstance(agent, Agent):
            raise TypeError(f"A team is a list of `Agent`, got an element of type {type(agent).__name__}.")
    wanted, names = set(config.protocols), [agent.name for agent in players]
    if "team" in wanted and team is None:
        raise ValueError("Protocol 'team' needs a team. Pass `team`, or leave it out of `protocols`.")
    if not players:
        raise ValueError("There is no agent to evaluate. Pass `team`, `model`, or both.")
    if wanted & {"best_of_n", "majority"} and config.budget_samples is None and "team" not in wanted:
        raise ValueError(
            "'best_of_n' and 'majority' have the token budget of the team, but 'team' is not among the `protocols`. "
            "Add it, or set `budget_samples`."
        )
    if wanted & set(DEBATES) and len(players) < 2:
        raise ValueError(f"A debate needs two agents, but there is one, {names[0]!r}. Set `num_agents`.")
    if "debate_judge" in wanted and JUDGE in names:
        raise ValueError(f"The judge of a debate is called {JUDGE!r}, and so is an agent of the team. Rename it.")
    if config.role_prompts is not None and len(config.role_prompts) != len(players):
        raise ValueError(
            f"`role_prompts` has {len(config.role_prompts)} prompts, but there are {len(players)} agents: "
            f"{', '.join(names)}. Pass one for each."
        )


def check_prompts(config: EvaluationConfig, dataset: Dataset, team: Sequence[Agent] | None, players: Sequence[Agent]):
    """
    Raise `ValueError` if a protocol's agents cannot read the dataset, or its private prompts name other agents. Warn
    if the agents have system prompts and the single model has none.
    """
    tables = dict.fromkeys(SAMPLED, players[-1:]) | ({} if team is None else {"team": team})
    for protocol in config.protocols:
        agents = tables.get(protocol, players)
        names = [agent.name for agent in agents]
        preflight.check_columns(share_prompts(dataset.take(1), agents), names, "evaluation")
    if set(SAMPLED) & set(config.protocols) and config.single_prompt is None and players[-1].system_prompt:
        warnings.warn(
            f"Agent {players[-1].name!r} has a system prompt, and the single model that it is compared with has none. "
            "Set `single_prompt`, if the task needs one.",
            stacklevel=3,
        )
