"""Checks of agents, datasets and routers before anything is generated."""

import itertools
import json
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from datasets import Dataset, IterableDataset
from transformers import ProcessorMixin

from ..agents.models import base_is_lost
from ..conversation.prompts import check_prompt
from ..conversation.router import RandomRouter, find_silent_agents
from ..conversation.rules import RolloutRules
from ..conversation.transcript import Transcript
from ..policy.generation import vllm_package
from ..policy.participant import Participant
from ..policy.remote import RemoteSpeaker
from ..policy.speaker import Speaker
from ..rollouts.turn_loop import private_prompts
from ..team import Team
from ..teamtr_config import TeamTRConfig
from ..tools import Environments


def refuse_unsupported(**arguments):
    """Raise `ValueError` if one of TRL's arguments that a team does not support is given."""
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(f"`{name}` is not supported by TeamTRTrainer, whose rollouts are its own. Leave it out.")


def check_vllm(args: TeamTRConfig):
    """Raise `ImportError` if `args` asks for vLLM in this process, and it cannot be had."""
    if args.use_vllm and args.vllm_mode == "colocate":
        vllm_package.find_vllm()


def refuse_processors(processing_classes: dict[str, Any]):
    """Raise `ValueError` if an agent is given the processor of a vision-language model, and speaks through vLLM."""
    for name, processing_class in processing_classes.items():
        if isinstance(processing_class, ProcessorMixin):
            raise ValueError(
                f"Agent {name!r} has a {type(processing_class).__name__}. Its messages must not have image tokens, which vLLM "
                "does not exclude. Pass its tokenizer as `processing_class`, or leave `use_vllm=False`."
            )


def check_optimizers(optimizers: tuple, num_trained: int):
    """Raise `ValueError` if one optimizer is given for several agents."""
    if num_trained > 1 and optimizers != (None, None):
        raise ValueError("`optimizers` is one optimizer, but each agent has its own. Set `args.optim` instead.")


def name_splits(train_dataset: Any, eval_dataset: Any) -> dict[str, Any]:
    """All datasets of a trainer, by their names in messages."""
    if eval_dataset is None:
        return {"train": train_dataset}
    own = eval_dataset if isinstance(eval_dataset, dict) else {"eval": eval_dataset}
    own = {"eval 'train'" if name == "train" else name: dataset for name, dataset in own.items()}
    return {"train": train_dataset, **own}


def check_router(rules: RolloutRules, trainable: Sequence[str], names: Sequence[str], dataset, args: TeamTRConfig):
    """
    Raise `ValueError` if the router, in a dry run of empty messages on prompts of `dataset`, names an unknown agent or
    never calls one of `trainable`.
    """
    prompts = itertools.cycle([row["prompt"] for row in dataset.take(64)])
    silent = find_silent_agents(rules.router, names, list(itertools.islice(prompts, 64)), rules.max_turns)
    silent = [name for name in silent if name in trainable]
    if silent and not args.allow_silent_agents:
        raise ValueError(
            f"The router never calls {', '.join(silent)} within {rules.max_turns} turns of empty messages, so nothing "
            "could be learned there. Raise `max_turns` or `num_rounds`, fix the router, set `trainable=False`, or set "
            "`allow_silent_agents=True` if the router calls the agent on some texts only."
        )


def check_speakers(speakers: Sequence[Participant], splits: dict[str, Any], rules: RolloutRules):
    """
    Raise `ValueError` unless every agent can read the prompts of all `splits`: a chat template for conversational
    ones, one that takes others' turns if it may speak twice, and room for a message; `RemoteMemberError` if an endpoint is
    not there.
    """
    speaks_twice = rules.max_turns > (1 if isinstance(rules.router, RandomRouter) else len(speakers))
    for speaker in speakers:
        if isinstance(speaker, RemoteSpeaker):
            speaker.check_endpoint()
        elif isinstance(speaker, Speaker) and base_is_lost(speaker.policy.model):
            warnings.warn(
                f"The base model of agent {speaker.name!r} was not loaded from a path, so its saved adapter "
                "cannot be loaded again. Save the base model first and pass its path.",
                stacklevel=4,
            )
    for split, dataset in splits.items():
        prompt = next(iter(dataset))["prompt"]
        for speaker in speakers:
            renderer = speaker.renderer_for(prompt)
            if speaks_twice:
                renderer.check_turns()
        check_lengths(dataset, speakers, split)


def check_team(team: Team, splits: dict[str, Any]):
    """Raise `ValueError` unless a `team` can work with the rows of all `splits`."""
    check_rows(splits, team.settings.environments)
    check_tools(team.local_speakers, splits)
    check_speakers(team.speakers, splits, team.rules)


def check_rows(splits: dict[str, Any], environments: Environments | None):
    """Raise `ValueError` if a row, with which `environments` are reset, cannot be written to a checkpoint."""
    for split, dataset in splits.items() if environments is not None else ():
        for column, value in next(iter(dataset)).items():
            try:
                json.dumps(value)
            except TypeError as error:
                raise ValueError(
                    f"The column {column!r} of the {split} dataset holds a {type(value).__name__}. Environments are reset with the "
                    "columns of a row, and checkpoints keep these as JSON: make it text or numbers, or remove the column."
                ) from error


def check_tools(speakers: Sequence[Speaker], splits: dict[str, Any]):
    """
    Raise `ValueError` if an agent with tools reads prompts without its chat template, has no room for the result of a call, or may
    call tools without end.
    """
    for speaker in speakers:
        tools = speaker.tools
        if tools is None:
            continue
        for split, dataset in splits.items():
            if isinstance(next(iter(dataset))["prompt"], str):
                raise ValueError(
                    f"Agent {speaker.name!r} has tools, which its chat template describes to it, but the prompts of the {split} dataset "
                    "are plain text. Make them conversations: `[{'role': 'user', 'content': ...}]`."
                )
        if tools.reserve(1) >= speaker.room:
            raise ValueError(
                f"Agent {speaker.name!r} has room for {speaker.room} tokens before a message, but a result of its tools may take "
                f"{tools.reserve(1)}. Lower `max_tool_result_length` or `max_completion_length`, or raise `max_context_length`."
            )
        if speaker.max_view_length == sys.maxsize and tools.max_uses == sys.maxsize:
            raise ValueError(
                f"Nothing limits how often agent {speaker.name!r} calls its tools in a message: its model has no maximum length. Set "
                "`max_tool_calling_iterations` or `max_context_length`."
            )


def check_eval_engine(is_deepspeed: bool, engine: Any):
    """Raise `ValueError` if DeepSpeed has made no engines yet: transformers would make one that training cannot use."""
    if is_deepspeed and engine is None:
        raise ValueError(
            "Under DeepSpeed a team cannot be evaluated before `train()`, which makes the agents' engines. Set "
            "`eval_on_start=True` to evaluate before the first update; evaluate a saved team with scripts/evaluate.py."
        )


def check_eval_batch(batch_size: int, group: int):
    """Raise `ValueError` unless `batch_size` rollouts over all processes are whole groups of `group` of a prompt."""
    if batch_size % group:
        raise ValueError(
            f"The evaluation batch ({batch_size} rollouts over all processes) must hold whole groups of {group} rollouts "
            "of a prompt. Change `per_device_eval_batch_size` or `num_generations_eval`."
        )


def check_columns(dataset: Dataset | IterableDataset | None, agents: Sequence[str], split: str):
    """
    Raise `ValueError` unless every row of `dataset` can start a rollout of the team `agents`.

    Args:
        dataset ([`~datasets.Dataset`] or [`~datasets.IterableDataset`]): Only its first row is checked.
        agents (`Sequence[str]`): Names of the team.
        split (`str`): The name of the dataset in the message.
    """
    if isinstance(dataset, dict):
        raise ValueError(
            f"The {split} dataset is a dict of several: {', '.join(map(repr, dataset))}. Pass one, `dataset['...']`."
        )
    if dataset is not None and not isinstance(dataset, Dataset | IterableDataset):
        raise ValueError(
            f"The {split} dataset is a {type(dataset).__name__}. Pass a `datasets.Dataset` (`Dataset.from_list(rows)` "
            "makes one) or an `IterableDataset`."
        )
    if dataset is None:
        raise ValueError(f"`{split}_dataset` is required. Pass a `datasets.Dataset` with a 'prompt' column.")
    first = next(iter(dataset), None)
    if first is None:
        raise ValueError(f"The {split} dataset is empty. It needs at least one row with a 'prompt'.")
    if "prompt" not in first:
        raise ValueError(
            f"The {split} dataset has no 'prompt' column; its columns are {', '.join(first)}. Rename yours with "
            "`dataset.rename_column('...', 'prompt')`."
        )
    if "transcripts" in first:
        raise ValueError(
            f"The {split} dataset has a 'transcripts' column, but reward functions get the rollouts' messages under that "
            "name. Rename yours with `dataset.rename_column('transcripts', '...')`."
        )
    if "image" in first or "images" in first:
        raise ValueError(
            f"The {split} dataset has an image column, but teams read text only. Remove the column with "
            "`dataset.remove_columns(...)`."
        )
    _check_row(first["prompt"], 0, split)
    private = first.get("agent_prompts")
    if private is not None and not isinstance(private, dict):
        raise ValueError(
            f"The {split} dataset's 'agent_prompts' must be a dict from agent name to text, got {private!r}."
        )
    unknown = [name for name in private or {} if name not in agents]
    if unknown:
        raise ValueError(
            f"The {split} dataset's 'agent_prompts' name {', '.join(unknown)}, but the team is {', '.join(agents)}."
        )


def check_lengths(dataset: Dataset | IterableDataset | None, speakers: Sequence[Participant], split: str):
    """
    Raise `ValueError` if a prompt of a map-style `dataset` is none, is refused by an agent's chat template or, with room
    for one message, exceeds its context.

    Prompts with fewer bytes than the agent has room for tokens need no tokenizing, unless their roles are new to the
    template, which makes this cheap.
    """
    if not isinstance(dataset, Dataset):
        return
    fixed: dict[str, int] = {}
    seen: set[tuple[str, ...]] = set()
    for row, example in enumerate(dataset.select_columns([c for c in dataset.column_names if c in _READ])):
        _check_row(example["prompt"], row, split)
        roles = _roles(example["prompt"])
        size = len(str(example).encode())
        for speaker in speakers:
            # What the template and the system prompt add to the first prompt, they add to all
            if roles in seen and fixed[speaker.name] + size < speaker.room // 2:
                continue
            transcript = Transcript(example["prompt"], (), private_prompts(example))
            try:
                length = len(speaker.renderer_for(example["prompt"]).opening(transcript, []))
            except ValueError as error:
                raise ValueError(f"Row {row} of the {split} dataset: {error}") from error
            fixed.setdefault(speaker.name, length)
            if length > speaker.room:
                raise ValueError(
                    f"The prompt of row {row} of the {split} dataset takes {length} tokens in the view of agent "
                    f"{speaker.name!r}, which has room for {speaker.room}: {speaker.max_view_length} less "
                    f"`max_completion_length` ({speaker.sampling.max_completion_length}). Drop or shorten such rows, or the "
                    "system prompt."
                )
        seen.add(roles)


def _check_row(prompt: Any, row: int, split: str):
    try:
        check_prompt(prompt)
    except ValueError as error:
        raise ValueError(f"Row {row} of the {split} dataset: {error} `dataset.filter` drops such rows.") from error


def _roles(prompt: str | list[dict[str, str]]) -> tuple[str, ...]:
    return () if isinstance(prompt, str) else tuple(turn["role"] for turn in prompt)


_READ = ("prompt", "agent_prompts")
