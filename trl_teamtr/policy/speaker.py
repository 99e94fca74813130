"""A member of a team that speaks and scores: it needs no trainer, no dataset, no reward and no optimizer."""

import copy
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ..agents.agent import Agent
from ..agents.settings import SamplingSettings
from ..conversation.rendering import ChatRenderer, PlainRenderer, Renderer
from ..conversation.thoughts import Reading, ThoughtParser
from ..conversation.tool_results import ResultRenderer
from ..conversation.transcript import Message
from ..conversation.view import View, stack_views
from ..tools import ToolUser
from .backend import Backend, Request, Written
from .drawing import Draw
from .policy import Policy
from .processes import union
from .scoring import sequence


class Speaker:
    """
    An agent without a trainer: it reads transcripts, and samples and scores messages.

    Args:
        agent ([`Agent`]): The member, for its name and its system prompt.
        policy ([`Policy`]): Its model.
        backend ([`Backend`]): Samples its messages with the present weights of `policy`.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): Its tokenizer, with a pad token.
        eos_token_ids (`list[int]`): Ids that end its messages.
        sampling ([`SamplingSettings`]): How it samples.
        chat_template_kwargs (`dict`, *optional*): Keyword arguments for its chat template.
        max_view_length (`int`): Maximum number of tokens of a view with the next message.
        alone (`bool`): Whether the team has one agent.
        before_use (`Callable[[], None]`, *optional*): Called before its weights are needed, which may be offloaded.
        thoughts ([`ThoughtParser`], *optional*): Divides its messages into private thoughts and answers.
        tools ([`ToolUser`], *optional*): Its tools, which also divides its messages.

    Attributes:
        name (`str`): The agent's name.
    """

    def __init__(
        self,
        agent: Agent,
        policy: Policy,
        backend: Backend,
        tokenizer: PreTrainedTokenizerBase,
        eos_token_ids: list[int],
        sampling: SamplingSettings,
        chat_template_kwargs: dict[str, Any] | None = None,
        max_view_length: int = sys.maxsize,
        alone: bool = False,
        before_use: Callable[[], None] | None = None,
        thoughts: ThoughtParser | None = None,
        tools: ToolUser | None = None,
    ):
        self.agent, self.name = agent, agent.name
        self.policy, self.backend, self.sampling = policy, backend, sampling
        self.tokenizer, self.eos_token_ids = tokenizer, eos_token_ids
        self.max_view_length = max_view_length
        self._chat_template_kwargs = chat_template_kwargs or {}
        self._alone = alone
        self._date: str | None = None
        self._before_use = before_use
        self.thoughts, self.tools = thoughts, tools
        self._renderers: dict[bool, Renderer] = {}

    def by_itself(self) -> "Speaker":
        """The same agent, with the same weights, in a team of its own."""
        speaker = copy.copy(self)
        speaker._alone, speaker._renderers = True, {}
        return speaker

    @property
    def room(self) -> int:
        """Maximum number of tokens in its context when it begins a message."""
        return self.max_view_length - (self.sampling.max_completion_length or 1)

    def limit(self, context: list[int]) -> int:
        """Maximum number of tokens of a message after `context`."""
        limit = self.sampling.max_completion_length
        return self.max_view_length - len(context) if limit is None else limit

    def use(self):
        """Call `before_use`: its weights are about to be needed."""
        if self._before_use is not None:
            self._before_use()

    def fix_date(self, date: str | None):
        """Let its chat template print `date`, a `YYYY-MM-DD`, from now on; today for `None`."""
        self._date = date
        self._renderers.clear()

    def renderer_for(self, prompt: str | list[dict]) -> Renderer:
        """The renderer for a rollout of `prompt`."""
        chat = not isinstance(prompt, str)
        if chat not in self._renderers:
            self._renderers[chat] = self._make_renderer(chat)
        return self._renderers[chat]

    def _make_renderer(self, chat: bool) -> Renderer:
        system_prompt, kwargs = self.agent.system_prompt, self._chat_template_kwargs
        if chat:
            schemas = [] if self.tools is None else self.tools.schemas
            return ChatRenderer(
                self.tokenizer, self.name, system_prompt, self.eos_token_ids, kwargs, self._date, schemas
            )
        return PlainRenderer(self.tokenizer, self.name, system_prompt, self._alone)

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
        The messages of [`~Speaker.speak`] as far as they go, with requests for the rest. `draws` says of each how it is
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

    def finish(self, begun: "Begun", new: Sequence[Written]) -> list[Message]:
        """
        The messages that `begun` has begun, with what was sampled for its requests. Those of an agent with tools are not read, since
        they may go on ([`~Speaker.read_again`]).
        """
        ends, ids = set(self.eos_token_ids), list(begun.ids)
        logps: list[tuple[float, ...] | None] = [None] * len(ids)
        for i, written in zip(begun.unfinished, new, strict=True):
            if written.logps is not None:
                logps[i] = (*[math.nan] * len(ids[i]), *written.logps)
            ids[i] = (*ids[i], *written.ids)
        texts = self.tokenizer.batch_decode([list(own) for own in ids], skip_special_tokens=True) if ids else []
        read = self.read if self.tools is None else _leave_unread
        readings = [read(*each) for each in zip(ids, texts, begun.contexts, strict=True)]
        return [
            Message(self.name, reading.answer, tuple(own), own[-1] in ends, sampled, reading.thought)
            for own, reading, sampled in zip(ids, readings, logps, strict=True)
        ]

    def read(self, ids: Sequence[int], text: str, context: list[int]) -> Reading:
        """What everybody reads of a message, or of its beginning, and what it keeps to itself; as [`~ThoughtParser.read`]."""
        if self.tools is not None:
            return self.tools.read(ids, text, context)
        return Reading(text) if self.thoughts is None else self.thoughts.read(ids, text, context)

    def read_again(self, ids: Sequence[int], context: list[int]) -> Reading:
        """[`~Speaker.read`] of ids without their text."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)  # type: ignore[assignment]  # of one row
        return self.read(ids, text, context)

    def results_for(self, prompt: str | list[dict]) -> ResultRenderer:
        """How it reads results of its tools in a rollout of `prompt`, which must be conversational."""
        renderer = self.renderer_for(prompt)
        assert isinstance(renderer, ChatRenderer)  # `check_tools` refuses other prompts
        return renderer.results

    def view_batch(self, views: Sequence[View], pad_to_multiple_of: int | None = None) -> dict[str, torch.Tensor]:
        """
        Its `views` of rollouts as padded tensors on its device ([`stack_views`]), for scoring. Views in which it never
        spoke get a masked dummy.
        """
        pad_token_id = self.tokenizer.pad_token_id
        for view in views:
            view.end(pad_token_id)
        batch = stack_views(views, pad_token_id, pad_to_multiple_of)
        return {name: tensor.to(self.policy.accelerator.device) for name, tensor in batch.items()}

    def token_logps(
        self, batch: dict[str, torch.Tensor], batch_size: int | None = None, as_trained: bool = False
    ) -> torch.Tensor:
        """
        Log-probabilities of the tokens of whole views under the current weights, at its temperature.

        Args:
            batch (`dict`): What [`~Speaker.view_batch`] returns, or a batch of its trainer.
            batch_size (`int`, *optional*): Rows per forward pass; all of them if not given.
            as_trained (`bool`): Whether to score in the precision of training instead of the scoring precision.

        Returns:
            `torch.Tensor` of shape `(rows, completion length)`, in nats; to be masked with [`message_mask`].
        """
        input_ids, attention_mask, _ = sequence(batch)
        return self.policy.token_logps(input_ids, attention_mask, batch["sampled_ids"], batch_size, as_trained)


def _leave_unread(ids: Sequence[int], text: str, context: list[int]) -> Reading:
    return Reading("")


@dataclass
class Begun:
    """
    Messages of an agent in one turn, some of them not yet finished.

    Args:
        speaker ([`Speaker`]): The agent.
        contexts (`list[list[int]]`): What each message is an answer to.
        ids (`list[tuple[int]]`): The beginning of each message; empty for one that is sampled whole.
        unfinished (`list[int]`): Which of them are to be continued.
        requests (`list[Request]`): For each of those, what is to be sampled.
    """

    speaker: Speaker
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
    backend, accelerator = turn[0].speaker.backend, turn[0].speaker.policy.accelerator
    requests, new = [request for begun in turn for request in begun.requests], list[Written]()
    if union(accelerator, {True} if requests else set()):
        new = backend.generate(requests)
    if len(new) != len(requests):
        names = ", ".join(repr(begun.speaker.name) for begun in turn)
        raise RuntimeError(f"The backend of {names} was given {len(requests)} requests and wrote {len(new)} messages.")
    answers = iter(new)
    return [begun.speaker.finish(begun, [next(answers) for _ in begun.requests]) for begun in turn]
