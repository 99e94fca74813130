"""The turn loop: a team generates its transcripts turn by turn, in one batch per backend."""

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Any

from accelerate import Accelerator

from ..conversation.prompts import check_prompt
from ..conversation.rules import RolloutRules
from ..conversation.transcript import Message, Transcript
from ..policy.drawing import Draw
from ..policy.participant import Begun, Participant, speak_together
from ..policy.processes import union
from .drafts import Drafts
from .rollouts import Rollouts, replay


# How the next message of a row is drawn; `None` for a message that is sampled with its batch
Draws = Callable[[int], Draw | None]


class TurnLoop:
    """
    Lets speakers take turns according to the rules.

    All processes enter every generation together, those without a row for the speaker with a dummy row, since
    generation under ZeRO-3 is a collective.

    Args:
        speakers (`Sequence[Participant]`): The team, in team order.
        rules ([`RolloutRules`]): Who speaks, and when a rollout ends.
        accelerator ([`~accelerate.Accelerator`]): For the agreement between processes.

    Attributes:
        names (`tuple[str]`): Names of the team, in team order.
    """

    def __init__(self, speakers: Sequence[Participant], rules: RolloutRules, accelerator: Accelerator):
        self.speakers, self.rules, self.accelerator = speakers, rules, accelerator
        self.names = tuple(speaker.name for speaker in speakers)

    def begin(
        self,
        rows: Sequence[dict[str, Any]],
        said: Sequence[Sequence[Message]] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> list[Transcript]:
        """
        Transcripts for rows of a dataset (`prompt`, and `agent_prompts` if there are private prompts), each with its
        own seed (one of `seeds`, if given), that begin with the messages `said`.

        Raises:
            `ValueError`: If a row has no prompt that a team can continue; for rows of a stream, which is not checked
                before.
        """
        for number, row in enumerate(rows):
            try:
                check_prompt(row["prompt"])
            except ValueError as error:
                raise ValueError(f"Row {number} of a batch of {len(rows)}: {error}") from error
        said = said if said is not None else [()] * len(rows)
        seeds = seeds if seeds is not None else [random.getrandbits(32) for _ in rows]
        return [
            Transcript(row["prompt"], self.names, private_prompts(row), seed, list(messages))
            for row, messages, seed in zip(rows, said, seeds, strict=True)
        ]

    def run(self, transcripts: list[Transcript], drafts: Drafts | None = None, draws: Draws | None = None) -> Rollouts:
        """
        Let the team, with its current weights, continue each of `transcripts` to its end.

        Args:
            transcripts (`list[Transcript]`): One per row of this process. Messages that they already have are kept.
            drafts (`Drafts`, *optional*): Rollouts of the team before its last update, whose messages may be kept.
            draws (`Callable[[int], Draw | None]`, *optional*): How the next message of a row is drawn.
        """
        rollouts = replay(transcripts, self.speakers)
        while True:
            turn = [self._next_speaker(row, rollouts, drafts) for row in range(len(transcripts))]
            if not self.take_turn(turn, rollouts, drafts, draws):
                return rollouts

    def take_turn(
        self, turn: list[str | None], rollouts: Rollouts, drafts: Drafts | None = None, draws: Draws | None = None
    ) -> bool:
        """
        One message in each row of `rollouts` by the speaker that `turn` names. All processes call this together.

        Returns:
            `bool`: Whether some process has named a speaker.
        """
        speaking = union(self.accelerator, {name for name in turn if name is not None})
        speakers = [speaker for speaker in self.speakers if speaker.name in speaking]
        for together in share_backends(speakers):
            parts = []
            for speaker in together:
                rows = [row for row, name in enumerate(turn) if name == speaker.name]
                parts.append(_Part(speaker, rows, rollouts, drafts, draws))
            messages = speak_together([part.begun for part in parts])
            for part, said in zip(parts, messages, strict=True):
                part.write(said, rollouts)
        return bool(speaking)

    def resample(self, drafts: Drafts) -> Rollouts:
        """Resample the rollouts of `drafts` with the current team, keeping what may be kept."""
        empty = [dataclasses.replace(transcript, messages=[]) for transcript in drafts.rollouts.transcripts]
        return self.run(empty, drafts)

    def _next_speaker(self, row: int, rollouts: Rollouts, drafts: Drafts | None) -> str | None:
        transcript = rollouts.transcripts[row]
        if row in rollouts.full:
            return None
        if drafts is not None and drafts.unchanged(row):
            # Not asked again: a random router would choose otherwise, and bias what is kept
            if drafts.ended_for_length(row, transcript):
                rollouts.full[row] = drafts.rollouts.full[row]
            return drafts.author(row, transcript)
        return self.rules.next_speaker(transcript)


def private_prompts(row: dict[str, Any]) -> dict[str, str]:
    """What only the named agents see of a row, from its `agent_prompts`."""
    return {name: text for name, text in (row.get("agent_prompts") or {}).items() if text}


def share_backends(speakers: Sequence[Participant]) -> list[list[Participant]]:
    """`speakers`, those with one backend together; otherwise in their order."""
    groups: dict[int, list[Participant]] = {}
    for speaker in speakers:
        groups.setdefault(id(speaker.backend), []).append(speaker)
    return list(groups.values())


class _Part:
    """The part of one speaker in a turn: what it reads and keeps of its drafts, until its messages are there."""

    def __init__(
        self, speaker: Participant, rows: list[int], rollouts: Rollouts, drafts: Drafts | None, draws: Draws | None
    ):
        self._ready = []
        for row in rows:
            if rollouts.read(speaker, row):
                self._ready.append(row)
            else:
                rollouts.full[row] = speaker.name
        views = rollouts.views[speaker.name]
        self._kept: dict[int, Message] = {}
        self._beginnings: dict[int, tuple[int, ...]] = {}
        if drafts is not None:
            contexts = {row: views[row].context for row in self._ready}
            self._kept, self._beginnings = drafts.verify(speaker, contexts, rollouts)
        self._to_speak = [row for row in self._ready if row not in self._kept]
        beginnings = [self._beginnings.get(row, ()) for row in self._to_speak]
        own = None if draws is None else [draws(row) for row in self._to_speak]
        self.begun: Begun = speaker.begin([views[row].context for row in self._to_speak], beginnings, own)

    def write(self, messages: list[Message], rollouts: Rollouts):
        """Append the messages, sampled or kept, to the rollouts."""
        said = dict(zip(self._to_speak, messages, strict=True))
        for row in self._ready:
            if row in said:
                rollouts.tokens_decoded += said[row].num_tokens - len(self._beginnings.get(row, ()))
            rollouts.write(row, said[row] if row in said else self._kept[row])
