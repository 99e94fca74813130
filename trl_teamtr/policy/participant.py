"""A member that takes turns: it reads transcripts and writes messages, wherever its model is."""

import copy
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from accelerate import Accelerator

from ..agents.agent import Agent
from ..agents.settings import SamplingSettings
from ..conversation.rendering import Renderer
from ..conversation.streaming import IncrementalText
from ..conversation.transcript import Message
from ..conversation.turn_rendering import TurnRenderer
from ..tools import ToolUser
from .backend import Backend, Request, Written
from .drawing import Draw
from .processes import union


Self = TypeVar("Self", bound="Participant")


class Participant(ABC):
    """
    A member of a team in conversation. [`Speaker`] has its model here; [`RemoteSpeaker`] asks an endpoint.

    Args:
        agent ([`Agent`]): The member, for its name and its system prompt.
        backend ([`Backend`]): Samples its messages.
        accelerator ([`~accelerate.Accelerator`]): Of the processes that let it speak together.
        sampling ([`SamplingSettings`]): How it samples.
        eos_token_ids (`list[int]`): Ids that end its messages.
        max_view_length (`int`): Maximum number of tokens of a view with the next message.
        alone (`bool`): Whether the team has one agent.

    Attributes:
        name (`str`): The agent's name.
        tools ([`ToolUser`] or `None`): Its tools.
    """

    def __init__(
        self,
        agent: Agent,
        backend: Backend,
        accelerator: Accelerator,
        sampling: SamplingSettings,
        eos_token_ids: list[int],
        max_view_length: int = sys.maxsize,
        alone: bool = False,
    ):
        self.agent, self.name = agent, agent.name
        self.backend, self.accelerator, self.sampling = backend, accelerator, sampling
        self.eos_token_ids, self.max_view_length = eos_token_ids, max_view_length
        self._alone = alone
        self.tools: ToolUser | None = None
        self._renderers: dict[bool, Renderer | TurnRenderer] = {}

    def by_itself(self: Self) -> Self:
        """The same agent, with the same model, in a team of its own."""
        speaker = copy.copy(self)
        speaker._alone, speaker._renderers = True, {}
        return speaker

    @property
    @abstractmethod
    def takes_conversations(self) -> bool:
        """Whether it reads prompts that are conversations."""

    @property
    def room(self) -> int:
        """Maximum number of tokens in its context when it begins a message."""
        return self.max_view_length - (self.sampling.max_completion_length or 1)

    def limit(self, context: list[int]) -> int:
        """Maximum number of tokens of a message after `context`."""
        limit = self.sampling.max_completion_length
        return self.max_view_length - len(context) if limit is None else limit

    @abstractmethod
    def fix_date(self, date: str | None):
        """Let what it reads have the date `date`, a `YYYY-MM-DD`, from now on; today for `None`."""

    def renderer_for(self, prompt: str | list[dict]) -> Renderer | TurnRenderer:
        """The renderer for a rollout of `prompt`."""
        chat = not isinstance(prompt, str)
        if chat not in self._renderers:
            self._renderers[chat] = self._make_renderer(chat)
        return self._renderers[chat]

    @abstractmethod
    def _make_renderer(self, chat: bool) -> Renderer | TurnRenderer:
        """The renderer for prompts that are conversations, or text."""

    @abstractmethod
    def incremental_text(self, context: list[int]) -> IncrementalText | None:
        """What makes text of the ids of a message after `context` as they come; `None` if it comes as a whole."""

    def speak(self, contexts: list[list[int]], beginnings: Sequence[tuple[int, ...]] | None = None) -> list[Message]:
        """
        Sample one message for each context with the current weights.

        Args:
            contexts (`list[list[int]]`): Token ids. All processes call this together; one may pass none.
            beginnings (`list[tuple[int]]`, *optional*): For each context the ids that its message begins with.
        """
        (messages,) = speak_together([self.begin(contexts, beginnings)])
        return messages

    def begin(
        self,
        contexts: list[list[int]],
        beginnings: Sequence[tuple[int, ...]] | None = None,
        draws: Sequence[Draw | None] | None = None,
    ) -> "Begun":
        """
        The messages of [`~Participant.speak`] as far as they go, with requests for the rest. `draws` says of each how it is
        drawn, if apart from the others.
        """
        draws = draws if draws is not None else [None] * len(contexts)
        caps = [None if draw is None else draw.max_tokens for draw in draws]
        own = [self.limit(context) for context in contexts]
        limits = [limit if cap is None else min(limit, cap) for limit, cap in zip(own, caps, strict=True)]
        ends = set(self.eos_token_ids)
        ids: list[tuple[int, ...]] = list(beginnings) if beginnings is not None else [()] * len(contexts)
        unfinished = [i for i, own in enumerate(ids) if len(own) < limits[i] and not (own and own[-1] in ends)]
        requests = [
            Request(self.name, contexts[i] + list(ids[i]), limits[i] - len(ids[i]), draws[i]) for i in unfinished
        ]
        return Begun(self, contexts, ids, unfinished, requests)

    @abstractmethod
    def finish(self, begun: "Begun", new: Sequence[Written]) -> list[Message]:
        """The messages that `begun` has begun, with what was sampled for its requests."""


@dataclass
class Begun:
    """
    Messages of an agent in one turn, some of them not yet finished.

    Args:
        speaker ([`Participant`]): The agent.
        contexts (`list[list[int]]`): What each message is an answer to.
        ids (`list[tuple[int]]`): The beginning of each message; empty for one that is sampled whole.
        unfinished (`list[int]`): Which of them are to be continued.
        requests (`list[Request]`): For each of those, what is to be sampled.
    """

    speaker: Participant
    contexts: list[list[int]]
    ids: list[tuple[int, ...]]
    unfinished: list[int]
    requests: list[Request]


def speak_together(turn: Sequence[Begun]) -> list[list[Message]]:
    """
    Finish the messages of agents that share a backend, in one call of it.

    Args:
        turn (`Sequence[Begun]`): At least one. All processes call this together, for the same agents.

    Returns:
        `list[list[Message]]`: For each of `turn` its messages.
    """
    backend, accelerator = turn[0].speaker.backend, turn[0].speaker.accelerator
    requests, new = [request for begun in turn for request in begun.requests], list[Written]()
    if union(accelerator, {True} if requests else set()):
        new = backend.generate(requests)
    if len(new) != len(requests):
        names = ", ".join(repr(begun.speaker.name) for begun in turn)
        raise RuntimeError(f"The backend of {names} was given {len(requests)} requests and wrote {len(new)} messages.")
    answers = iter(new)
    return [begun.speaker.finish(begun, [next(answers) for _ in begun.requests]) for begun in turn]
