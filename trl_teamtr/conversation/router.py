"""Routers choose who speaks next: any callable `transcript -> name`, or `None` to end the rollout."""

import random
from collections.abc import Callable, Sequence

from .transcript import Message, Transcript


Router = Callable[[Transcript], str | None]


class RoundRobinRouter:
    """Agents speak in team order, until there are `max_turns` messages."""

    def __init__(self, max_turns: int):
        self.max_turns = max_turns

    def __call__(self, transcript: Transcript) -> str | None:
        turn = len(transcript.messages)
        return transcript.agents[turn % len(transcript.agents)] if turn < self.max_turns else None


class RandomRouter:
    """
    At each of `max_turns` turns an agent is sampled uniformly.

    The speaker depends only on the rollout's seed and the turn, so asking again for a turn gives the same one.
    """

    def __init__(self, max_turns: int):
        self.max_turns = max_turns

    def __call__(self, transcript: Transcript) -> str | None:
        turn = len(transcript.messages)
        if turn >= self.max_turns:
            return None
        return random.Random(f"{transcript.seed}/{turn}").choice(transcript.agents)


def make_router(kind: str, max_turns: int) -> Router:
    """The built-in router of that name (`"round_robin"` or `"random"`)."""
    routers: dict[str, Callable[[int], Router]] = {"round_robin": RoundRobinRouter, "random": RandomRouter}
    return routers[kind](max_turns)


def next_speaker(router: Router, transcript: Transcript) -> str | None:
    """
    Ask `router` who speaks next.

    Raises:
        `ValueError`: If the answer is neither `None` nor the name of an agent of the team.
    """
    name = router(transcript)
    if name is not None and name not in transcript.agents:
        raise ValueError(
            f"The router answered {name!r} at turn {len(transcript.messages)}, which is not an agent of this team. "
            f"It must return one of {', '.join(transcript.agents)}, or `None` to end the rollout."
        )
    return name


def find_silent_agents(
    router: Router, agents: Sequence[str], prompts: Sequence[str | list[dict]], max_turns: int
) -> list[str]:
    """
    Agents that `router` never calls in a dry run: one rollout of empty messages for each of `prompts`. Nothing is
    generated.
    """
    silent = set(agents)
    for seed, prompt in enumerate(prompts):
        transcript = Transcript(prompt, tuple(agents), seed=seed)
        while len(transcript.messages) < max_turns:
            name = next_speaker(router, transcript)
            if name is None:
                break
            silent.discard(name)
            transcript.messages.append(Message(name, ""))
    return [name for name in agents if name in silent]
