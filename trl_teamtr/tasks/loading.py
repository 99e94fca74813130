"""Datasets and rewards by name, for the scripts: the hub, local files, reasoning-gym, LINK."""

import importlib
import importlib.util
import json
import os
import random
import sys
from collections.abc import Callable
from typing import Any

from datasets import Dataset, load_dataset
from trl.rewards import accuracy_reward, reasoning_accuracy_reward, think_format_reward

from . import link, reasoning_gym


FORMATS = {".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv"}

REWARDS: dict[str, Callable[..., Any]] = {
    "accuracy_reward": accuracy_reward,
    "reasoning_accuracy_reward": reasoning_accuracy_reward,
    "think_format_reward": think_format_reward,
    "link": link.link_reward,
    "reasoning_gym": reasoning_gym.reasoning_gym_reward,
}


def load_split(
    name: str, split: str, size: int, seed: int, config: str | None = None, streaming: bool = False, **task_kwargs
) -> Dataset:
    """
    A dataset by name.

    Args:
        name (`str`): `reasoning_gym:<task>`, `link:<number of agents>`, a local JSON, JSON-lines, parquet or CSV file,
            or a dataset on the hub.
        split (`str`): Split of a hub dataset; a local file has only `"train"`.
        size, seed (`int`): Number of rows and seed of a generated task.
        config (`str`, *optional*): Configuration of a hub dataset.
        streaming (`bool`): Whether to stream a hub dataset.
        task_kwargs: Settings of a reasoning-gym task.

    Raises:
        `FileNotFoundError`: If `name` looks like a local file and there is none.
    """
    kind, _, rest = name.partition(":")
    if kind == "reasoning_gym":
        return reasoning_gym.make_dataset(rest, size, seed, **task_kwargs)
    if kind == "link":
        return link.make_dataset(int(rest), size, seed)
    extension = os.path.splitext(name)[1]
    if extension in FORMATS:
        if not os.path.isfile(name):
            raise FileNotFoundError(f"There is no file {name!r}. Give its path from {os.getcwd()!r}, or a full one.")
        return load_dataset(FORMATS[extension], data_files=name, split="train")
    return load_dataset(name, name=config, split=split, streaming=streaming)


def hold_out(dataset: Dataset, size: int, seed: int) -> tuple[Dataset, Dataset]:
    """
    Split a generated task into training and held-out rows that share no task: no prompt, with its private prompts, is
    in both. At most a quarter of the distinct tasks is held out.

    Args:
        dataset ([`~datasets.Dataset`]): Rows with `prompt`, and `agent_prompts` if there are any.
        size (`int`): Largest number of held-out rows.
        seed (`int`): Which tasks are held out.
    """
    columns = [name for name in ("prompt", "agent_prompts") if name in dataset.column_names]
    keys = [json.dumps(row, sort_keys=True) for row in dataset.select_columns(columns)]
    distinct = sorted(set(keys))
    random.Random(seed).shuffle(distinct)
    held = set(distinct[: min(size, max(1, len(distinct) // 4))])
    inside = [i for i, key in enumerate(keys) if key in held]
    outside = [i for i, key in enumerate(keys) if key not in held]
    return dataset.select(outside), dataset.select(inside[:size])


def default_reward(dataset_name: str) -> str | None:
    """The reward that comes with a task, if the dataset is one."""
    kind = dataset_name.partition(":")[0]
    return kind if kind in ("reasoning_gym", "link") else None


def load_reward(name: str) -> Callable[..., Any]:
    """
    A reward function by its name in `REWARDS`, or a custom one by its dotted path.

    Raises:
        `ValueError`: If `name` is neither.
    """
    return REWARDS[name] if name in REWARDS else load_function(name, "reward function", f"{', '.join(REWARDS)}, or ")


def load_function(path: str, what: str = "function", others: str = "") -> Callable[..., Any]:
    """
    A function by its dotted path, which may start in the working directory.

    Args:
        path (`str`): The dotted path.
        what, others (`str`): For the message: what is missing, and the alternatives.

    Raises:
        `ValueError`: If there is none.
    """
    module, _, function = path.rpartition(".")
    if module and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if not module or importlib.util.find_spec(module.partition(".")[0]) is None:
        raise ValueError(f"There is no {what} {path!r}. Use {others}a dotted path, such as 'my_module.my_function'.")
    functions = vars(importlib.import_module(module))
    if function not in functions:
        raise ValueError(f"The module {module!r} has no function {function!r}.")
    return functions[function]
