"""One agent's view of a rollout, exact to the token: what it read, and the ids that it sampled."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from trl.trainer.utils import pad

from .rendering import Renderer
from .transcript import Transcript
from .turn_rendering import TurnRenderer


@dataclass
class View:
    """
    The sequence that an agent is trained on: everything it read and generated in one rollout.

    Its own messages are the sampled ids, never retokenized text. One forward pass over `prompt_ids + completion_ids`
    scores all of them. Only the token that ended a message may be read as another one, where the template closes
    messages with that; it is scored as sampled.

    An agent that does not keep its thoughts reads its earlier messages without them when it speaks again: they are part of
    `prompt_ids` then, and no longer scored.

    Args:
        prompt_ids (`list[int]`): What the agent read before its first message.
        completion_ids (`list[int]`): Its messages as it reads them, with what it read between them.
        mask (`list[int]`): 1 on the ids of its own messages, 0 on the others; as long as `completion_ids`.
        num_messages (`int`): Number of its own messages.
        num_read (`int`): Number of messages of the transcript that the view covers.
        left_out (`set[int]`): The turns of messages that were left out for lack of room.
        starts (`list[int]`): Where each of its own messages begins in `prompt_ids + completion_ids`; of those that it does not
            read again.
        logps (`list[float]`): For each of `completion_ids`, the log-probability with which it was sampled; NaN if it was not, or
            it is not known.
        endings (`dict[int, int]`): The tokens that it reads as others, by their place in `completion_ids`, as sampled.
        earlier (`list[View]`): For each of its own messages that it has read again since, the view as it was.
    """

    prompt_ids: list[int] = field(default_factory=list)
    completion_ids: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    num_messages: int = 0
    num_read: int = 0
    left_out: set[int] = field(default_factory=set)
    starts: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    endings: dict[int, int] = field(default_factory=dict)
    earlier: list["View"] = field(default_factory=list)

    @property
    def num_cut(self) -> int:
        """Number of messages that were left out for lack of room."""
        return len(self.left_out)

    @property
    def opening_ids(self) -> list[int]:
        """What the agent read before its first message."""
        return self.earlier[0].prompt_ids if self.earlier else self.prompt_ids

    @property
    def context(self) -> list[int]:
        """All ids so far: what the agent's next message is conditioned on."""
        return self.prompt_ids + self.completion_ids

    @property
    def sampled_ids(self) -> list[int]:
        """`completion_ids` with its own messages as it sampled them: what its policy is scored on."""
        return [self.endings.get(place, token) for place, token in enumerate(self.completion_ids)]

    def read(self, transcript: Transcript, renderer: Renderer | TurnRenderer, room: int) -> bool:
        """
        Append the unread messages, up to where the agent speaks.

        If the context would be longer than `room` ids, the oldest unread messages are left out.

        Returns:
            `bool`: Whether the context fits; if not, the view is unchanged.
        """
        forgets = renderer.forgets and self.num_messages > 0
        unread, own, length, last = transcript.messages[self.num_read :], [], 0, 0
        if self.num_messages and not forgets:
            own, length = self.own(), len(self.context)
        for first in range(len(unread) + 1):
            if forgets:
                ids = self._history(transcript, renderer, first)
            elif self.num_messages == 0:
                ids = renderer.opening(transcript, unread[first:])
            else:
                last, ids = renderer.between(unread[first:], own)
            if length + len(ids) <= room:
                break
        else:
            return False
        if forgets:
            self._begin_again(ids)
        elif self.num_messages == 0:
            self.prompt_ids = ids
        else:
            self.hear(last, ids)
        self.left_out |= set(range(self.num_read, self.num_read + first))
        self.num_read = len(transcript.messages)
        return True

    def _history(self, transcript: Transcript, renderer: Renderer | TurnRenderer, first: int) -> list[int]:
        """All messages without the thoughts of the agent, but for the `first` unread ones and those left out before."""
        assert not isinstance(renderer, TurnRenderer)  # a remote member has no thoughts here
        gone = self.left_out | set(range(self.num_read, self.num_read + first))
        return renderer.history(transcript, [m for turn, m in enumerate(transcript.messages) if turn not in gone])

    def _begin_again(self, prompt_ids: list[int]):
        """Put the sequence so far aside, for one that begins with `prompt_ids`."""
        self.earlier.append(
            View(
                self.prompt_ids,
                self.completion_ids,
                self.mask,
                1,
                starts=self.starts,
                logps=self.logps,
                endings=self.endings,
            )
        )
        self.prompt_ids, self.completion_ids, self.mask, self.starts = prompt_ids, [], [], []
        self.logps, self.endings = [], {}

    def write(self, ids: Sequence[int], logps: Sequence[float] | None = None, goes_on: bool = False):
        """
        Append the ids of a message of the agent, and the log-probabilities with which they were sampled, if known. A message
        `goes_on` after what was heard within it.
        """
        if not goes_on:
            self.starts.append(len(self.context))
            self.num_messages += 1
            self.num_read += 1
        self.completion_ids += ids
        self.mask += [1] * len(ids)
        self.logps += [math.nan] * len(ids) if logps is None else logps

    def hear(self, last: int, ids: Sequence[int]):
        """Append `ids`, which the agent reads within or after a message of its own, whose last id it reads as `last`."""
        if last != self.completion_ids[-1]:
            self.endings[len(self.completion_ids) - 1], self.completion_ids[-1] = self.completion_ids[-1], last
        self.completion_ids += ids
        self.mask += [0] * len(ids)
        self.logps += [math.nan] * len(ids)

    def own(self) -> list[int]:
        """Its last message so far, with what it heard within."""
        return self.completion_ids[self.starts[-1] - len(self.prompt_ids) :]

    def context_of(self, number: int, segment: int = 0) -> list[int]:
        """What a segment of its own message `number`, by default the first, was conditioned on."""
        if not self.holds(number):
            return self.earlier[number].context_of(0, segment)
        return self.context[: self.start_of(number, segment)]

    def holds(self, number: int) -> bool:
        """Whether its own message `number` is part of `completion_ids`, as it was sampled."""
        return number >= len(self.earlier)

    def start_of(self, number: int, segment: int = 0) -> int:
        """
        Where a segment of its own message `number`, by default the first, begins in `prompt_ids + completion_ids`, which hold it.
        """
        place, first = self.starts[number - len(self.earlier)], len(self.prompt_ids)
        for _ in range(segment):
            place = self.mask.index(0, place - first) + first
            place = self.mask.index(1, place - first) + first
        return place

    def message_numbers(self) -> list[int]:
        """For each of `completion_ids`, which of its own messages it belongs to; -1 for what it read."""
        first = len(self.prompt_ids)
        numbers, ends = [-1] * len(self.completion_ids), [*self.starts[1:], first + len(self.completion_ids)]
        for number, (start, end) in enumerate(zip(self.starts, ends, strict=False), start=len(self.earlier)):
            for i in range(start - first, end - first):
                if self.mask[i]:
                    numbers[i] = number
        return numbers

    def end(self, dummy_id: int):
        """
        Turn the view of an agent that never spoke into a training sequence: a dummy id and a masked dummy id, since
        an empty completion would break later computations.
        """
        if self.num_messages == 0:
            self.prompt_ids, self.completion_ids, self.mask, self.logps = [dummy_id], [dummy_id], [0], [math.nan]


def stack_views(
    views: Sequence[View], pad_token_id: int, pad_to_multiple_of: int | None = None
) -> dict[str, torch.Tensor]:
    """
    Ended views as padded tensors, in lengths that are a multiple of `pad_to_multiple_of`, if given.

    Returns:
        `dict` with `prompt_ids`, `prompt_mask` (padded on the left), `completion_ids`, `sampled_ids`, `completion_mask`,
        `tool_mask` and `message_numbers` (padded on the right), each int64 of shape `(rows, length)`, `sampler_logps` of
        that shape, float32, and `(rows,)`: `num_messages`, which counts those that are scored, `first_message`, the number of the
        first of these, and `row`, which counts the views from 0.
    """

    def stack(rows: list[list], value: Any, side: str) -> torch.Tensor:
        return pad([torch.tensor(row) for row in rows], value, side, pad_to_multiple_of)

    return {
        "prompt_ids": stack([view.prompt_ids for view in views], pad_token_id, "left"),
        "prompt_mask": stack([[1] * len(view.prompt_ids) for view in views], 0, "left"),
        "completion_ids": stack([view.completion_ids for view in views], pad_token_id, "right"),
        "sampled_ids": stack([view.sampled_ids for view in views], pad_token_id, "right"),
        "completion_mask": stack([[1] * len(view.completion_ids) for view in views], 0, "right"),
        "tool_mask": stack([view.mask for view in views], 0, "right"),
        "message_numbers": stack([view.message_numbers() for view in views], -1, "right"),
        "sampler_logps": stack([view.logps for view in views], math.nan, "right"),
        "num_messages": torch.tensor([len(view.starts) for view in views]),
        "first_message": torch.tensor([len(view.earlier) for view in views]),
        "row": torch.arange(len(views)),
    }
