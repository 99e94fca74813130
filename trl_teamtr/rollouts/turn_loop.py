"""The turn loop: a team generates its transcripts turn by turn, in one batch per backend."""

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

from accelerate import Accelerator

from ..conversation.prompts import check_prompt
from ..conversation.rules import RolloutRules
from ..conversation.transcript import Message, Transcript
from ..policy.participant import Participant, speak_together
from ..policy.processes import union
from ..tools import Environments
from .acting import Acting
from .drafts import Drafts
from .part import Draws, Part
from .rollouts import Rollouts, replay


class TurnLoop:
    """
    Lets speakers take turns according to the rules.

    All processes enter every generation together, those without a row for the speaker with a dummy row, since
    generation under ZeRO-3 is a collective.

    Args:
        speakers (`Sequence[Participant]`): The team, in team order.
        rules ([`RolloutRules`]): Who speaks, and when a rollout ends.
        accelerator ([`~accelerate.Accelerator`]): For the agreement between processes.
        environments ([`Environments`], *optional*): Those on which the speakers act.

    Attributes:
        names (`tuple[str]`): Names of the team, in team order.
    """

    def __init__(
        self,
        speakers: Sequence[Participant],
        rules: RolloutRules,
        accelerator: Accelerator,
        environments: Environments | None = None,
    ):
        self.speakers, self.rules, self.accelerator = speakers, rules, accelerator
        self.acting = Acting(speakers, environments, accelerator)
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
        transcripts = [
            Transcript(row["prompt"], self.names, private_prompts(row), seed, messages=list(messages))
            for row, messages, seed in zip(rows, said, seeds, strict=True)
        ]
        self.acting.open(transcripts, rows)
        return transcripts

    def run(self, transcripts: list[Transcript], drafts: Drafts | None = None, draws: Draws | None = None) -> Rollouts:
        """
        Let the team, with its current weights, continue each of `transcripts` to its end.

        Args:
            transcripts (`list[Transcript]`): One per row of this process. Messages that they already have are kept.
            drafts (`Drafts`, *optional*): Rollouts of the team before its last update, whose messages may be kept.
            draws (`Callable[[int, int], Draw | None]`, *optional*): How a segment of the next message of a row is drawn.
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
                parts.append(Part(speaker, rows, rollouts, self.acting, drafts, draws))
            self._speak(parts)
        return bool(speaking)

    def _speak(self, parts: Sequence[Part]):
        """Finish the messages of `parts`: one segment of each at a time, until none calls a tool."""
        while True:
            messages = speak_together([part.begin() for part in parts])
            for part, said in zip(parts, messages, strict=True):
                part.write(said)
            if all(part.speaker.tools is None for part in parts):
                return
            # Generation is a collective: a process without calls goes on beside one that has some
            if not union(self.accelerator, {True} if any(part.is_open for part in parts) else set()):
                return

    def resample(self, drafts: Drafts) -> Rollouts:
        """Resample the rollouts of `drafts` with the current team, keeping what may be kept."""
        empty = [dataclasses.replace(transcript, messages=[]) for transcript in drafts.rollouts.transcripts]
        if self.acting.is_rebuilt:
            self.acting.rebuild(empty)
            for row, (new, old) in enumerate(zip(empty, drafts.rollouts.transcripts, strict=True)):
                if new.observations != old.observations:
                    drafts.change(row)
        rollouts = self.run(empty, drafts)
        if self.acting.environments is not None:
            for transcript in rollouts.transcripts:
                self.acting.reach(transcript)  # some rollouts have changed after their last call
        return rollouts

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
