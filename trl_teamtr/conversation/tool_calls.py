"""Calls of tools in what an agent has written, as its chat template writes them."""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase
from trl.chat_template_utils import parse_response, supports_tool_calling

from .thoughts import Reading, TemplateParser, ThoughtParser, with_response_template
from .transcript import ToolCall


# Name of the tool of a call that cannot be read
UNREADABLE = "unreadable"
_FAULT = "the call could not be read: write it as the instructions for tools say"


class CallParser:
    """
    Reads messages of an agent with tools, by TRL's response parsing.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): The author's, with a response template or schema.
        tools (`Sequence[dict]`): JSON schemas of its tools, by which arguments are typed.
        thoughts ([`ThoughtParser`], *optional*): Reads messages without calls, and says that thoughts are private.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, tools: Sequence[dict], thoughts: ThoughtParser | None):
        self._tokenizer, self._thoughts = tokenizer, thoughts
        self._tools: list[dict | Callable] = list(tools)
        self._opening = _find_opening(tokenizer)

    def read(self, ids: Sequence[int], text: str, context: list[int]) -> Reading:
        parsed = parse_response(self._tokenizer, list(ids), prefix=context, tools=self._tools)
        found = parsed.get("tool_calls") or []
        if not found:
            return self._read_without_calls(parsed, ids, text, context)
        thought = parsed.get("reasoning_content") or parsed.get("thinking") or ""
        # What ends a message with calls may be another token than TRL's parser expects (GLM)
        said = parsed["content"].strip().removesuffix(self._decode(ids[-1:])).strip()
        if self._thoughts is None:
            thought, said = "", "\n".join(part for part in (thought.strip(), said) if part)
        functions = [call.get("function", call) for call in found]
        faulty = [function for function in functions if not isinstance(function["arguments"], dict)]
        if faulty:
            fault = f"the arguments of {faulty[0]['name']} are not a JSON object"
            return Reading(said, thought, (ToolCall(faulty[0]["name"]),), fault)
        return Reading(said, thought, tuple(_as_call(function) for function in functions))

    def _read_without_calls(
        self, parsed: dict[str, Any], ids: Sequence[int], text: str, context: list[int]
    ) -> Reading:
        """A message in which no call was found. If it begins one nevertheless, that is malformed, or not yet whole."""
        if self._thoughts is None:
            reading = Reading(text)
        elif isinstance(self._thoughts, TemplateParser):
            reading = self._thoughts.divide(parsed, ids, text, context)
        else:
            reading = self._thoughts.read(ids, text, context)
        if self._opening is None:
            return reading
        raw = self._decode(ids)
        begin = raw.index(reading.thought) + len(reading.thought) if reading.thought in raw else 0
        # LFM2's pattern also matches what stands between two calls
        calls = (match for match in self._opening.finditer(raw, begin) if not match.group().startswith(","))
        call = next(calls, None)
        if call is None:
            return reading
        length = next(length for length in range(len(ids) + 1) if len(self._decode(ids[:length])) >= call.start())
        said = str(self._tokenizer.decode(list(ids[:length]), skip_special_tokens=True))
        before = Reading(said)
        if self._thoughts is not None and length > 0:
            before = self._thoughts.read(ids[:length], said, context)
        return Reading(before.answer.strip(), reading.thought, (ToolCall(UNREADABLE),), _FAULT)

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids)))


def find_call_parser(
    tokenizer: PreTrainedTokenizerBase, tools: Sequence[dict], thoughts: ThoughtParser | None, name: str
) -> CallParser:
    """
    The parser of calls of agent `name`.

    Raises:
        `ValueError`: If its chat template cannot write calls and results, or nobody knows how to read them.
    """
    if not supports_tool_calling(tokenizer):
        raise ValueError(
            f"Agent {name!r} has tools, but its chat template does not write calls and results of tools. Set `processing_class` to "
            "the tokenizer of a model that was trained to call tools, or leave out its `tools`."
        )
    own = with_response_template(tokenizer)
    if own is None:
        raise ValueError(
            f"Agent {name!r} has tools, but neither its tokenizer nor TRL knows how its chat template writes calls. Set "
            "`tokenizer.response_template` (see «response parsing» in the documentation of transformers)."
        )
    parser = CallParser(own, tools, thoughts)
    _check_parser(parser, tokenizer, tools[0]["function"]["name"], name)
    return parser


def _check_parser(parser: CallParser, tokenizer: PreTrainedTokenizerBase, tool: str, name: str):
    """Raise `ValueError` unless `parser` finds the call of `tool` that the template writes."""
    user: dict[str, Any] = {"role": "user", "content": "dummy"}
    call = {"type": "function", "function": {"name": tool, "arguments": {}}}
    opening = str(tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True))
    turns = [user, {"role": "assistant", "content": "", "tool_calls": [call]}]
    written = str(tokenizer.apply_chat_template(turns, tokenize=False))[len(opening) :]
    context, ids = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (opening, written))
    if not any(each.name == tool for each in parser.read(ids, written, context).calls):
        raise ValueError(
            f"Agent {name!r} has tools, but its response template does not find the call {written!r}, as its chat template writes it. "
            "Mend `tokenizer.response_template` (see «response parsing» in the documentation of transformers)."
        )


def _as_call(function: dict[str, Any]) -> ToolCall:
    return ToolCall(function["name"], json.dumps(function["arguments"], ensure_ascii=False))


def _find_opening(tokenizer: Any) -> re.Pattern | None:
    """What begins a call in the response template of `tokenizer`, if it has one."""
    template = vars(tokenizer).get("response_template")
    field = template["fields"].get("tool_calls") if template is not None else None
    if field is None:
        return None
    if "open_pattern" in field:
        return re.compile(field["open_pattern"])
    marks = [field["open"]] if isinstance(field["open"], str) else field["open"]
    return re.compile("|".join(map(re.escape, marks)))
