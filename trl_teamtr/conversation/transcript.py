"""The shared context of a team: a prompt, and the messages so far."""

from collections.abc import Collection
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Message:
    """
    One turn: a macro-action of the agent that speaks.

    Args:
        agent (`str`): Name of the author.
        text (`str`): What the other agents and the reward functions read; no special tokens, no private thoughts.
        ids (`tuple[int]`): The sampled token ids, in the author's vocabulary, its end-of-turn token included. Of a remote
            member, the bytes of its text and an end.
        finished (`bool`): Whether it ends with an end-of-turn token, and not at the length limit.
        logps (`tuple[float]`, *optional*): Log-probabilities with which the ids were sampled, in nats, NaN for those that
            were not sampled as they are; `None` if no id was, or it is not known.
        thought (`str`): What its author thought before it answered, if that is private.
        tokens (`int`, *optional*): Number of tokens that were sampled for it, if that is not the number of `ids`.
    """

    agent: str
    text: str
    ids: tuple[int, ...] = ()
    finished: bool = True
    logps: tuple[float, ...] | None = field(default=None, compare=False, repr=False)
    thought: str = ""
    tokens: int | None = field(default=None, compare=False)

    @property
    def num_tokens(self) -> int:
        """Number of tokens that were sampled for it."""
        return len(self.ids) if self.tokens is None else self.tokens


@dataclass
class Transcript:
    """
    One rollout of the team.

    Args:
        prompt (`str` or `list[dict]`): The task, in TRL's standard or conversational format.
        agents (`tuple[str]`): Names of the team, in team order.
        private (`dict[str, str]`): What only the named agent sees, from the row's `agent_prompts`.
        seed (`int`): Seed of this rollout's random choices outside the policies (e.g. of a random router).
        messages (`list[Message]`): The messages, in order.
    """

    prompt: str | list[dict]
    agents: tuple[str, ...]
    private: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    messages: list[Message] = field(default_factory=list)

    @property
    def final_text(self) -> str:
        """Text of the last message: the team's answer."""
        return self.messages[-1].text if self.messages else ""

    def turns_of(self, name: str) -> list[int]:
        """The turns, from 0, at which agent `name` spoke."""
        return [turn for turn, message in enumerate(self.messages) if message.agent == name]

    def first_turn_of(self, names: Collection[str | None], start: int = 0) -> int:
        """The first turn, from `start` on, at which one of `names` spoke; the number of messages if there is none."""
        spoken = (t for t, message in enumerate(self.messages) if t >= start and message.agent in names)
        return next(spoken, len(self.messages))

    def as_dicts(self) -> list[dict[str, str]]:
        """
        The messages, as passed to reward functions: `[{"role": "assistant", "name": ..., "content": ...}, ...]`, with
        `reasoning_content` where there was a private thought.
        """
        return [
            {"role": "assistant", "name": m.agent, "content": m.text}
            | ({"reasoning_content": m.thought} if m.thought else {})
            for m in self.messages
        ]

    def __str__(self) -> str:
        return "\n".join(f"{message.agent}: {message.text}" for message in self.messages)
