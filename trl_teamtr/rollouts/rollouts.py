"""Rollouts: what a team generated for a batch of rows, and each member's views of it."""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from ..conversation.transcript import Message, Transcript
from ..conversation.view import View
from ..policy.participant import Participant
from ..policy.speaker import Speaker


@dataclass
class Rollouts:
    """
    What a team generated for a batch of rows.

    Args:
        transcripts (`list[Transcript]`): One per row.
        views (`dict[str, list[View]]`): For each agent, its view of each row.
        full (`dict[int, str]`): Rows that ended because the next speaker's context was full, with its name.
        tokens_decoded (`int`): Number of tokens that were sampled for them.
        tokens_scored (`int`): Number of tokens, contexts included, that went through a forward pass to verify drafts.
        tokens_kept (`int`): Number of tokens of their messages that were reused.
        tool_seconds (`dict[str, float]`): For each agent, seconds in which its tools were executed.
        tools_without_room (`int`): Number of times that tools were not called, since their results might not have had room.
        weights (`torch.Tensor` of shape `(rows,)`, *optional*): By how much their advantages are multiplied: importance
            weights, if they are stale; the weights of groups by turn.
        credited (`torch.Tensor` of shape `(rows,)`, *optional*): Which of its own messages the updated agent is trained on, -1
            for none. All if not given.
        team_every (`int`): Every how manyeth row has the team's distribution, from the first one on.
    """

    transcripts: list[Transcript]
    views: dict[str, list[View]]
    full: dict[int, str] = field(default_factory=dict)
    tokens_decoded: int = 0
    tokens_scored: int = 0
    tokens_kept: int = 0
    tool_seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    tools_without_room: int = 0
    weights: torch.Tensor | None = None
    credited: torch.Tensor | None = None
    team_every: int = 1

    @property
    def num_cut(self) -> int:
        """Number of messages that some view left out for lack of room."""
        return sum(view.num_cut for views in self.views.values() for view in views)

    def sequences_of(self, name: str) -> tuple[list[list[int]], list[list[int]], list[list[int]], list[list[float]]]:
        """For each row the `prompt_ids`, the `completion_ids`, the `mask` and the `logps` of the view of agent `name`."""
        views = self.views[name]
        completions, masks = [view.completion_ids for view in views], [view.mask for view in views]
        return [view.prompt_ids for view in views], completions, masks, [view.logps for view in views]

    def read(self, speaker: Participant, row: int) -> bool:
        """Update the view of `speaker` in a row; `False` if it has no room to answer."""
        transcript = self.transcripts[row]
        return self.views[speaker.name][row].read(transcript, speaker.renderer_for(transcript.prompt), speaker.room)

    def write(self, speaker: Participant, row: int, message: Message):
        """Append a message of `speaker` to a row, and to its view of it."""
        transcript, view = self.transcripts[row], self.views[speaker.name][row]
        transcript.messages.append(message)
        for number, (start, end) in enumerate(itertools.pairwise(message.edges)):
            logps = None if message.logps is None else message.logps[start:end]
            view.write(message.ids[start:end], logps, goes_on=number > 0)
            if number < len(message.tool_uses):
                use = message.tool_uses[number]
                assert isinstance(speaker, Speaker)  # no other has tools
                names, results = [call.name for call in use.calls], speaker.results_for(transcript.prompt)
                view.hear(*results.encode(names, use.results, message.ids[start:end]))


def replay(transcripts: list[Transcript], speakers: Sequence[Participant]) -> Rollouts:
    """
    Rollouts of `transcripts` with every author's view of their messages, as the turn loop would have made them.

    Raises:
        `ValueError`: If an author is not in the team or has no room for its context, or a message has no token ids.
    """
    rollouts = Rollouts(transcripts, {speaker.name: [View() for _ in transcripts] for speaker in speakers})
    authors = {speaker.name: speaker for speaker in speakers}
    for row, transcript in enumerate(transcripts):
        messages, transcript.messages = transcript.messages, []
        for message in messages:
            if message.agent not in authors or not message.ids:
                raise ValueError(
                    f"Message {len(transcript.messages)} of row {row} is by {message.agent!r} and has "
                    f"{len(message.ids)} token ids. Its author must be one of {', '.join(authors)}, and its ids, end of "
                    "turn included, are what the author reads of it: `Message(agent, text, ids)`."
                )
            if not rollouts.read(authors[message.agent], row):
                raise ValueError(
                    f"Message {len(transcript.messages)} of row {row} has no room in its author's context."
                )
            rollouts.write(authors[message.agent], row, message)
    return rollouts
