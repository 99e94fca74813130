"""The rules of a conversation: who speaks, and when a rollout ends."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .router import Router, make_router, next_speaker
from .transcript import Transcript


StopCondition = Callable[[Transcript], bool]


@dataclass(frozen=True)
class TurnTaking:
    """
    The options for turn taking, saved in `team.json`.

    Args:
        num_rounds (`int`): Number of rounds; a rollout has at most `num_rounds * number of agents` turns.
        max_turns (`int`, *optional*): Maximum number of turns, if it should differ from that.
        router (`str`): `"round_robin"` or `"random"`.
        stop_string (`str`, *optional*): End after the first message that contains it.
    """

    num_rounds: int = 1
    max_turns: int | None = None
    router: str = "round_robin"
    stop_string: str | None = None

    @classmethod
    def of(cls, args: Any) -> "TurnTaking":
        """The options of `args`, which has the same fields, e.g. a [`TeamTRConfig`]."""
        return cls(args.num_rounds, args.max_turns, args.router, args.stop_string)


@dataclass
class RolloutRules:
    """
    Who speaks, and when a rollout ends.

    Args:
        router (`Router`): Who speaks next.
        max_turns (`int`): Number of messages after which a rollout ends.
        stop_string (`str`, *optional*): End after the first message that contains it.
        stop_condition (`Callable[[Transcript], bool]`, *optional*): End once it is true; called after each message.
    """

    router: Router
    max_turns: int
    stop_string: str | None = None
    stop_condition: StopCondition | None = None

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


def make_rules(
    turns: TurnTaking, names: Sequence[str], router: Router | None = None, stop_condition: StopCondition | None = None
) -> RolloutRules:
    """
    The rules of `turns` for a team of `names`; `router` and `stop_condition` are the user's own, if any.

    Raises:
        `TypeError`: If one of the two is not callable.
    """
    for name, own in (("router", router), ("stop_condition", stop_condition)):
        if own is not None and not callable(own):
            raise TypeError(
                f"The trainer's `{name}` must be a function of a transcript, got {own!r}. Set a built-in one in the "
                "config: `TeamTRConfig(router='random')`, `TeamTRConfig(stop_string='...')`."
            )
    max_turns = turns.max_turns if turns.max_turns is not None else turns.num_rounds * len(names)
    router = router if router is not None else make_router(turns.router, max_turns)
    return RolloutRules(router, max_turns, turns.stop_string, stop_condition)
