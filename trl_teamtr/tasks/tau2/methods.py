"""Tools of inspect-evals as methods of an environment, with the schemas that transformers reads."""

import functools
import inspect
import json
import types
import typing
from collections.abc import Callable
from typing import Any


def as_method(tool: Callable[..., Any], name: str, party: str) -> Callable[..., str]:
    """
    A method that calls `self._call(party, name, arguments)`, with the signature and the description of a tool.

    Args:
        tool (`Callable`): The tool: a coroutine function with a docstring in Google's style.
        name (`str`): Its name.
        party (`str`): Who may call it.

    Raises:
        `ValueError`: If an argument has no description.
    """
    hints = {argument: _plain(hint) for argument, hint in typing.get_type_hints(tool).items()}
    signature = inspect.signature(tool)
    arguments = [each.replace(annotation=hints[each.name]) for each in signature.parameters.values()]

    def method(self, *args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        return self._call(party, name, bound.arguments)

    owner = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    for attribute, value in (
        ("__name__", name),
        ("__qualname__", name),
        ("__doc__", _docstring(tool, name)),
        ("__annotations__", {each.name: each.annotation for each in arguments} | {"return": str}),
        ("__signature__", inspect.Signature([owner, *arguments], return_annotation=str)),
    ):
        setattr(method, attribute, value)
    return method


def _plain(hint: Any) -> Any:
    """A type hint without pydantic's models, which a call has as dicts."""
    from pydantic import BaseModel

    if isinstance(hint, type) and not isinstance(hint, types.GenericAlias) and issubclass(hint, BaseModel):
        return dict
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return functools.reduce(lambda one, other: one | other, [_plain(each) for each in typing.get_args(hint)])
    if origin is list:
        return list[_plain(*typing.get_args(hint))]  # type: ignore[misc]
    return dict if origin is dict else hint


def _docstring(tool: Callable[..., Any], name: str) -> str:
    """The description of a tool and of its arguments, in the form that transformers reads: without types."""
    import docstring_parser

    found = docstring_parser.parse(inspect.getdoc(tool) or "", docstring_parser.DocstringStyle.GOOGLE)
    told = {each.arg_name: " ".join((each.description or "").split()) for each in found.params}
    lines = [" ".join((found.description or "").split())]
    missing = [argument for argument in inspect.signature(tool).parameters if not told.get(argument)]
    if missing or not lines[0]:
        raise ValueError(f"The tool {name!r} of inspect-evals lacks a description, of itself or of {missing}.")
    if told:
        lines += ["", "Args:", *(f"    {argument}: {text}" for argument, text in told.items())]
    return "\n".join(lines)


def run(tool: Callable[..., Any], arguments: dict[str, Any]) -> str:
    """
    Call a tool that never waits, and return its result as text.

    Raises:
        `RuntimeError`: If it waits.
    """
    coroutine = tool(**arguments)
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value if isinstance(end.value, str) else json.dumps(end.value, default=str)
    finally:
        coroutine.close()
    raise RuntimeError(f"A tool of inspect-evals waits for something: {tool}. No tool of version 0.26 does.")
