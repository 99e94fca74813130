"""Arguments that the commands share: the team and the tasks, from YAML or the command line."""

import argparse
import json
import os
from dataclasses import dataclass, field
from typing import Any

from peft import LoraConfig
from trl import ScriptArguments

from ..agents.agent import Agent
from ..tasks.loading import hold_out, is_generated, is_undivided, load_function, load_reward, load_split
from .link_team import make_team


TASKS_FILE = "tasks.json"


class ExamplesFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Help with defaults, and with examples as they are written."""


@dataclass
class TeamScriptArguments(ScriptArguments):
    """
    Arguments of the script, beside those of [`TeamTRConfig`] and [`~trl.ModelConfig`].

    Args:
        agents (`list[dict]`, *optional*):
            The team: for each member the fields of `Agent`, with `peft` (the fields of [`~peft.LoraConfig`]) in place
            of `peft_config`. Or `link:<n>` for a team that is first warmed up for LINK. A JSON string on the command
            line. Defaults to `--num_agents` agents of `--model_name_or_path`.
        reward_funcs (`list[str]`, *optional*):
            Names of TRL's rewards, or dotted paths. Defaults to the task's own; to none with an environment.
        tools (`list[str]`, *optional*):
            Dotted paths of functions that agents may call. An agent's own `tools` are such paths, and names of methods of
            the environment.
        environment_factory (`str`, *optional*):
            Dotted path of the class of the team's environment. An agent may have one of its own.
        dataset_path (`str`, *optional*):
            For a published benchmark: a local file with its columns, or a clone of its repository. Defaults to the hub.
        dataset_kwargs (`dict`, *optional*):
            Settings of a task, e.g. of reasoning-gym.
        dataset_size, eval_size (`int`):
            Rows of a generated task for training and for evaluation. No task is in both.
        dataset_seed (`int`, *optional*):
            Seed of a generated task. Defaults to `--seed`.
        eval_dataset_name (`str`, *optional*):
            Dataset for evaluation, if it is not the one for training.
        eval_dataset_path (`str`, *optional*):
            `dataset_path` of that.
    """

    agents: str | None = field(default=None, metadata={"help": "The team: a list of mappings, or `link:<n>`."})
    reward_funcs: list[str] | None = field(default=None, metadata={"help": "Reward functions."})
    tools: list[str] | None = field(default=None, metadata={"help": "Functions that agents may call: dotted paths."})
    environment_factory: str | None = field(
        default=None, metadata={"help": "Class of the team's environment: a dotted path."}
    )
    dataset_path: str | None = field(default=None, metadata={"help": "Local file or clone of a published benchmark."})
    dataset_kwargs: str | None = field(default=None, metadata={"help": "Settings of a task (a mapping)."})
    dataset_size: int = field(default=10_000, metadata={"help": "Rows of a generated task, for training."})
    eval_size: int = field(default=200, metadata={"help": "Rows of a generated task, for evaluation."})
    dataset_seed: int | None = field(default=None, metadata={"help": "Seed of a generated task; else `--seed`."})
    eval_dataset_name: str | None = field(default=None, metadata={"help": "Dataset for evaluation, if different."})
    eval_dataset_path: str | None = field(default=None, metadata={"help": "`dataset_path` of that."})


def make_agents(specification, training_args):
    """The value of `agents`, from YAML or JSON, as a list of `Agent`."""
    if isinstance(specification, str):
        kind, _, count = specification.partition(":")
        if kind == "link":
            return make_team(int(count), training_args.seed)
        specification = json.loads(specification)
    agents = []
    for entry in specification:
        entry = dict(entry)
        peft = entry.pop("peft", None)
        if "reward_funcs" in entry:
            entry["reward_funcs"] = [load_reward(name) for name in entry["reward_funcs"]]
        if entry.get("tools") is not None:
            entry["tools"] = [load_function(name, "tool") if "." in name else name for name in entry["tools"]]
        if "environment_factory" in entry:
            entry["environment_factory"] = load_function(entry["environment_factory"], "environment")
        agents.append(Agent(**entry, peft_config=LoraConfig(task_type="CAUSAL_LM", **peft) if peft else None))
    return agents


def load_equipment(script_args) -> dict[str, Any]:
    """`tools` and `environment_factory`, as arguments of a trainer."""
    path = script_args.environment_factory
    return {
        "tools": [load_function(name, "tool") for name in script_args.tools] if script_args.tools else None,
        "environment_factory": None if path is None else load_function(path, "environment"),
    }


def task_kwargs(script_args) -> dict:
    """`dataset_kwargs`, a mapping from YAML or text from the command line, with `dataset_path` if it is given."""
    kwargs = script_args.dataset_kwargs or {}
    kwargs = json.loads(kwargs) if isinstance(kwargs, str) else kwargs
    return kwargs if script_args.dataset_path is None else {**kwargs, "dataset_path": script_args.dataset_path}


def eval_kwargs(script_args) -> dict:
    """[`task_kwargs`] of the dataset for evaluation, which has a path of its own if it is not the one for training."""
    kwargs = task_kwargs(script_args)
    if script_args.eval_dataset_name in (None, script_args.dataset_name):
        return kwargs
    return kwargs | {"dataset_path": script_args.eval_dataset_path}


def task_seed(script_args, training_args) -> int:
    """The seed of a generated task."""
    return training_args.seed if script_args.dataset_seed is None else script_args.dataset_seed


def load_data(script_args, training_args):
    """The training dataset and, if evaluation is enabled, the evaluation dataset."""
    options = {"config": script_args.dataset_config, "streaming": script_args.dataset_streaming}
    options |= task_kwargs(script_args)
    name = script_args.dataset_name
    seed = task_seed(script_args, training_args)
    eval_name, eval_size = script_args.eval_dataset_name or name, script_args.eval_size
    train = load_split(name, script_args.dataset_train_split, script_args.dataset_size + eval_size, seed, **options)
    if training_args.eval_strategy == "no" and not training_args.do_eval:
        return train, None
    if eval_name == name and (is_generated(name) or is_undivided(name)):
        return hold_out(train, eval_size, seed)
    options |= eval_kwargs(script_args)
    return train, load_split(eval_name, script_args.dataset_test_split, eval_size, seed, **options)


def save_tasks(script_args, training_args):
    """Save which generated tasks are used for training and which are held out, for `evaluate.py`."""
    if training_args.process_index != 0 or not is_generated(script_args.dataset_name):
        return
    tasks = {
        "dataset_name": script_args.dataset_name,
        "dataset_kwargs": task_kwargs(script_args),
        "dataset_size": script_args.dataset_size,
        "eval_size": script_args.eval_size,
        "seed": task_seed(script_args, training_args),
        "held_out": training_args.eval_strategy != "no" or training_args.do_eval,
    }
    os.makedirs(training_args.output_dir, exist_ok=True)
    with open(os.path.join(training_args.output_dir, TASKS_FILE), "w", encoding="utf-8") as file:
        json.dump(tasks, file, indent=2)


def set_model_init_kwargs(training_args, model_args):
    """Set how models are loaded from `model_args`; `model_init_kwargs` takes precedence."""
    init = {
        "revision": model_args.model_revision,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
    }
    training_args.model_init_kwargs = {**init, **(training_args.model_init_kwargs or {})}
