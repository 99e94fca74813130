"""The part of one agent in a turn: what it reads, what it keeps of its drafts, what it says, and the tools that it calls."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..conversation.thoughts import Reading
from ..conversation.transcript import Message, ToolUse
from ..policy.drawing import Draw
from ..policy.participant import Begun, Participant
from ..policy.speaker import Speaker
from ..tools import ToolUser, calls_of
from .acting import Acting
from .drafts import Drafts
from .rollouts import Rollouts


# How a segment of the next message of a row is drawn; `None` for one that is sampled with its batch
Draws = Callable[[int, int], Draw | None]


@dataclass
class _Open:
    """A message that is not finished: its segments, and the pauses between them."""

    segments: list[Message] = field(default_factory=list)
    uses: list[ToolUse] = field(default_factory=list)

    @property
    def length(self) -> int:
        return sum(len(segment.ids) for segment in self.segments)

    def close(self, shows_tools: bool) -> Message:
        """The whole message."""
        last = self.segments[-1]
        if not self.uses:
            return last
        known = [segment.logps or (math.nan,) * len(segment.ids) for segment in self.segments]
        return dataclasses.replace(
            last,
            ids=tuple(token for segment in self.segments for token in segment.ids),
            logps=sum(known, ()) if any(segment.logps is not None for segment in self.segments) else None,
            thought="\n\n".join(segment.thought for segment in self.segments if segment.thought),
            tool_uses=tuple(self.uses),
            shows_tools=shows_tools,
        )


class Part:
    """
    The part of one speaker in a turn. Without tools a message is one segment; with them it goes on after every call.

    Args:
        speaker ([`Participant`]): The agent. All processes make its part together.
        rows (`Sequence[int]`): The rows in which it speaks.
        rollouts ([`Rollouts`]): To which its messages are appended.
        acting ([`Acting`]): Brings environments into the state that a rollout has reached.
        drafts ([`Drafts`], *optional*): What may be kept.
        draws (`Draws`, *optional*): How messages are drawn.
    """

    def __init__(
        self,
        speaker: Participant,
        rows: Sequence[int],
        rollouts: Rollouts,
        acting: Acting,
        drafts: Drafts | None,
        draws: Draws | None,
    ):
        self.speaker, self._rollouts, self._drafts, self._draws = speaker, rollouts, drafts, draws
        self._acting = acting
        self._views = rollouts.views[speaker.name]
        self._open: dict[int, _Open] = {}
        for row in rows:
            if rollouts.read(speaker, row):
                self._open[row] = _Open()
            else:
                rollouts.full[row] = speaker.name

    @property
    def is_open(self) -> bool:
        """Whether some message goes on."""
        return bool(self._open)

    def begin(self) -> Begun:
        """The next segment of each open message, as far as it is kept. All processes call this together."""
        contexts = {row: self._views[row].context for row in self._open}
        numbers = {row: len(message.uses) for row, message in self._open.items()}
        self._kept: dict[int, Message] = {}
        self._beginnings: dict[int, tuple[int, ...]] = {}
        if self._drafts is not None:
            self._kept, self._beginnings = self._drafts.verify(self.speaker, contexts, self._rollouts, numbers)
        self._to_speak = [row for row in contexts if row not in self._kept]
        beginnings = [self._beginnings.get(row, ()) for row in self._to_speak]
        draws = None if self._draws is None else [self._draws(row, numbers[row]) for row in self._to_speak]
        return self.speaker.begin([contexts[row] for row in self._to_speak], beginnings, draws)

    def write(self, spoken: Sequence[Message]):
        """Append the segments, sampled or kept, to the views; close the messages that do not go on."""
        said = dict(zip(self._to_speak, spoken, strict=True))
        for row in list(self._open):
            if row in said:
                self._rollouts.tokens_decoded += said[row].num_tokens - len(self._beginnings.get(row, ()))
            self._append(row, said[row] if row in said else self._kept[row])

    def _append(self, row: int, segment: Message):
        message, view, speaker, goes_on = self._open[row], self._views[row], self.speaker, False
        if isinstance(speaker, Speaker) and speaker.tools is not None:
            reading = speaker.read_again(segment.ids, view.context)
            segment = dataclasses.replace(segment, text=reading.answer, thought=reading.thought)
            view.write(segment.ids, segment.logps, goes_on=bool(message.segments))
            message.segments.append(segment)
            goes_on = self._use_tools(speaker, speaker.tools, row, reading)
        else:
            view.write(segment.ids, segment.logps)
            message.segments.append(segment)
        if not goes_on:
            shows_tools = speaker.tools is not None and speaker.tools.shows_tools
            self._rollouts.transcripts[row].messages.append(self._open.pop(row).close(shows_tools))

    def _use_tools(self, speaker: Speaker, tools: ToolUser, row: int, reading: Reading) -> bool:
        """Execute the calls of a segment, and let its author read the results; `False` if it calls nothing, or must not."""
        message, view = self._open[row], self._views[row]
        segment, number = message.segments[-1], len(message.uses)
        if not reading.calls or not segment.finished or number >= tools.max_uses:
            return False
        renderer = speaker.results_for(self._rollouts.transcripts[row].prompt)
        if len(reading.calls) > 1 and not renderer.takes_several:
            reading = dataclasses.replace(reading, calls=reading.calls[:1], fault="one call at a time")
        names = [call.name for call in reading.calls]
        _, around = renderer.encode(names, [""] * len(names), segment.ids)
        if len(view.context) + len(around) + tools.reserve(len(names)) > self.speaker.room:
            self._rollouts.tools_without_room += 1
            return False
        use = self._do_calls(row, reading)
        view.hear(*renderer.encode(names, use.results, segment.ids))
        message.uses.append(use)
        return True

    def _do_calls(self, row: int, reading: Reading) -> ToolUse:
        """Execute calls, unless their results stand: those of a rollout that is unchanged so far, if its world is not new."""
        old = None
        if self._drafts is not None:
            old = self._drafts.tool_use(self.speaker.name, row, self._rollouts, len(self._open[row].uses))
        if old is not None and not self._acting.is_rebuilt:
            return old
        use = self._execute(row, reading)
        if old is not None and self._drafts is not None and use.results != old.results:
            self._drafts.change(row)
        return use

    def _execute(self, row: int, reading: Reading) -> ToolUse:
        transcript, message, tools = self._rollouts.transcripts[row], self._open[row], self.speaker.tools
        assert tools is not None  # only then is a segment read
        if transcript.world is not None:
            self._acting.reach(transcript, self.speaker.name, message.uses)
        start = time.perf_counter()
        results = tools.execute(reading, transcript.world)
        self._rollouts.tool_seconds[self.speaker.name] += time.perf_counter() - start
        texts, failed = tuple(result.text for result in results), tuple(result.failed for result in results)
        use = ToolUse(message.length, reading.calls, texts, failed, reading.answer)
        if transcript.world is not None:
            transcript.world.note(calls_of(self.speaker.name, [use]))
        return use
