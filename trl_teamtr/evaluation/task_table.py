"""One table over several tasks: of each task and protocol the accuracy with its interval, and the tokens."""

from collections.abc import Mapping, Sequence
from typing import Any


_NOTE = "* its measure is the mean reward, between 0 and 1: no answer is wholly right or wrong"


def format_task_table(tasks: Mapping[str, Mapping[str, Any]], graded: Sequence[str] = ()) -> str:
    """
    The results of several tasks as aligned columns of text.

    Args:
        tasks (`dict[str, dict]`): By task what the JSON file has of it: `protocols`, each as `ProtocolResult.as_dict`.
        graded (`Sequence[str]`): Tasks whose measure is the mean reward.

    Raises:
        `ValueError`: If there is no task.
    """
    if not tasks:
        raise ValueError("There are no results to put into a table.")
    first = next(iter(next(iter(tasks.values()))["protocols"].values()))
    k = [str(each) for each in first["pass_at_k"]]
    passes = [f"pass@{each}" for each in k]
    rows = [
        [
            "task",
            "protocol",
            "rows",
            *passes,
            f"avg@{first['num_samples']}",
            "95 % interval",
            "reward",
            "tokens/episode",
        ]
    ]
    for task, result in tasks.items():
        for protocol, found in result["protocols"].items():
            by_k = {str(each): value for each, value in found["pass_at_k"].items()}
            low, high = found["interval"]
            figures = [*(f"{by_k[each]:.3f}" for each in k), f"{found['accuracy']:.3f}", f"[{low:.3f}, {high:.3f}]"]
            if task in graded:
                figures = ["-"] * len(figures)
            name = protocol + "†" * (protocol == "best_of_n")
            head = [task + "*" * (task in graded), name, str(found["num_tasks"])]
            rows.append([*head, *figures, f"{found['reward']:.3f}", f"{found['tokens']:.1f}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([*map(str.ljust, row[:2], widths), *map(str.rjust, row[2:], widths[2:])]) for row in rows]
    if any(task in graded for task in tasks):
        lines.append(_NOTE)
    if any("best_of_n" in result["protocols"] for result in tasks.values()):
        lines.append("† chosen by the reward itself: an oracle, an upper bound on any choice among the samples")
    return "\n".join(lines)
