"""Answers in OpenAI's format, with the talk of the team beside them."""

import json
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from ..conversation.transcript import Message
from ..rollouts.talks import Piece, Talk


@dataclass(frozen=True)
class Heading:
    """
    What all parts of an answer have in common.

    Args:
        model (`str`): The model that was asked for.
        seed (`int`): The seed with which the answer can be had again.
    """

    model: str
    seed: int | None
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def fields(self, kind: str) -> dict[str, Any]:
        """The fields at the top of an object of this kind."""
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def whole_answer(heading: Heading, talks: list[Talk]) -> dict[str, Any]:
    """The answer to a request that is not streamed, one choice for each of its talks."""
    choices: list[dict[str, Any]] = [
        {
            "index": index,
            "message": {"role": "assistant", "content": talk.transcript.final_text, "refusal": None},
            "logprobs": None,
            "finish_reason": finish_reason(talk),
            "teamtr": {"transcript": [_describe(message) for message in talk.transcript.messages]},
        }
        for index, talk in enumerate(talks)
    ]
    team = {"seed": heading.seed, "transcript": choices[0]["teamtr"]["transcript"]}
    return heading.fields("chat.completion") | {"choices": choices, "usage": usage(talks), "teamtr": team}


def usage(talks: list[Talk]) -> dict[str, int]:
    """Tokens of the prompt, as the first speaker reads it, and of all messages of all agents."""
    read = sum(talk.prompt_length for talk in talks[:1])
    written = sum(message.num_tokens for talk in talks for message in talk.transcript.messages)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def finish_reason(talk: Talk) -> str:
    """`"stop"`, or `"length"` if the last message was cut, or the next speaker had no room."""
    messages = talk.transcript.messages
    return "stop" if messages and messages[-1].finished and talk.full is None else "length"


class StreamedChoice:
    """
    The chunks of one choice. The answer is the last message, and which one that is shows at its end; where no turn can follow,
    its pieces are passed on at once. All messages come as they are generated in `teamtr`.

    Args:
        heading ([`Heading`]): Of the answer.
        index (`int`): Of the choice.
        last_turn (`int`): The turn that none can follow.
    """

    def __init__(self, heading: Heading, index: int, last_turn: int):
        self._heading, self._index, self._last_turn = heading, index, last_turn
        self._sent = False

    def begin(self) -> dict[str, Any]:
        """The first chunk."""
        return self._chunk({"role": "assistant", "content": ""})

    def hear(self, event: Piece | Message) -> dict[str, Any]:
        """The chunk of what a talk has passed on."""
        if isinstance(event, Message):
            return self._chunk({}, {"agent": event.agent, "message": event.text, "finished": event.finished})
        own = {"agent": event.agent, "turn": event.turn, "text": event.text}
        if event.turn < self._last_turn or not event.text:
            return self._chunk({}, own)
        self._sent = True
        return self._chunk({"content": event.text}, own)

    def end(self, talk: Talk) -> list[dict[str, Any]]:
        """The chunks at the end of the talk."""
        answer = talk.transcript.final_text
        rest = [] if self._sent or not answer else [self._chunk({"content": answer})]
        return [*rest, self._chunk({}, None, finish_reason(talk))]

    def _chunk(self, delta: dict, team: dict | None = None, reason: str | None = None) -> dict[str, Any]:
        choice = {"index": self._index, "delta": delta, "logprobs": None, "finish_reason": reason}
        fields = self._heading.fields("chat.completion.chunk") | {"choices": [choice]}
        return fields if team is None else fields | {"teamtr": {"choice": self._index, **team}}


def usage_chunk(heading: Heading, talks: list[Talk]) -> dict[str, Any]:
    """The chunk that `stream_options={"include_usage": true}` asks for."""
    return heading.fields("chat.completion.chunk") | {"choices": [], "usage": usage(talks)}


def as_event(content: dict[str, Any] | str) -> str:
    """A server-sent event."""
    return f"data: {content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)}\n\n"


def _describe(message: Message) -> dict[str, Any]:
    tools = {"tools": [str(use) for use in message.tool_uses]} if message.tool_uses else {}
    return {
        **tools,
        "role": "assistant",
        "name": message.agent,
        "content": message.text,
        "tokens": message.num_tokens,
        "finished": message.finished,
    }
