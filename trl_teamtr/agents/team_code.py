"""Routers, stop conditions and tools of a user in `team.json`: by their dotted paths, since code is not saved."""

import importlib
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

from ..tasks.loading import load_function
from .agent import Agent


# What a saved team may have of its user, as arguments of `Team.from_pretrained` and `TeamTRTrainer`
CODE = ("router", "stop_condition", "environment_factory")


def describe_code(function: Callable[..., Any] | None) -> dict[str, str | None] | None:
    """
    What `team.json` says of a function of the user: its dotted path, which is `None` for one that cannot be imported (a lambda,
    an instance, a function of a script), and how it is shown.
    """
    return None if function is None else {"path": dotted_path(function), "shown": shown(function)}


def dotted_path(function: Callable[..., Any]) -> str | None:
    """Where a function or a class can be imported from; `None` if it cannot."""
    if (
        not isinstance(function, FunctionType | type)
        or function.__module__ == "__main__"
        or "." in function.__qualname__
    ):
        return None
    found = vars(importlib.import_module(function.__module__)).get(function.__qualname__)
    return f"{function.__module__}.{function.__qualname__}" if found is function else None


def shown(function: Callable[..., Any]) -> str:
    """How a function is called in messages."""
    return function.__qualname__ if isinstance(function, FunctionType | type) else type(function).__qualname__


def describe_tools(agent: Agent) -> dict[str, Any]:
    """What `team.json` says of the tools of `agent`: functions by their paths, methods of environments by their names."""
    if agent.tools is None and agent.environment_factory is None:
        return {}
    tools = [tool if isinstance(tool, str) else describe_code(tool) for tool in agent.tools or []]
    return {
        "tools": None if agent.tools is None else tools,
        "environment_factory": describe_code(agent.environment_factory),
    }


def load_tools(entry: dict[str, Any], given: Sequence[Callable], path: str, trusted: bool) -> dict[str, Any]:
    """
    The `tools` and the `environment_factory` of an agent, from what `team.json` says of them.

    Args:
        entry (`dict`): What it says of the agent.
        given (`Sequence[Callable]`): Functions and classes that are taken instead of saved ones of their names.
        path (`str`): The team's directory, for messages.
        trusted (`bool`): Whether what `team.json` names may be imported and called.

    Raises:
        `ValueError`: As [`find_code`].
    """
    own = {shown(tool): tool for tool in given}

    def load(saved: dict[str, Any] | str | None) -> Any:
        if saved is None or isinstance(saved, str):
            return saved
        if saved["shown"] in own:
            return own[saved["shown"]]
        return _import(saved, f"tool {saved['shown']!r} of agent {entry['name']!r}", "tools=[...]", path, trusted)

    tools = entry.get("tools")
    return {
        "tools": None if tools is None else [load(tool) for tool in tools],
        "environment_factory": load(entry.get("environment_factory")),
    }


def find_code(description: dict[str, Any], given: dict[str, Any], path: str, trusted: bool = True) -> dict[str, Any]:
    """
    The functions in `CODE` of a saved team: those that are `given`, else those that its `team.json` names.

    Args:
        description (`dict`): The content of `team.json`.
        given (`dict`): Functions by their names in `CODE`; `None` for one that is not given.
        path (`str`): The team's directory, for messages.
        trusted (`bool`): Whether what `team.json` names may be imported and called.

    Raises:
        `ValueError`: If one was saved without a dotted path and is not given, is not where its path says, or is not trusted.
    """
    found = dict(given)
    for name in CODE:
        saved = (description.get("code") or {}).get(name)
        if given.get(name) is not None or saved is None:
            continue
        found[name] = _import(saved, name, name, path, trusted)
    return found


def _import(saved: dict[str, Any], name: str, argument: str, path: str, trusted: bool) -> Any:
    """What `team.json` describes as the `name` of a team; it could be passed as `argument` instead."""
    if saved["path"] is None:
        raise ValueError(
            f"The team in {path!r} has a {name} of its own, {saved['shown']!r}, which cannot be imported, so that it was "
            f"not saved. Pass it as `{argument}`, or define it in a module: then it is saved by its dotted path."
        )
    if not trusted:
        raise ValueError(
            f"The team in {path!r}, which was downloaded, names {saved['path']!r} as its {name}: it would be imported and called "
            f"here. Pass `trust_remote_code=True` if you trust the repository, or your own function as `{argument}`."
        )
    try:
        return load_function(saved["path"], name)
    except ValueError as error:
        raise ValueError(
            f"The team in {path!r} has the {name} {saved['path']!r}, which is not there: {error} Install its module, or "
            f"pass another as `{argument}`."
        ) from error
