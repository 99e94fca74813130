"""An agent's own messages in its history, without its thoughts: as turns for its chat template."""

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

from .tool_calls import UNREADABLE


class Texts:
    """Texts that stand in turns as placeholders, so that nothing in them is read as a control token."""

    def __init__(self):
        self.untrusted: dict[str, str] = {}

    def put(self, text: str) -> str:
        """A placeholder for `text`; an empty text has none, so that a template that strips turns strips the blank before it."""
        if not text:
            return ""
        place = f"\ue000text {len(self.untrusted)}\ue001"
        self.untrusted[place] = text
        return place


class OwnTurns:
    """
    The turns of an agent's own messages.

    Args:
        render (`Callable[[list[dict], bool], str]`): Its chat template, with or without the beginning of an answer.
        tools (`Sequence[dict]`): JSON schemas of its tools.
    """

    def __init__(self, render: Callable[[list[dict], bool], str], tools: Sequence[dict]):
        # Names that the template also has from the schemas: others may be anything that the agent has written
        functions = [tool["function"] for tool in tools]
        self._known = {each["name"] for each in functions}
        self._known |= {name for each in functions for name in each["parameters"].get("properties", {})}
        self._render = render

    @functools.cached_property
    def _escapes(self) -> bool:
        """Whether the template writes arguments as JSON strings."""
        call = {"type": "function", "function": {"name": "tool", "arguments": {"argument": 'a"b'}}}
        turns: list[dict] = [
            {"role": "user", "content": "dummy"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
        return 'a\\"b' in self._render(turns, False)

    def make(self, said: Sequence[dict[str, Any]], texts: Texts, escapes_results: Callable[[], bool]) -> list[dict]:
        """
        Turns for one message, without its thoughts. A call that could not be read is left out with its error.

        Args:
            said (`Sequence[dict]`): The message ([`~Message.as_dicts`]).
            texts ([`Texts`]): Gets what the turns say.
            escapes_results (`Callable[[], bool]`): Whether the template writes results as JSON strings.
        """
        turns: list[dict] = []
        before: list[str] = []  # what was said with calls that are left out
        for part in said:
            if part["role"] == "tool":
                if part["name"] != UNREADABLE:
                    text = _as_json(part["content"]) if escapes_results() else part["content"]
                    turns.append({"role": "tool", "name": self._name(part["name"], texts), "content": texts.put(text)})
                continue
            before.append(part["content"].strip())
            calls = [call["function"] for call in part.get("tool_calls", [])]
            if any(call["name"] == UNREADABLE for call in calls):
                continue
            turn: dict[str, Any] = {
                "role": "assistant",
                "content": texts.put("\n\n".join(text for text in before if text)),
            }
            if calls:
                made = [
                    {"name": self._name(call["name"], texts), "arguments": self._hide(call["arguments"], texts)}
                    for call in calls
                ]
                turn["tool_calls"] = [{"type": "function", "function": function} for function in made]
            turns.append(turn)
            before = []
        return turns

    def _name(self, name: str, texts: Texts) -> str:
        return name if name in self._known else self._put(name, texts)

    def _hide(self, value: Any, texts: Texts) -> Any:
        """`value` with placeholders for all texts in it."""
        if isinstance(value, dict):
            return {self._name(name, texts): self._hide(each, texts) for name, each in value.items()}
        if isinstance(value, list):
            return [self._hide(each, texts) for each in value]
        return self._put(value, texts) if isinstance(value, str) else value

    def _put(self, text: str, texts: Texts) -> str:
        return texts.put(_as_json(text) if self._escapes else text)


def _as_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
