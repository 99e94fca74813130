"""What an agent reads within its own message: the results of its calls, as its chat template writes them."""

import functools
import json
import os
from collections.abc import Callable, Sequence

from jinja2.exceptions import TemplateError

from .control_tokens import SafeEncoder


# Stands for the last argument of a call
_ARGUMENT = "argument7a0f"

# Renders turns, with or without the beginning of the answer to them
Render = Callable[[list[dict], bool], str]


class ResultRenderer:
    """
    Encodes results of tools. Whatever they contain stays text.

    Args:
        render (`Callable[[list[dict], bool], str]`): The reader's chat template.
        encoder ([`SafeEncoder`]): The reader's.
        eos_token_ids (`set[int]`): Ids that end the reader's messages.
        name (`str`): The reader, for messages.
    """

    def __init__(self, render: Render, encoder: SafeEncoder, eos_token_ids: set[int], name: str):
        self._render, self._encoder, self._ends, self._name = render, encoder, eos_token_ids, name
        self._after_call = functools.lru_cache(64)(self._render_after_call)

    @functools.cached_property
    def escapes(self) -> bool:
        """Whether the template writes results as JSON strings."""
        turns = _turns_with_calls(("tool",))
        return 'a\\"b' in self._render([*turns, {"role": "tool", "name": "tool", "content": 'a"b'}], True)

    @functools.cached_property
    def takes_several(self) -> bool:
        """Whether the template writes several calls of one message."""
        try:
            self._after_call(("tool", "tool"))
        except TemplateError:
            return False
        return True

    def encode(self, names: Sequence[str], results: Sequence[str], own: Sequence[int]) -> tuple[int, list[int]]:
        """
        What is read in place of the last id of `own`, and after it, up to where the reader goes on.

        Args:
            names (`Sequence[str]`): The tools that were called.
            results (`Sequence[str]`): Their results.
            own (`Sequence[int]`): The ids with which the reader called them.
        """
        written = [json.dumps(text, ensure_ascii=False)[1:-1] for text in results] if self.escapes else results
        untrusted = {_place(i): text for i, text in enumerate(written)}
        after = self._encoder.encode(self._after_call(tuple(names)), untrusted)
        last = own[-1]
        run = self._leading_controls(after)
        if last in after[:run]:
            return last, after[after.index(last) + 1 :]
        ending = next((place for place in range(run) if after[place] in self._ends), None)
        return (last, after) if ending is None else (after[ending], after[ending + 1 :])

    def _leading_controls(self, ids: Sequence[int]) -> int:
        """Number of `ids` before the first that is neither blank nor a control token."""
        for place, token in enumerate(ids):
            if token not in self._ends and token not in self._encoder.control_ids and self._is_text(token):
                return place
        return len(ids)

    def _is_text(self, token: int) -> bool:
        return bool(str(self._encoder.tokenizer.decode([token])).strip())

    def _render_after_call(self, names: tuple[str, ...]) -> str:
        """The template from the end of the last call on, with a place for each result."""
        turns = _turns_with_calls(names)
        results = [{"role": "tool", "name": name, "content": _place(i)} for i, name in enumerate(names)]
        # What a template writes before the last argument may depend on whether the turn is the last
        called, whole = (
            self._render(*case).rpartition(_ARGUMENT)[2] for case in ((turns, False), (turns + results, True))
        )
        shared = os.path.commonprefix([called, whole])
        if any(_place(i) not in whole for i in range(len(names))):
            raise ValueError(
                f"The chat template of agent {self._name!r} leaves out the results of tools. Set `processing_class` to a tokenizer "
                "whose template shows them, or give the agent no tools."
            )
        return whole[self._encoder.end_of_text(shared) :]


def _turns_with_calls(names: Sequence[str]) -> list[dict]:
    function = {"arguments": {"argument": _ARGUMENT}}
    calls = [{"type": "function", "function": {"name": name, **function}} for name in names]
    return [{"role": "user", "content": "dummy"}, {"role": "assistant", "content": "", "tool_calls": calls}]


def _place(number: int) -> str:
    return f"\ue000result {number}\ue001"
