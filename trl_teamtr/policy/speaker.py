"""A member of a team that speaks and scores: it needs no trainer, no dataset, no reward and no optimizer."""

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ..agents.agent import Agent
from ..agents.settings import SamplingSettings
from ..conversation.rendering import ChatRenderer, PlainRenderer, Renderer
from ..conversation.streaming import IncrementalText
from ..conversation.thoughts import Reading, ThoughtParser
from ..conversation.tool_results import ResultRenderer
from ..conversation.transcript import Message
from ..conversation.view import View, stack_views
from ..tools import ToolUser
from .backend import Backend, Written
from .participant import Begun, Participant
from .policy import Policy
from .scoring import sequence


class Speaker(Participant):
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
        super().__init__(agent, backend, policy.accelerator, sampling, eos_token_ids, max_view_length, alone)
        self.policy, self.tokenizer = policy, tokenizer
        self._chat_template_kwargs = chat_template_kwargs or {}
        self._date: str | None = None
        self._before_use = before_use
        self.thoughts, self.tools = thoughts, tools

    @property
    def takes_conversations(self) -> bool:
        return self.tokenizer.chat_template is not None

    def use(self):
        """Call `before_use`: its weights are about to be needed."""
        if self._before_use is not None:
            self._before_use()

    def fix_date(self, date: str | None):
        self._date = date
        self._renderers.clear()

    def _make_renderer(self, chat: bool) -> Renderer:
        system_prompt, kwargs = self.agent.system_prompt, self._chat_template_kwargs
        forgets = not self.agent.keep_thoughts
        if chat:
            schemas = [] if self.tools is None else self.tools.schemas
            return ChatRenderer(
                self.tokenizer, self.name, system_prompt, self.eos_token_ids, kwargs, self._date, schemas, forgets
            )
        return PlainRenderer(self.tokenizer, self.name, system_prompt, self._alone, forgets)

    def incremental_text(self, context: list[int]) -> IncrementalText:
        return IncrementalText(self.tokenizer, lambda ids, said: self.read(ids, said, context).answer)

    def finish(self, begun: Begun, new: Sequence[Written]) -> list[Message]:
        ends, ids = set(self.eos_token_ids), list(begun.ids)
        logps: list[tuple[float, ...] | None] = [None] * len(ids)
        for i, written in zip(begun.unfinished, new, strict=True):
            if written.logps is not None:
                logps[i] = (*[math.nan] * len(ids[i]), *written.logps)
            ids[i] = (*ids[i], *written.ids)
        readings = [Reading("")] * len(ids)
        if self.tools is None and ids:  # those of an agent with tools may go on, and are read as they are written
            texts = self.tokenizer.batch_decode([list(own) for own in ids], skip_special_tokens=True)
            readings = [self.read(*each) for each in zip(ids, texts, begun.contexts, strict=True)]
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
