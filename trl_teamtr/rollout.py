"""The turn loop: a team writes its transcripts, all rollouts of a turn in one batch per agent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from .router import Router, make_router, next_speaker
from .teamtr_config import TeamTRConfig
from .transcript import Message, Transcript
from .view import View


if TYPE_CHECKING:
    from .agent_trainer import AgentTrainer
    from .drafts import Drafts


@dataclass
class Rollouts:
    """
    What a team wrote for a batch of rows.

    Args:
        transcripts (`list[Transcript]`): One per row.
        views (`dict[str, list[View]]`): For each agent, its view of each row.
        full (`set[int]`): Rows that ended because the next speaker's context was full.
        tokens_decoded (`int`): Number of tokens that were sampled for them.
        tokens_scored (`int`): Number of tokens, contexts included, that went through a forward pass to verify drafts.
        tokens_kept (`int`): Number of tokens of their messages that were there already.
        weights (`torch.Tensor` of shape `(rows,)`, *optional*): Importance weights, if they are of another team.
    """

    transcripts: list[Transcript]
    views: dict[str, list[View]]
    full: set[int] = field(default_factory=set)
    tokens_decoded: int = 0
    tokens_scored: int = 0
    tokens_kept: int = 0
    weights: torch.Tensor | None = None

    @property
    def num_cut(self) -> int:
        """Number of messages that some view left out for want of room."""
        return sum(view.num_cut for views in self.views.values() for view in views)


@dataclass
class RolloutRules:
    """
    Who speaks, and when a rollout ends.

    Args:
        router (`Router`): Who speaks next.
        max_turns (`int`): Number of messages after which a rollout ends.
        stop_string (`str`, *optional*): End after the first message that contains it.
        stop_condition (`Callable[[Transcript], bool]`, *optional*): End once it holds; asked after each message.
    """

    router: Router
    max_turns: int
    stop_string: str | None = None
    stop_condition: Callable[[Transcript], bool] | None = None

    def next_speaker(self, transcript: Transcript) -> str | None:
        """Name of the agent that speaks next, or `None` at the end of the rollout."""
        if len(transcript.messages) >= self.max_turns:
            return None
        if transcript.messages:
            if self.stop_string is not None and self.stop_string in transcript.messages[-1].text:
                return None
            if self.stop_condition is not None and self.stop_condition(transcript):
                return None
        return next_speaker(self.router, transcript)


def make_rules(args: TeamTRConfig, names: Sequence[str], router: Router | None, stop_condition) -> RolloutRules:
    """
    The rules of `args` for a team of `names`; `router` and `stop_condition` are the user's own, if any.

    Raises:
        `TypeError`: If one of the two is no function.
    """
    for name, own in (("router", router), ("stop_condition", stop_condition)):
        if own is not None and not callable(own):
            raise TypeError(
                f"The trainer's `{name}` must be a function of a transcript, got {own!r}. What is built in is set in the "
                "config: `TeamTRConfig(router='random')`, `TeamTRConfig(stop_string='...')`."
            )
    max_turns = args.max_turns if args.max_turns is not None else args.num_rounds * len(names)
    router = router if router is not None else make_router(args.router, max_turns)
    return RolloutRules(router, max_turns, args.stop_string, stop_condition)


def collect_rollouts(
    transcripts: list[Transcript],
    speakers: Sequence["AgentTrainer"],
    rules: RolloutRules,
    accelerator: Accelerator,
    drafts: "Drafts | None" = None,
) -> Rollouts:
    """
    Let the team write each of `transcripts` to its end, from wherever it stands.

    All processes enter every generation together, those without a row for the speaker with a dummy row, since
    generation under ZeRO-3 is a collective.

    Args:
        transcripts (`list[Transcript]`): One per row of this process. Messages that are there already are kept.
        speakers (`Sequence[AgentTrainer]`): The team, in team order.
        rules (`RolloutRules`): Who speaks, and when a rollout ends.
        accelerator ([`~accelerate.Accelerator`]): For the agreement between processes.
        drafts (`Drafts`, *optional*): Rollouts of the team before its last update, of which messages may stay.
    """
    rollouts = replay(transcripts, speakers)
    while True:
        turn = [_next_speaker(row, rollouts, rules, drafts) for row in range(len(transcripts))]
        speaking = union(accelerator, {name for name in turn if name is not None})
        if not speaking:
            return rollouts
        for speaker in speakers:
            if speaker.name in speaking:
                rows = [row for row, name in enumerate(turn) if name == speaker.name]
                _take_turn(speaker, rows, rollouts, drafts)


def replay(transcripts: list[Transcript], speakers: Sequence["AgentTrainer"]) -> Rollouts:
    """
    `transcripts` with every author's view of the messages that are there, as the turn loop would have left them.

    Raises:
        `ValueError`: If an author is not of the team, has not enough room for what it is said to have read, or if a
            message has no token ids.
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
            if not _read(authors[message.agent], row, rollouts):
                raise ValueError(
                    f"Message {len(transcript.messages)} of row {row} has no room in its author's context."
                )
            _write(message, row, rollouts)
    return rollouts


def _next_speaker(row: int, rollouts: Rollouts, rules: RolloutRules, drafts: "Drafts | None") -> str | None:
    transcript = rollouts.transcripts[row]
    if row in rollouts.full:
        return None
    if drafts is not None and drafts.unchanged(row):
        # Not asked again: a router that draws at random would draw otherwise, and skew what is kept
        if drafts.ended_for_length(row, transcript):
            rollouts.full.add(row)
        return drafts.author(row, transcript)
    return rules.next_speaker(transcript)


def _read(speaker: "AgentTrainer", row: int, rollouts: Rollouts) -> bool:
    transcript, room = rollouts.transcripts[row], speaker.max_view_length - speaker.max_completion_length
    return rollouts.views[speaker.name][row].read(transcript, speaker.renderer_for(transcript.prompt), room)


def _write(message: Message, row: int, rollouts: Rollouts):
    rollouts.transcripts[row].messages.append(message)
    rollouts.views[message.agent][row].write(list(message.ids))


def _take_turn(speaker: "AgentTrainer", rows: list[int], rollouts: Rollouts, drafts: "Drafts | None"):
    """Let `speaker` write one message in each of `rows` where it has room to."""
    ready = []
    for row in rows:
        if _read(speaker, row, rollouts):
            ready.append(row)
        else:
            rollouts.full.add(row)
    views, beginnings = rollouts.views[speaker.name], {}
    if drafts is not None:
        beginnings = drafts.verify(speaker, {row: views[row].context for row in ready}, rollouts)
    # What a draft leaves: a whole message, or its beginning
    to_speak = [row for row in ready if not isinstance(beginnings.get(row), Message)]
    messages = speaker.speak([views[row].context for row in to_speak], [beginnings.get(row, ()) for row in to_speak])
    said = dict(zip(to_speak, messages, strict=True))
    for row in ready:
        message = said.get(row, beginnings.get(row))
        rollouts.tokens_decoded += len(message.ids) - len(beginnings.get(row, ())) if row in said else 0
        _write(message, row, rollouts)


def union(accelerator: Accelerator, items: set) -> set:
    """The items of all processes."""
    return set(gather_object(list(items))) if accelerator.num_processes > 1 else items
