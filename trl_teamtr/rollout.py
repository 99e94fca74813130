"""The turn loop: a team writes its transcripts, all rollouts of a turn in one batch per agent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from accelerate import Accelerator
from accelerate.utils import gather_object

from .router import Router, make_router, next_speaker
from .teamtr_config import TeamTRConfig
from .transcript import Transcript
from .view import View


if TYPE_CHECKING:
    from .agent_trainer import AgentTrainer


@dataclass
class Rollouts:
    """
    What a team wrote for a batch of rows.

    Args:
        transcripts (`list[Transcript]`): One per row.
        views (`dict[str, list[View]]`): For each agent, its view of each row.
        num_ended (`int`): Number of rollouts that ended because a context was full.
    """

    transcripts: list[Transcript]
    views: dict[str, list[View]]
    num_ended: int = 0

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
    """The rules of `args` for a team of `names`; `router` and `stop_condition` are the user's own, if any."""
    max_turns = args.max_turns if args.max_turns is not None else args.num_rounds * len(names)
    router = router if router is not None else make_router(args.router, max_turns)
    return RolloutRules(router, max_turns, args.stop_string, stop_condition)


def collect_rollouts(
    transcripts: list[Transcript], speakers: Sequence["AgentTrainer"], rules: RolloutRules, accelerator: Accelerator
) -> Rollouts:
    """
    Let the team write each of `transcripts` to its end.

    All processes enter every generation together, those without a row for the speaker with a dummy row, since
    generation under ZeRO-3 is a collective.

    Args:
        transcripts (`list[Transcript]`): One per row of this process, without messages.
        speakers (`Sequence[AgentTrainer]`): The team, in team order.
        rules (`RolloutRules`): Who speaks, and when a rollout ends.
        accelerator ([`~accelerate.Accelerator`]): For the agreement between processes.
    """
    views = {speaker.name: [View() for _ in transcripts] for speaker in speakers}
    rollouts = Rollouts(transcripts, views)
    full = set()  # rows whose next speaker has no room left
    while True:
        turn = [None if row in full else rules.next_speaker(t) for row, t in enumerate(transcripts)]
        speaking = _union(accelerator, {name for name in turn if name is not None})
        if not speaking:
            break
        for speaker in speakers:
            if speaker.name in speaking:
                rows = [row for row, name in enumerate(turn) if name == speaker.name]
                full.update(_take_turn(speaker, rows, rollouts))
    rollouts.num_ended = len(full)
    return rollouts


def _take_turn(speaker: "AgentTrainer", rows: list[int], rollouts: Rollouts) -> list[int]:
    """Let `speaker` write one message in each of `rows`; returns the rows in which it had no room to."""
    room = speaker.max_view_length - speaker.max_completion_length
    ready, full = [], []
    for row in rows:
        transcript, view = rollouts.transcripts[row], rollouts.views[speaker.name][row]
        fits = view.read(transcript, speaker.renderer_for(transcript.prompt), room)
        (ready if fits else full).append(row)
    messages = speaker.speak([rollouts.views[speaker.name][row].context for row in ready])
    for row, message in zip(ready, messages, strict=True):
        rollouts.transcripts[row].messages.append(message)
        rollouts.views[speaker.name][row].write(list(message.ids))
    return full


def _union(accelerator: Accelerator, names: set[str]) -> set[str]:
    return set(gather_object(list(names))) if accelerator.num_processes > 1 else names
