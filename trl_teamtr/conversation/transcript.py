"""The shared context of a team: a prompt, and the messages so far."""

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ToolCall:
    """
    A call of a tool.

    Args:
        name (`str`): Name of the tool.
        arguments (`str`): Its arguments, as a JSON object.
    """

    name: str
    arguments: str = "{}"


@dataclass(frozen=True)
class ToolUse:
    """
    A pause of a message, in which its author's calls were executed and it read their results.

    Args:
        after (`int`): Number of the message's sampled ids before it.
        calls (`tuple[ToolCall]`): The calls, at least one.
        results (`tuple[str]`): What the author read, one text for each call.
        failed (`tuple[bool]`): Which of them are errors.
        text (`str`): What it said with the calls.
    """

    after: int
    calls: tuple[ToolCall, ...]
    results: tuple[str, ...]
    failed: tuple[bool, ...]
    text: str = ""

    def __str__(self) -> str:
        done = [
            f"{call.name}({call.arguments}) -> {result}" for call, result in zip(self.calls, self.results, strict=True)
        ]
        return "\n".join([self.text] * bool(self.text) + done)


@dataclass(frozen=True)
class Message:
    """
    One turn: a macro-action of the agent that speaks.

    Args:
        agent (`str`): Name of the author.
        text (`str`): What it says in the end, which the other agents and the reward functions read; no special tokens, no
            private thoughts.
        ids (`tuple[int]`): The sampled token ids, in the author's vocabulary, its end-of-turn tokens included. Of a remote
            member, the bytes of its text and an end.
        finished (`bool`): Whether it ends with an end-of-turn token, and not at the length limit.
        logps (`tuple[float]`, *optional*): Log-probabilities with which the ids were sampled, in nats, NaN for those that
            were not sampled as they are; `None` if no id was, or it is not known.
        thought (`str`): What its author thought before it answered, if that is private.
        tool_uses (`tuple[ToolUse]`): The pauses in which tools were called.
        shows_tools (`bool`): Whether the other agents read these too.
        tokens (`int`, *optional*): Number of tokens that were sampled for it, if that is not the number of `ids`.
    """

    agent: str
    text: str
    ids: tuple[int, ...] = ()
    finished: bool = True
    logps: tuple[float, ...] | None = field(default=None, compare=False, repr=False)
    thought: str = ""
    tool_uses: tuple[ToolUse, ...] = ()
    shows_tools: bool = False
    tokens: int | None = field(default=None, compare=False)

    @property
    def num_tokens(self) -> int:
        """Number of tokens that were sampled for it."""
        return len(self.ids) if self.tokens is None else self.tokens

    @property
    def heard(self) -> str:
        """What the other agents read."""
        if not self.shows_tools:
            return self.text
        return "\n".join([*map(str, self.tool_uses), *[self.text] * bool(self.text)])

    @property
    def edges(self) -> list[int]:
        """Where the parts of `ids` begin that were sampled without a pause, and where the last one ends."""
        return [0, *(use.after for use in self.tool_uses), len(self.ids)]

    def segment(self, number: int) -> tuple[int, ...]:
        """The ids that were sampled without a pause, after `number` of them; none if there were fewer."""
        edges = self.edges
        return self.ids[edges[number] : edges[number + 1]] if number + 1 < len(edges) else ()

    def as_dicts(self) -> list[dict[str, Any]]:
        """As [`~Transcript.as_dicts`]."""
        said: list[dict[str, Any]] = []
        for use in self.tool_uses:
            functions = [{"name": call.name, "arguments": json.loads(call.arguments)} for call in use.calls]
            calls = [{"type": "function", "function": function} for function in functions]
            said.append({"role": "assistant", "name": self.agent, "content": use.text, "tool_calls": calls})
            for call, result in zip(use.calls, use.results, strict=True):
                said.append({"role": "tool", "name": call.name, "content": result})
        thought = {"reasoning_content": self.thought} if self.thought else {}
        return [*said, {"role": "assistant", "name": self.agent, "content": self.text} | thought]


@dataclass
class Transcript:
    """
    One rollout of the team.

    Args:
        prompt (`str` or `list[dict]`): The task, in TRL's standard or conversational format.
        agents (`tuple[str]`): Names of the team, in team order.
        private (`dict[str, str]`): What only the named agent sees, from the row's `agent_prompts`.
        seed (`int`): Seed of this rollout's random choices outside the policies (e.g. of a random router).
        observations (`dict[str, str]`): What the named agents read of the rollout's environments at the beginning.
        messages (`list[Message]`): The messages, in order.
        world (*optional*): The rollout's environments.
    """

    prompt: str | list[dict]
    agents: tuple[str, ...]
    private: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    observations: dict[str, str] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    world: Any = field(default=None, compare=False, repr=False)

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

    def as_dicts(self) -> list[dict[str, Any]]:
        """
        The messages, as passed to reward functions: `[{"role": "assistant", "name": ..., "content": ...}, ...]`, with
        `reasoning_content` where there was a private thought. Before a message in which tools were called come its calls
        (`tool_calls`) and their results (`"role": "tool"`), as in TRL.
        """
        return [said for message in self.messages for said in message.as_dicts()]

    def __str__(self) -> str:
        return "\n".join(f"{message.agent}: {message.text}" for message in self.messages)
