"""Executes the calls of an agent. What goes wrong becomes a result that the agent reads."""

import asyncio
import atexit
import functools
import inspect
import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any

from trl.trainer.utils import is_async_callable, shutdown_event_loop_in_daemon, start_event_loop_in_daemon

from ..conversation.transcript import ToolCall


Tool = Callable[..., Any]


@dataclass(frozen=True)
class Result:
    """
    The result of a call.

    Args:
        text (`str`): What the author of the call reads.
        failed (`bool`): Whether it is an error.
    """

    text: str
    failed: bool = False


class Toolbox:
    """
    Executes calls. What a tool raises, and a call of a tool that is not there, becomes an error result.

    Args:
        timeout (`float`, *optional*): Seconds that a call may take. With it, tools run in threads of their own, and one that does
            not answer in time is left behind.
    """

    def __init__(self, timeout: float | None = None):
        self._timeout = timeout

    def execute(self, call: ToolCall, tools: Mapping[str, Tool]) -> Result:
        """The result of a call of one of `tools`, by their names."""
        if call.name not in tools:
            names = ", ".join(tools) or "none"
            return _error(f"There is no tool {call.name!r}. Those that you have: {names}.")
        tool, arguments = tools[call.name], json.loads(call.arguments)
        try:
            inspect.signature(tool).bind(**arguments)
        except TypeError as error:
            return _error(f"{call.name} does not take these arguments: {error}.")
        asked = ask_async(tool, arguments) if is_async_callable(tool) else self._ask(tool, arguments, call.name)
        if not wait([asked], self._timeout).done:
            asked.cancel()
            return _error(f"{call.name} has not answered within {self._timeout} seconds.")
        try:
            return Result(_as_text(asked.result()))
        except Exception as error:  # of the user's function: the model reads it, and may do better
            return _error(str(error) or type(error).__name__)

    def _ask(self, tool: Tool, arguments: dict[str, Any], name: str) -> Future:
        """What a function answers, in a daemon thread if it may be left behind."""
        answer: Future = Future()

        def run():
            try:
                answer.set_result(tool(**arguments))
            except Exception as error:  # read by the model
                answer.set_exception(error)

        if self._timeout is None:
            run()
        else:
            threading.Thread(target=run, name=f"tool {name}", daemon=True).start()
        return answer


def _error(message: str) -> Result:
    return Result(str({"error": message}), True)


def _as_text(result: Any) -> str:
    """A result as text; for what TRL calls content blocks, the text in them."""
    if isinstance(result, list) and result and all(isinstance(part, dict) and "type" in part for part in result):
        return "\n".join(str(part["text"]) for part in result if part["type"] == "text")
    return str(result)


def ask_async(tool: Tool, arguments: dict[str, Any]) -> Future:
    """What an async function answers, in the event loop of all tools."""
    return asyncio.run_coroutine_threadsafe(tool(**arguments), _event_loop())


@functools.cache
def _event_loop() -> asyncio.AbstractEventLoop:
    """One loop for all calls of this process: clients are bound to the loop that made them."""
    thread, loop, ready = start_event_loop_in_daemon(name="Toolbox-AsyncLoop")
    ready.wait()
    atexit.register(shutdown_event_loop_in_daemon, thread, loop)
    return loop
