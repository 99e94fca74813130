"""Reuse of a team's rollouts after an update of one agent: which messages are kept, and which are verified."""

import dataclasses
from collections.abc import Collection

import torch
from torch.nn.utils.rnn import pad_sequence

from ..conversation.transcript import Message, ToolUse, Transcript
from ..maths.block_verification import whole_probabilities
from ..policy.participant import Participant
from ..policy.processes import union
from ..policy.speaker import Speaker
from ..policy.transforms import sampling_transforms
from ..trust_region.snapshot import Snapshot
from .rollouts import Rollouts
from .verification import Draft, check_drafts, count_scored


# Messages that are kept whole, and beginnings of messages, each by row
Kept = tuple[dict[int, Message], dict[int, tuple[int, ...]]]


class Drafts:
    """
    The rollouts of the team before its last update.

    Messages before the updated agent's first turn already have the distribution of the updated team. Later ones are
    generated again or, with `speculative`, are drafts: block verification keeps as much of each as the new
    distribution allows, and what follows a cut is resampled. A message whose author and context are both unchanged is
    kept without verification. So is a message of a remote member, whose log-probabilities are not known, if its own context
    is what it was; otherwise it is generated again.

    Each message has the distribution of its author's weights and context at its last verification. For the updated
    agent these weights are in `snapshot`, for others they are the current ones. The contexts are in `rollouts`.

    Args:
        rollouts (`Rollouts`): The team's rollouts before the update.
        updated (`str`, *optional*): The agent that was updated; `None` if the team is unchanged.
        snapshot (`Snapshot`, *optional*): Its policy before the update, for verification.
        speculative (`bool`): Whether to verify messages instead of generating them again.
        standing (`list[int]`, *optional*): How many messages each rollout keeps without verification; those before the
            updated agent's first turn if not given.
        log_ratios (`torch.Tensor` of shape `(rows, length)`, *optional*): What the update knows of its own messages
            (`UpdateReport.log_ratios`). In unchanged contexts they decide whether a message is kept whole; only those that
            are not are then scored, to find where they are cut.
    """

    def __init__(
        self,
        rollouts: Rollouts,
        updated: str | None,
        snapshot: Snapshot | None = None,
        speculative: bool = False,
        standing: list[int] | None = None,
        log_ratios: torch.Tensor | None = None,
    ):
        self.rollouts = rollouts
        self._updated = updated
        self._snapshot = snapshot
        self._speculative = speculative
        if standing is None:
            standing = [transcript.first_turn_of({updated}) for transcript in rollouts.transcripts]
        self._standing = standing
        self._log_ratios = log_ratios
        self._changed: set[int] = set()

    def unchanged(self, row: int) -> bool:
        """Whether the row is unchanged so far."""
        return row not in self._changed

    def change(self, row: int):
        """Note that the row is no longer what it was, since its environments are not."""
        self._changed.add(row)

    def author(self, row: int, transcript: Transcript) -> str | None:
        """Who spoke next in a row that is unchanged so far; `None` if the rollout ended."""
        messages, turn = self.rollouts.transcripts[row].messages, len(transcript.messages)
        return messages[turn].agent if turn < len(messages) else None

    def ended_for_length(self, row: int, transcript: Transcript) -> bool:
        """Whether an unchanged row ended here because a context was full."""
        return row in self.rollouts.full and len(transcript.messages) == len(self.rollouts.transcripts[row].messages)

    def verify(
        self,
        speaker: Participant,
        contexts: dict[int, list[int]],
        rollouts: Rollouts,
        numbers: dict[int, int] | None = None,
    ) -> Kept:
        """
        What is kept of the drafts of this turn: for each row that has one, the message or its beginning; of messages with pauses,
        a segment.

        Args:
            speaker (`Participant`): Who speaks. All processes call this together.
            contexts (`dict[int, list[int]]`): For each row in which it speaks, the ids of its current context.
            rollouts (`Rollouts`): The new rollouts, whose counters are updated.
            numbers (`dict[int, int]`, *optional*): For each row, which segment of the message is next; the first if not given.
        """
        numbers = numbers if numbers is not None else dict.fromkeys(contexts, 0)
        kept: dict[int, Message] = {}
        begun: dict[int, tuple[int, ...]] = {}
        to_check = {}
        for row in contexts:
            draft = self._draft(speaker.name, row, rollouts.transcripts[row], numbers[row])
            if draft is None:
                self._changed.add(row)
            elif row not in self._changed and (
                len(rollouts.transcripts[row].messages) < self._standing[row] or speaker.name != self._updated
            ):
                kept[row] = draft
            elif speaker.name != self._updated and contexts[row] == self._old_context(
                speaker.name, row, rollouts.transcripts[row], numbers[row]
            ):
                kept[row] = draft  # its law is what it was, whatever has changed that it does not read
            elif isinstance(speaker, Speaker):
                to_check[row] = draft
        if isinstance(speaker, Speaker):
            whole = self._decide_known(speaker, to_check, rollouts, numbers)
            cut = {row for row in whole if not whole[row]}
            kept |= {row: as_kept(to_check.pop(row)) for row in whole if whole[row]}
            if self._speculative and union(speaker.accelerator, {True} if to_check else set()):
                checked, begun = self._check(speaker, to_check, cut, contexts, rollouts, numbers)
                kept |= checked
        rollouts.tokens_kept += sum(message.num_tokens for message in kept.values())
        rollouts.tokens_kept += sum(len(ids) - 1 for ids in begun.values())  # the last one is sampled
        rollouts.tokens_decoded += len(begun)
        return kept, begun

    def tool_use(self, name: str, row: int, rollouts: Rollouts, number: int) -> ToolUse | None:
        """The old pause after a segment, if the row is unchanged so far: then its results stand."""
        turn = len(rollouts.transcripts[row].messages)
        return self.rollouts.transcripts[row].messages[turn].tool_uses[number] if self.unchanged(row) else None

    def _draft(self, name: str, row: int, transcript: Transcript, number: int) -> Message | None:
        """The old message of this turn, or a segment of it, if it is by the same agent and may be kept or serve as a draft."""
        messages, turn = self.rollouts.transcripts[row].messages, len(transcript.messages)
        if turn >= len(messages) or messages[turn].agent != name:
            return None
        if not (self._speculative or turn < self._standing[row]):
            return None
        old = messages[turn]
        if not old.tool_uses and number == 0:
            return old
        ids = old.segment(number)
        return Message(name, "", ids, old.finished or number < len(old.tool_uses)) if ids else None

    def _decide_known(
        self, speaker: Speaker, messages: dict[int, Message], rollouts: Rollouts, numbers: dict[int, int]
    ) -> dict[int, bool]:
        """Whether a message is kept whole, for each of those whose log-ratios are known."""
        if self._log_ratios is None or speaker.name != self._updated or sampling_transforms(speaker.sampling):
            return {}
        views = self.rollouts.views[speaker.name]
        numbered = {row: self._own_number(speaker.name, row, rollouts.transcripts[row]) for row in messages}
        rows = [row for row, own in numbered.items() if self.unchanged(row) and views[row].holds(own)]
        if not rows:
            return {}
        ratios = []
        for row in rows:
            view, own = views[row], numbered[row]
            first = view.start_of(own, numbers[row]) - len(view.prompt_ids)
            ratios.append(self._log_ratios[row, first : first + len(messages[row].ids)])
        whole = whole_probabilities(pad_sequence(ratios, batch_first=True))
        return dict(zip(rows, (torch.rand_like(whole) < whole).tolist(), strict=True))

    def _check(
        self,
        speaker: Speaker,
        messages: dict[int, Message],
        cut: Collection[int],
        contexts: dict[int, list[int]],
        rollouts: Rollouts,
        numbers: dict[int, int],
    ) -> Kept:
        """Block verification of `messages`, in equally many chunks on every process. Those of rows `cut` are not kept whole."""
        kept: dict[int, Message] = {}
        begun: dict[int, tuple[int, ...]] = {}
        drafts = []
        for row, message in messages.items():
            old_context = self._old_context(speaker.name, row, rollouts.transcripts[row], numbers[row])
            drafts.append(Draft(old_context, contexts[row], list(message.ids), row in cut))
        verdicts = check_drafts(speaker, drafts, self._snapshot if speaker.name == self._updated else None)
        rollouts.tokens_scored += count_scored(drafts)
        for (row, message), (length, replacement) in zip(messages.items(), verdicts, strict=True):
            if length == len(message.ids):
                kept[row] = as_kept(message)
            else:
                self._changed.add(row)
                begun[row] = (*message.ids[:length], replacement)
        return kept, begun

    def _own_number(self, name: str, row: int, transcript: Transcript) -> int:
        """How many messages of the row are by agent `name`, before this turn."""
        old = self.rollouts.transcripts[row].messages[: len(transcript.messages)]
        return sum(message.agent == name for message in old)

    def _old_context(self, name: str, row: int, transcript: Transcript, number: int) -> list[int]:
        return self.rollouts.views[name][row].context_of(self._own_number(name, row, transcript), number)


def as_kept(message: Message) -> Message:
    """A draft that is kept whole. Its log-probabilities are no longer what the sampler would have."""
    return dataclasses.replace(message, logps=None)
