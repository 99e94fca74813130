"""Datasets and rewards by name, for the scripts: the hub, local files, reasoning-gym, and the generated tasks."""

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
from .catalogue import BENCHMARKS, find_benchmark, is_stand_in, load_benchmark, reward_of
from .guess_number.dataset import make_dataset as make_guess_number
from .guess_number.reward import guess_number_reward
from .service_desk.dataset import make_dataset as make_service_desk
from .service_desk.reward import service_desk_reward
from .tau2.dataset import make_dataset as make_tau2
from .tau2.reward import tau2_reward


FORMATS = {".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv"}

REWARDS: dict[str, Callable[..., Any]] = {
    "accuracy_reward": accuracy_reward,
    "reasoning_accuracy_reward": reasoning_accuracy_reward,
    "think_format_reward": think_format_reward,
    "link": link.link_reward,
    "reasoning_gym": reasoning_gym.reasoning_gym_reward,
    "guess_number": guess_number_reward,
    "service_desk": service_desk_reward,
    "tau2": tau2_reward,
    **{name: benchmark.reward for name, benchmark in BENCHMARKS.items()},
}
# Sampled from a seed. These, and τ²-bench's, have the reward of their name
GENERATED = ("reasoning_gym", "link", "guess_number", "service_desk")


def load_split(
    name: str, split: str, size: int, seed: int, config: str | None = None, streaming: bool = False, **task_kwargs
) -> Dataset:
    """
    A dataset by name.

    Args:
        name (`str`): `reasoning_gym:<task>`, `link:<number of agents>`, `guess_number`, `service_desk`, `tau2:<domain>`, a
            published benchmark or its stand-in (`aime24`, `zebralogic:synthetic`; docs/tasks.md), a local JSON, JSON-lines,
            parquet or CSV file, or a dataset on the hub.
        split (`str`): Split of a hub dataset or of a domain of τ²-bench; a local file has only `"train"`.
        size, seed (`int`): Number of rows and seed of a generated task.
        config (`str`, *optional*): Configuration of a hub dataset.
        streaming (`bool`): Whether to stream a hub dataset.
        task_kwargs: Settings of a task of reasoning-gym, of `guess_number`, of `service_desk` or of a benchmark, for which
            `dataset_path` is a local file or a clone of its repository.

    Raises:
        `FileNotFoundError`: If `name` looks like a local file and there is none.
        `ValueError`: If a benchmark cannot be read, or `dataset_path` is given for something else.
    """
    kind, _, rest = name.partition(":")
    if find_benchmark(name) is not None:
        return load_benchmark(name, split, size, seed, **task_kwargs)
    if task_kwargs.pop("dataset_path", None) is not None:
        raise ValueError(f"`dataset_path` is for {', '.join(BENCHMARKS)}. Set `dataset_name` to the path itself.")
    if kind == "reasoning_gym":
        return reasoning_gym.make_dataset(rest, size, seed, **task_kwargs)
    if kind == "link":
        return link.make_dataset(int(rest), size, seed)
    if name == "guess_number":
        return make_guess_number(size, seed, **task_kwargs)
    if name == "service_desk":
        return make_service_desk(size, seed, **task_kwargs)
    if kind == "tau2":
        return make_tau2(rest, split)
    extension = os.path.splitext(name)[1]
    if extension in FORMATS:
        if not os.path.isfile(name):
            raise FileNotFoundError(f"There is no file {name!r}. Give its path from {os.getcwd()!r}, or a full one.")
        return load_dataset(FORMATS[extension], data_files=name, split="train")
    return load_dataset(name, name=config, split=split, streaming=streaming)


def hold_out(dataset: Dataset, size: int, seed: int) -> tuple[Dataset, Dataset]:
    """
    Split a generated task into training and held-out rows that share no task: no prompt, with its private prompts and
    its secret, is in both. At most a quarter of the distinct tasks is held out.

    Args:
        dataset ([`~datasets.Dataset`]): Rows with `prompt`, and `agent_prompts` and `secret` if there are any.
        size (`int`): Largest number of held-out rows.
        seed (`int`): Which tasks are held out.
    """
    columns = [name for name in ("prompt", "agent_prompts", "secret") if name in dataset.column_names]
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
    if kind in BENCHMARKS:
        scorer = reward_of(dataset_name)
        return next(name for name in (kind, *REWARDS) if REWARDS[name] is scorer)
    return kind if kind in (*GENERATED, "tau2") else None


def is_generated(dataset_name: str) -> bool:
    """Whether the rows of a dataset are sampled, so that some can be held out, rather than come with splits."""
    return dataset_name.partition(":")[0] in GENERATED or is_stand_in(dataset_name)


def is_undivided(dataset_name: str) -> bool:
    """Whether a dataset is a benchmark with one split alone, so that some rows have to be held out of a training on it."""
    benchmark = find_benchmark(dataset_name)
    return benchmark is not None and benchmark.source is not None and not is_stand_in(dataset_name)


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
