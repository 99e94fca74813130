from enum import Enum
from typing import Any

import pytest
from pydantic import BaseModel
from transformers.utils import get_json_schema

from trl_teamtr.tasks.tau2.methods import as_method, run


pytest.importorskip("docstring_parser")  # comes with the extra `tau`


class Mode(Enum):
    ON = "on"
    OFF = "off"


class Settings(BaseModel):
    level: int


async def change(mode: Mode | str, settings: list[Settings | dict[str, Any]], often: int = 1) -> str:
    """Changes a thing. Or not,
    as it happens.

    Args:
        mode (Mode | str): The mode.
        settings: Some of them: {"level": 1},
            or more.
        often: How often.

    Returns:
        What it did.

    Raises:
        ValueError: Never.
    """
    return f"{mode} {settings} {often}"


class World:
    def __init__(self):
        self.calls = []

    def _call(self, party, name, arguments):
        self.calls.append((party, name, dict(arguments)))
        return "done"

    change = as_method(change, "change", "user")


def test_method_has_the_tools_schema_without_models():
    schema = get_json_schema(World().change)["function"]
    assert schema["name"] == "change" and schema["description"] == "Changes a thing. Or not, as it happens."
    properties = schema["parameters"]["properties"]
    assert list(properties) == ["mode", "settings", "often"] and schema["parameters"]["required"] == [
        "mode",
        "settings",
    ]
    assert properties["settings"]["type"] == "array" and "object" in str(properties["settings"]["items"])
    assert properties["settings"]["description"] == 'Some of them: {"level": 1}, or more.'
    assert properties["often"]["type"] == "integer"


def test_method_passes_its_arguments_by_name():
    world = World()
    assert world.change("on", settings=[{"level": 1}]) == "done"
    assert world.calls == [("user", "change", {"mode": "on", "settings": [{"level": 1}]})]
    for wrong in ({}, {"mode": "on"}, {"mode": "on", "settings": [], "other": 1}):
        with pytest.raises(TypeError):
            world.change(**wrong)
    assert len(world.calls) == 1


def test_tool_without_descriptions_is_refused():
    async def bare(number: int) -> str:
        """Does a thing."""

    async def silent() -> str:
        pass

    for tool in (bare, silent):
        with pytest.raises(ValueError, match="lacks a description"):
            as_method(tool, "tool", "user")


def test_run_returns_text_and_raises_what_the_tool_raises():
    async def text() -> str:
        return "a"

    async def table() -> dict:
        return {"a": 1}

    async def broken() -> str:
        raise KeyError("b")

    assert run(text, {}) == "a" and run(table, {}) == '{"a": 1}'
    with pytest.raises(KeyError):
        run(broken, {})


def test_tool_that_waits_is_refused():
    class Waits:
        def __await__(self):
            yield

    async def slow() -> str:
        await Waits()

    with pytest.raises(RuntimeError, match="waits for something"):
        run(slow, {})
