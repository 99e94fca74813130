"""What of a message is a thought, which only its author reads, and what is its answer."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from transformers import PreTrainedTokenizerBase
from trl.chat_template_utils import add_response_schema, parse_response

from .transcript import ToolCall


# Marks of thoughts of templates which TRL's parser does not find where the prompt has opened the thought and it never ends
_OPENING, _ENDING = "<think>", "</think>"
# What opens a channel in gpt-oss and Gemma 4
_CHANNEL = "<|channel"
# Number of the last tokens of a context within which its template may have opened a thought
_TAIL = 16


@dataclass(frozen=True)
class Reading:
    """
    A message as it is read.

    Args:
        answer (`str`): What everybody reads; empty if the message ended within a thought.
        thought (`str`): What only the author reads.
        calls (`tuple[ToolCall]`): The calls with which it ends, if its author has tools.
        fault (`str`): Why these cannot be executed, if they are malformed.
    """

    answer: str
    thought: str = ""
    calls: tuple[ToolCall, ...] = ()
    fault: str = ""


class ThoughtParser(Protocol):
    """Divides messages into thoughts and answers."""

    def read(self, ids: Sequence[int], text: str, context: list[int]) -> Reading:
        """
        Divide a message, or the beginning of one.

        Args:
            ids (`Sequence[int]`): Its ids.
            text (`str`): All of its text, without special tokens.
            context (`list[int]`): What it was sampled after.
        """
        ...


class TemplateParser:
    """
    Divides messages as the chat template of their author does, by TRL's response parsing. A message in which it finds no thought
    is read as it is.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): The author's, with a response template or schema.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self._tokenizer = tokenizer

    def read(self, ids: Sequence[int], text: str, context: list[int]) -> Reading:
        return self.divide(parse_response(self._tokenizer, list(ids), prefix=context), ids, text, context)

    def divide(self, parsed: dict[str, Any], ids: Sequence[int], text: str, context: list[int]) -> Reading:
        """[`~TemplateParser.read`] of a message that TRL has `parsed`."""
        thought = parsed.get("reasoning_content") or parsed.get("thinking") or ""
        if thought and "tool_calls" not in parsed:
            return Reading(parsed["content"], thought)
        # A call of a tool that it does not have is text as any other; one that is malformed hides its thought from TRL's parser
        before, ending, after = text.rpartition(_ENDING)
        if ending:
            return Reading(after.strip(), thought or before.replace(_OPENING, "").strip())
        if thought or self._is_within_thought(list(ids), text, parsed["content"], context):
            return Reading(parsed["content"] if thought else "", thought or text)
        read_as_it_is = "tool_calls" in parsed or parsed["content"].strip() == text.strip()
        return Reading(text if read_as_it_is else parsed["content"])

    def _is_within_thought(self, ids: list[int], text: str, content: str, context: list[int]) -> bool:
        """Whether a message without a mark of its end is a thought: the prompt has opened it, or a channel was not read."""
        tail, raw = (str(self._tokenizer.decode(own)) for own in (context[-_TAIL:], ids))
        unread = content if content.strip() != text.strip() else raw
        return tail.rstrip().endswith(_OPENING) or _CHANNEL in unread


class MarkParser:
    """
    Takes what stands before the last `ending` of a message for a thought. A message without one is an answer if it is finished,
    and else a thought.

    Args:
        ending (`str`): Text that ends a thought.
        eos_token_ids (`Sequence[int]`): Ids that end a message.
    """

    def __init__(self, ending: str, eos_token_ids: Sequence[int]):
        self._ending, self._ends = ending, set(eos_token_ids)

    def read(self, ids: Sequence[int], text: str, context: list[int]) -> Reading:
        thought, ending, answer = text.rpartition(self._ending)
        if ending:
            return Reading(answer.strip(), thought.strip())
        return Reading(text) if ids and ids[-1] in self._ends else Reading("", text)


def find_parser(
    tokenizer: PreTrainedTokenizerBase, ending: str | None, eos_token_ids: Sequence[int]
) -> ThoughtParser | None:
    """
    The parser of an agent's thoughts.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): The agent's, which is not changed.
        ending (`str`, *optional*): Text that ends its thoughts, if its user has named one.
        eos_token_ids (`Sequence[int]`): Ids that end its messages.

    Returns:
        [`ThoughtParser`], or `None` if neither the tokenizer nor TRL knows how its template writes thoughts.
    """
    if ending is not None:
        return MarkParser(ending, eos_token_ids)
    own = with_response_template(tokenizer)
    return None if own is None else TemplateParser(own)


def with_response_template(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase | None:
    """A copy of `tokenizer` that parses what its chat template writes; `None` if neither it nor TRL knows how."""
    own = copy.copy(tokenizer)
    if not {"response_template", "response_schema"} & {name for name, value in vars(own).items() if value is not None}:
        try:
            add_response_schema(own)
        except ValueError:  # so TRL says that it does not know the template
            return None
    return own
