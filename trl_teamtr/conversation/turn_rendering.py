"""How a member without a tokenizer here reads the transcript: as turns, whose texts are held as their bytes."""

import json
from collections.abc import Sequence

from .rendering import add_to_last_user_turn, join
from .transcript import Message, Transcript


# Ids beyond those of bytes, which no text contains: before a role, between it and what it says, and at the end of a message
TURN, SAYS, END = 256, 257, 258


def encode_text(text: str) -> list[int]:
    """The bytes of `text` in UTF-8, with question marks for what has none."""
    return list(text.encode("utf-8", "replace"))


def decode_text(ids: Sequence[int]) -> str:
    """The text of bytes, other ids left out."""
    return bytes(token for token in ids if token < TURN).decode("utf-8", "replace")


def encode_turns(turns: Sequence[dict[str, str]]) -> list[int]:
    """The turns of a conversation, one after another."""
    return [
        token for turn in turns for token in (TURN, *encode_text(turn["role"]), SAYS, *encode_text(turn["content"]))
    ]


# What comes before a message of the reader
_CUE = [TURN, *encode_text("assistant"), SAYS]


def decode_turns(context: Sequence[int]) -> list[dict[str, str]]:
    """
    The turns of a context, as a chat API takes them; without the last one, which is still to be said.

    Args:
        context (`Sequence[int]`): What a [`TurnRenderer`] has rendered, with messages of the reader in between.
    """
    turns, starts = [], [place for place, token in enumerate(context) if token == TURN]
    for start, end in zip(starts, starts[1:], strict=False):
        turn = list(context[start + 1 : end])
        place = turn.index(SAYS)
        turns.append({"role": decode_text(turn[:place]), "content": decode_text(turn[place + 1 :])})
    return turns


class TurnRenderer:
    """
    The turns of a chat API. What the member reads before it first speaks is as in a [`ChatRenderer`]: its system prompt, the
    prompt, and in the last user turn its private prompt and the messages so far, each with its author's name. A prompt that is
    text is a user turn. Messages between two of its own are one user turn.

    Args:
        name (`str`): The member's name.
        system_prompt (`str`, *optional*): Its system prompt.
    """

    forgets = False  # thoughts are not part of its messages here

    def __init__(self, name: str, system_prompt: str | None):
        self.name, self.system_prompt = name, system_prompt

    def opening(self, transcript: Transcript, messages: Sequence[Message]) -> list[int]:
        """What it reads before its first message."""
        prompt, system = transcript.prompt, self.system_prompt
        turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else json.loads(json.dumps(prompt))
        add_to_last_user_turn(turns, [transcript.private.get(self.name), *_quote(messages)])
        if turns[0]["role"] == "system":
            system = join([system, turns.pop(0)["content"]])
        if system:
            turns.insert(0, {"role": "system", "content": system})
        return encode_turns(turns) + _CUE

    def between(self, messages: Sequence[Message], own: Sequence[int]) -> tuple[int, list[int]]:
        """What it reads after a message of its own, up to the next one."""
        said = join(_quote(messages))
        return own[-1], (encode_turns([{"role": "user", "content": said}]) if said else []) + _CUE

    def check_turns(self):
        """Never raises: a chat API takes turns in any order."""


def _quote(messages: Sequence[Message]) -> list[str]:
    return [f"{message.agent}: {message.text.strip()}" for message in messages]
