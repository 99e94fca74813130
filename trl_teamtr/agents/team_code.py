"""Routers and stop conditions of a user in `team.json`: by their dotted paths, since code is not saved."""

import importlib
from collections.abc import Callable
from types import FunctionType
from typing import Any

from ..tasks.loading import load_function


# What a saved team may have of its user, as arguments of `Team.from_pretrained` and `TeamTRTrainer`
CODE = ("router", "stop_condition")


def describe_code(function: Callable[..., Any] | None) -> dict[str, str | None] | None:
    """
    What `team.json` says of a function of the user: its dotted path, which is `None` for one that cannot be imported (a lambda,
    an instance, a function of a script), and how it is shown.
    """
    return None if function is None else {"path": dotted_path(function), "shown": shown(function)}


def dotted_path(function: Callable[..., Any]) -> str | None:
    """Where a function can be imported from; `None` if it cannot."""
    if not isinstance(function, FunctionType) or function.__module__ == "__main__" or "." in function.__qualname__:
        return None
    found = vars(importlib.import_module(function.__module__)).get(function.__qualname__)
    return f"{function.__module__}.{function.__qualname__}" if found is function else None


def shown(function: Callable[..., Any]) -> str:
    """How a function is called in messages."""
    return function.__qualname__ if isinstance(function, FunctionType) else type(function).__qualname__


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
        if saved["path"] is None:
            raise ValueError(
                f"The team in {path!r} has a {name} of its own, {saved['shown']!r}, which cannot be imported, so that it was "
                f"not saved. Pass it as `{name}`, or define it in a module: then it is saved by its dotted path."
            )
        if not trusted:
            raise ValueError(
                f"The team in {path!r}, which was downloaded, names {saved['path']!r} as its {name}: it would be imported and called "
                f"here. Pass `trust_remote_code=True` if you trust the repository, or your own function as `{name}`."
            )
        try:
            found[name] = load_function(saved["path"], name)
        except ValueError as error:
            raise ValueError(
                f"The team in {path!r} has the {name} {saved['path']!r}, which is not there: {error} Install its module, or "
                f"pass another as `{name}`."
            ) from error
    return found
