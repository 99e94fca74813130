"""Calls of tools: whatever goes wrong becomes a result that the model reads."""

import asyncio
import threading

import pytest

from trl_teamtr.conversation.transcript import ToolCall
from trl_teamtr.tools.toolbox import Result, Toolbox


never = threading.Event()


def add(a: int, b: int = 1) -> int:
    return a + b


def fail():
    raise KeyError("no such flight")


def hang():
    never.wait(30)


async def later(a: int) -> str:
    await asyncio.sleep(0)
    return f"async {a}"


async def hang_later():
    await asyncio.sleep(30)


async def fail_later():
    raise RuntimeError("broken")


def blocks():
    return [{"type": "text", "text": "seen"}, {"type": "image", "image": None}, {"type": "text", "text": "heard"}]


TOOLS = {f.__name__: f for f in (add, fail, hang, later, hang_later, fail_later, blocks)} | {"nothing": lambda: None}
FAULTS = [
    (ToolCall("fail"), "no such flight"),
    (ToolCall("fail_later"), "broken"),
    (ToolCall("subtract"), "There is no tool 'subtract'. Those that you have: add, fail,"),
    (ToolCall("add", '{"c": 1}'), "add does not take these arguments: "),
    (ToolCall("add", "{}"), "add does not take these arguments: missing a required argument: 'a'"),
    (ToolCall("add", '{"a": "x"}'), "can only concatenate str"),
]
WORKING = [
    (ToolCall("add", '{"a": 2}'), "3"),
    (ToolCall("later", '{"a": 2}'), "async 2"),
    (ToolCall("nothing"), "None"),
    (ToolCall("blocks"), "seen\nheard"),
]


@pytest.mark.parametrize("timeout", [None, 10.0])
@pytest.mark.parametrize("call, text", WORKING)
def test_results_are_text(call, text, timeout):
    assert Toolbox(timeout).execute(call, TOOLS) == Result(text)


@pytest.mark.parametrize("timeout", [None, 10.0])
@pytest.mark.parametrize("call, message", FAULTS)
def test_faults_are_read_by_the_author_of_the_call(call, message, timeout):
    result = Toolbox(timeout).execute(call, TOOLS)
    assert result.failed and message in result.text and "error" in result.text


@pytest.mark.parametrize("name", ["hang", "hang_later"])
def test_a_tool_that_does_not_answer_in_time_is_left_behind(name):
    result = Toolbox(0.05).execute(ToolCall(name), TOOLS)
    assert result.failed and f"{name} has not answered within 0.05 seconds" in result.text
