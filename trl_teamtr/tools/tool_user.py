"""An agent with tools: which it has, how its calls are read, and how long their results may be."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..conversation.control_tokens import SafeEncoder
from ..conversation.thoughts import Reading, ThoughtParser
from ..conversation.tool_calls import find_call_parser
from ..conversation.transcript import ToolCall
from .schemas import make_schemas
from .toolbox import Result, Tool, Toolbox
from .worlds import World


# Tokens that encoding in pieces may add to a result
_SLACK = 4
# Hardly a token of a text is longer
_MAX_CHARACTERS = 64
# Ends a result that was cut
_CUT = " [cut]"


@dataclass(frozen=True)
class ToolSettings:
    """
    How tools are called. Fields and defaults are those of [`TeamTRConfig`].

    Args:
        max_tool_calling_iterations (`int`, *optional*): Maximum number of pauses of a message in which tools are called.
        tool_timeout (`float`, *optional*): Seconds that a call may take.
        max_tool_result_length (`int`): Maximum number of tokens of a result; what is longer is cut.
    """

    max_tool_calling_iterations: int | None = None
    tool_timeout: float | None = None
    max_tool_result_length: int = 512

    @classmethod
    def of(cls, args: Any) -> "ToolSettings":
        """The settings of `args`, which has the same fields, e.g. a [`TeamTRConfig`]."""
        return cls(args.max_tool_calling_iterations, args.tool_timeout, args.max_tool_result_length)


class ToolUser:
    """
    What an agent's tools are, and what is left of their results.

    Args:
        name (`str`): The agent.
        tools (`Sequence[Callable]`): Its functions, and the methods of an environment, which are called on those of a rollout.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): Its tokenizer.
        settings ([`ToolSettings`]): How they are called.
        thoughts ([`ThoughtParser`], *optional*): Reads its messages without calls, if its thoughts are private.
        shows_tools (`bool`): Whether the other agents read its calls and their results.

    Attributes:
        schemas (`list[dict]`): JSON schemas of the tools.
        max_uses (`int`): Maximum number of pauses of a message.

    Raises:
        `ValueError`: If a tool cannot be described, or the agent's chat template knows no tools.
    """

    def __init__(
        self,
        name: str,
        tools: Sequence[Tool],
        tokenizer: PreTrainedTokenizerBase,
        settings: ToolSettings,
        thoughts: ThoughtParser | None = None,
        shows_tools: bool = False,
    ):
        self.schemas = make_schemas(tools, name)
        self._name, self.shows_tools = name, shows_tools
        self._parser = find_call_parser(tokenizer, self.schemas, thoughts, name)
        self._tools: Mapping[str, Tool] = {
            schema["function"]["name"]: tool for schema, tool in zip(self.schemas, tools, strict=True)
        }
        self._toolbox = Toolbox(settings.tool_timeout)
        self._max_length, self._encoder = settings.max_tool_result_length, SafeEncoder(tokenizer)
        given = settings.max_tool_calling_iterations
        self.max_uses = sys.maxsize if given is None else given

    def read(self, ids: Sequence[int], text: str, context: list[int]) -> Reading:
        """As [`~ThoughtParser.read`], with the calls in the message."""
        return self._parser.read(ids, text, context)

    def reserve(self, count: int) -> int:
        """Number of tokens that `count` results may take, without what the template writes around them."""
        return count * (self._max_length + _SLACK)

    def execute(self, reading: Reading, world: World | None) -> list[Result]:
        """The results of the calls in a message, on the environments of its rollout if it has some. None of them is too long."""
        if reading.fault:
            return [Result(self._cut(str({"error": reading.fault})), True) for _ in reading.calls]
        return [self.call(call, world) for call in reading.calls]

    def call(self, call: ToolCall, world: World | None) -> Result:
        """The result of one call."""
        own = {} if world is None else world.tools_of(self._name)
        result = self._toolbox.execute(call, {**self._tools, **own})
        return Result(self._cut(result.text), result.failed)

    def _cut(self, text: str) -> str:
        """`text`, or its beginning if it has more tokens than a result may have."""
        longest = self._max_length * _MAX_CHARACTERS
        kept, count = text[:longest], len(self._encode(text[:longest]))
        if len(text) <= longest and count <= self._max_length:
            return text
        room = max(self._max_length - len(self._encode(_CUT)), 0)
        while count > room:
            # Characters in proportion to tokens, and one fewer, until they fit
            kept = kept[: min(len(kept) - 1, len(kept) * room // count)]
            count = len(self._encode(kept))
        return kept + _CUT

    def _encode(self, text: str) -> list[int]:
        return self._encoder.encode("\ue000", {"\ue000": text})
