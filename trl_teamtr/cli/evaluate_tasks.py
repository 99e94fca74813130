"""`trl-teamtr evaluate --tasks`: several benchmarks, one table and one JSON file, which an interrupted evaluation goes on from."""

import copy
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..agents.team_file import has_environment
from ..evaluation.equipment import ACTED
from ..evaluation.task_table import format_task_table
from ..tasks.catalogue import BENCHMARKS, Benchmark, find_benchmark
from ..tasks.loading import default_reward


# What tells one saved team from another that is saved in its place
_WEIGHTS = ("team.json", "*.safetensors")


def check_tasks(tasks: Sequence[str], paths: dict[str, str], protocols: Sequence[str], team: str | None):
    """
    Raise before anything is loaded.

    Args:
        tasks (`Sequence[str]`): The benchmarks.
        paths (`dict[str, str]`): `dataset_path` of some of them.
        protocols (`Sequence[str]`): What is evaluated.
        team (`str`, *optional*): The saved team.

    Raises:
        `ValueError`: If one is not known or given twice, a path is of none of them, a single model would be told the truth that
            a judge knows, or an environment and a protocol or the team do not go together.
    """
    unknown = [task for task in tasks if find_benchmark(task) is None]
    if unknown:
        raise ValueError(f"`tasks` names {', '.join(map(repr, unknown))}; it may hold {', '.join(BENCHMARKS)}.")
    if len(set(tasks)) < len(tasks):
        raise ValueError(f"`tasks` names a task twice: {', '.join(tasks)}.")
    if strange := set(paths) - set(tasks):
        raise ValueError(
            f"`task_paths` has {', '.join(sorted(strange))}, which is not among `tasks` ({', '.join(tasks)})."
        )
    judged = [task for task in tasks if _benchmark(task).judged]
    others = [protocol for protocol in protocols if protocol != "team"]
    if judged and others:
        raise ValueError(
            f"In {', '.join(judged)} a member of the team, the judge, knows the truth, and {', '.join(others)} would be told it too. "
            "Evaluate these tasks with `--protocols team`."
        )
    _check_environments(tasks, protocols, team)


def _check_environments(tasks: Sequence[str], protocols: Sequence[str], team: str | None):
    acted = [task for task in tasks if _benchmark(task).environment is not None]
    refused = [protocol for protocol in protocols if protocol not in ACTED]
    if acted and refused:
        raise ValueError(
            f"In {', '.join(acted)} agents act on an environment, on which {', '.join(refused)} cannot be played. Evaluate these tasks "
            f"with `--protocols {' '.join(ACTED)}`, or some of these."
        )
    told = [task for task in tasks if task not in acted]
    if told and team is not None and has_environment(team):
        raise ValueError(
            f"The team {team!r} acts on an environment of its own, which {', '.join(told)} does not have. Evaluate it on the dataset "
            "of that environment, with `dataset_name`."
        )


def _benchmark(task: str) -> Benchmark:
    return BENCHMARKS[task.partition(":")[0]]


def fingerprint(team: str | None) -> float | None:
    """When the weights of a saved team were last written; `None` if there is no such folder."""
    if team is None or not os.path.isdir(team):
        return None
    return max((file.stat().st_mtime for form in _WEIGHTS for file in Path(team).rglob(form)), default=None)


def read_finished(path: str | None, about: dict[str, Any]) -> dict[str, Any]:
    """
    The tasks that an earlier evaluation has finished, by its JSON file.

    Args:
        path (`str`, *optional*): The file; nothing is finished if there is none.
        about (`dict`): The settings of this evaluation.

    Raises:
        `ValueError`: If the file is of another evaluation.
    """
    if path is None or not os.path.isfile(path):
        return {}
    with open(path, encoding="utf-8") as file:
        content = json.load(file)
    before = {key: value for key, value in content.items() if key != "tasks"}
    now = json.loads(json.dumps(about))
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if "tasks" not in content or changed:
        told = (
            "; ".join(f"`{key}` was {before.get(key)!r} and is {now.get(key)!r}" for key in changed)
            or "it has no `tasks`"
        )
        raise ValueError(f"{path!r} is of another evaluation: {told}. Choose another `--output`, or delete the file.")
    return content["tasks"]


def write_results(path: str, about: dict[str, Any], tasks: dict[str, Any]):
    """Write the JSON file: whole, or not at all."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(f"{path}.part", "w", encoding="utf-8") as file:
        json.dump(about | {"tasks": tasks}, file, indent=2)
        file.write("\n")
    os.replace(f"{path}.part", path)


def evaluate_tasks(
    script_args: Any,
    about: dict[str, Any],
    evaluate: Callable[[Any], tuple[dict[str, Any], dict[str, Any]]],
    is_main: bool,
) -> dict[str, Any]:
    """
    Evaluate on one task after another, and write the JSON file after each. All processes call this together.

    Args:
        script_args (`EvaluationScriptArguments`): With `tasks`, `task_paths` and `output`.
        about (`dict`): The settings, which all tasks share.
        evaluate (`Callable`): Evaluates on the dataset of the arguments it is given: the results by protocol, and what there is to
            say of them.
        is_main (`bool`): Whether this process prints and writes.

    Returns:
        `dict[str, Any]`: By task, in the order of `tasks`: `rows`, `rewards` and `protocols`.
    """
    paths = read_paths(script_args.task_paths)
    about = about | {"weights_written": fingerprint(script_args.team), "task_paths": paths}
    finished = read_finished(script_args.output, about)
    for task in script_args.tasks:
        if task in finished:
            continue
        results, of_task = evaluate(_arguments_of(task, script_args, paths))
        figures = {protocol: result.as_dict() for protocol, result in results.items()}
        kept = {key: of_task[key] for key in ("rows", "rewards")}
        finished[task] = json.loads(json.dumps(kept | {"protocols": figures}))
        if is_main and script_args.output is not None:
            write_results(script_args.output, about, finished)
    found = {task: finished[task] for task in script_args.tasks}
    if is_main:
        print(format_task_table(found, [task for task in found if _benchmark(task).graded]))
    return found


def _arguments_of(task: str, script_args: Any, paths: dict[str, str]) -> Any:
    """`script_args` for one task alone, with its environment and its measure."""
    own, benchmark = copy.copy(script_args), _benchmark(task)
    own.dataset_name, own.dataset_path, own.eval_dataset_name = task, paths.get(task), None
    own.environment_factory = benchmark.environment
    own.reward_funcs = None if benchmark.acted else [default_reward(task)]
    return own


def read_paths(given: Any) -> dict[str, str]:
    """`task_paths`: a mapping from YAML, or text from the command line."""
    return json.loads(given) if isinstance(given, str) else given or {}
