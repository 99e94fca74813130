"""Conversations that go on turn by turn beside others: each may join late, be heard as it is generated, and be ended early."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..conversation.streaming import IncrementalText
from ..conversation.transcript import Message, Transcript
from ..policy.drawing import Draw
from .rollouts import Rollouts, replay
from .turn_loop import TurnLoop


@dataclass(frozen=True)
class Piece:
    """
    Text that an agent adds to its message.

    Args:
        agent (`str`): Its name.
        turn (`int`): The turn, from 0.
        text (`str`): The text; empty when the message begins.
    """

    agent: str
    turn: int
    text: str


@dataclass(frozen=True)
class Wishes:
    """
    How the messages of one conversation are drawn.

    Args:
        seed (`int`, *optional*): Seed of all its ids. The same one gives the same conversation, whatever shares the batch.
        temperature (`float`, *optional*): In place of the agents' own; 0 for the most probable id at each place.
        max_tokens (`int`, *optional*): Maximum number of tokens of a message, if that is less than the agents'.
    """

    seed: int | None = None
    temperature: float | None = None
    max_tokens: int | None = None

    def of_turn(self, turn: int, on_token: Callable[[int], bool] | None = None, segment: int = 0) -> Draw:
        """How the message of a turn is drawn, or a segment of it."""
        place = f"{turn}" if segment == 0 else f"{turn}/{segment}"
        seed = None if self.seed is None else random.Random(f"{self.seed}/{place}/ids").getrandbits(63)
        return Draw(seed, self.temperature, self.max_tokens, on_token)


class Talk:
    """
    A conversation in progress.

    Args:
        turn_loop ([`TurnLoop`]): Of the team.
        transcript ([`Transcript`]): Its beginning. Changed in place.
        wishes ([`Wishes`]): How its messages are drawn.
        listen (`Callable[[Piece | Message], None]`, *optional*): Called with every piece of a message, and with each message once it
            is whole, from the thread in which [`~Talk.go_on`] is called.

    Attributes:
        next (`str` or `None`): Who speaks next; `None` once it has ended.
        full (`str` or `None`): The agent whose context had no room left, if it ended for that.
        cancelled (`bool`): To be set by anyone who does not want it any more: it ends at the next token.
        error (`Exception` or `None`): What its router, stop condition or listener has raised, if one did: it has ended then.
    """

    def __init__(
        self,
        turn_loop: TurnLoop,
        transcript: Transcript,
        wishes: Wishes,
        listen: Callable[[Piece | Message], None] | None = None,
    ):
        self._turn_loop, self._wishes, self._listen = turn_loop, wishes, listen
        self._rollouts = replay([transcript], turn_loop.speakers)
        self._speakers = {speaker.name: speaker for speaker in turn_loop.speakers}
        self._text: IncrementalText | None = None
        self.full: str | None = None
        self.cancelled = False
        self.error: Exception | None = None
        self.next = turn_loop.rules.next_speaker(transcript)

    @property
    def transcript(self) -> Transcript:
        """All messages so far."""
        return self._rollouts.transcripts[0]

    @property
    def prompt_length(self) -> int:
        """Number of tokens that the first speaker read before its message; 0 if nobody has spoken."""
        messages = self.transcript.messages
        return len(self._rollouts.views[messages[0].agent][0].opening_ids) if messages else 0

    @property
    def team_key(self) -> int:
        """The same for talks of one team."""
        return id(self._turn_loop)

    def result(self) -> Transcript:
        """The transcript; raises the error that has ended it, if one did."""
        if self.error is not None:
            raise self.error
        return self.transcript

    @property
    def ended(self) -> bool:
        """Whether nobody speaks any more."""
        return self.next is None or self.cancelled

    @staticmethod
    def go_on(talks: Sequence["Talk"]):
        """One message in each of `talks`, none of which has ended, of one team. They share batches."""
        if not talks:
            return
        turn_loop, rows = talks[0]._turn_loop, [talk._rollouts for talk in talks]
        views = {name: [each.views[name][0] for each in rows] for name in turn_loop.names}
        together = Rollouts([talk.transcript for talk in talks], views)
        turn_loop.take_turn(
            [talk.next for talk in talks], together, draws=lambda row, segment: talks[row]._begin_segment(segment)
        )
        for row, talk in enumerate(talks):
            try:
                talk._end_turn(together.full.get(row))
            except Exception as error:  # of the user's code: it ends this talk, and not those beside it
                talk.error, talk.next = error, None

    def _begin_segment(self, segment: int) -> Draw:
        turn, name = len(self.transcript.messages), self.next
        assert name is not None  # it has not ended
        if self._listen is None:
            return self._wishes.of_turn(turn, lambda token: not self.cancelled, segment)
        listen, speaker, context = self._listen, self._speakers[name], self._rollouts.views[name][0].context
        text = self._text = speaker.incremental_text(context)
        if segment == 0:
            listen(Piece(name, turn, ""))

        def hear(token: int) -> bool:
            piece = "" if text is None else text.add(token)
            if piece and not self.cancelled:
                listen(Piece(name, turn, piece))
            return not self.cancelled

        return self._wishes.of_turn(turn, hear, segment)

    def _end_turn(self, full: str | None):
        self.full = full
        if full is not None or self.cancelled:
            self.next = None
            return
        message = self.transcript.messages[-1]
        if self._listen is not None:
            # Of a member that is not heard token by token, all of it
            rest = message.text if self._text is None else self._text.rest(message.text)
            if rest:
                self._listen(Piece(message.agent, len(self.transcript.messages) - 1, rest))
            self._listen(message)
        self.next = self._turn_loop.rules.next_speaker(self.transcript)


def make_wishes(seed: int | None, greedy: bool) -> Wishes:
    """A seed, and whether the most probable id is written at each place."""
    return Wishes(seed, 0.0 if greedy else None)


def row_seed(seed: int, row: int) -> int:
    """The seed of a conversation, of which it is the only one: whatever is beside it, it is the same."""
    return random.Random(f"{seed}/{row}").getrandbits(32)


def draw_each(transcripts: list[Transcript], wishes: list[Wishes]):
    """How the next message of each of `transcripts` is drawn; `None` if none of them has a wish."""
    if all(each == Wishes() for each in wishes):
        return None
    return lambda row, segment: wishes[row].of_turn(len(transcripts[row].messages), segment=segment)
