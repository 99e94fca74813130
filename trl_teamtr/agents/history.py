"""The changes of members that a team has seen: who was replaced, added or removed, and after which update."""

from collections.abc import Sequence
from typing import Any

from .agent import Agent


# What an event may be
REPLACED, ADDED, REMOVED = "replaced", "added", "removed"


def history_of(agents: Sequence[Agent]) -> list[dict[str, Any]]:
    """The history of the team of `agents`. Those who are new to it do not know all of it."""
    return max((agent.history for agent in agents), key=len, default=[])


def add_event(agents: Sequence[Agent], event: dict[str, Any]):
    """Add a change to the history that all `agents` carry; in place of their lists, which others may hold."""
    history = [*history_of(agents), event]
    for agent in agents:
        agent.history = history


def describe_event(event: dict[str, Any]) -> str:
    """One event, for messages."""
    step = "" if event.get("step") is None else f" after update {event['step']}"
    change = f" ({event['before']} by {event['after']})" if event["event"] == REPLACED else ""
    return f"{event['member']!r} was {event['event']}{step}{change}"


def check_history(path: str, there: list[dict[str, Any]], here: list[dict[str, Any]]):
    """
    Raise unless the checkpoint in `path` has seen the same changes of members as the team of the run.

    Args:
        path (`str`): The checkpoint.
        there, here (`list[dict]`): Its history, and that of the team of the run. A team that was put together by hand has
            none, and takes over the checkpoint's.

    Raises:
        `ValueError`: If they differ. The message says in what.
    """
    if not here or here == there:
        return
    if here[: len(there)] == there:
        missing = "; ".join(describe_event(event) for event in here[len(there) :])
        raise ValueError(
            f"{path!r} is from before a change of this team: {missing}. Resume from a checkpoint that was saved after it, or train "
            "the team of that checkpoint further: pass the checkpoint as `model` too."
        )
    only = [event for event in there if event not in here] or [event for event in here if event not in there]
    raise ValueError(
        f"{path!r} is of a team with another history than this run's: {'; '.join(map(describe_event, only))}. Pass the checkpoint "
        "as `model` too, so that both are the same team."
    )
