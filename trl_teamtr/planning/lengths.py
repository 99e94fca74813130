"""How many tokens the contexts and messages of a rollout have at most."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..agents.agent import Agent
from ..agents.settings import SpeakingSettings
from ..policy.making import find_max_view_length
from ..teamtr_config import TeamTRConfig
from .skeleton import Skeleton


# What a chat template and the name of the author add to a message
TEMPLATE_TOKENS = 8


@dataclass(frozen=True)
class AgentLengths:
    """
    Of one agent, in tokens.

    Args:
        messages (`int`): Number of its messages in a rollout.
        message (`int`): Longest message.
        contexts (`tuple[int, ...]`): Longest context of each of them.
    """

    messages: int
    message: int
    contexts: tuple[int, ...]

    @property
    def context(self) -> int:
        """Longest context."""
        return max(self.contexts)

    @property
    def view(self) -> int:
        """Longest view: a context and its message."""
        return self.context + self.message


def find_lengths(
    agents: Sequence[Agent], skeletons: Sequence[Skeleton], args: TeamTRConfig, prompt_length: int
) -> list[AgentLengths]:
    """
    The largest lengths, if every message is as long as it may be.

    Args:
        agents (`Sequence[Agent]`): The team.
        skeletons (`Sequence[Skeleton]`): Their models.
        args ([`TeamTRConfig`]): The options.
        prompt_length (`int`): Tokens of the longest prompt, with the system prompt.

    Raises:
        `ValueError`: If a prompt leaves no room for a message.
    """
    settings = SpeakingSettings.of(args)
    limits = [find_max_view_length(skeleton.config, args.max_context_length) for skeleton in skeletons]
    own = [settings.sampling.with_own(agent).max_completion_length for agent in agents]
    longest = [limit - prompt_length if length is None else length for limit, length in zip(limits, own, strict=True)]
    for agent, limit, message in zip(agents, limits, longest, strict=True):
        if prompt_length + message > limit or message < 1:
            raise ValueError(
                f"Agent {agent.name!r}: a prompt of {prompt_length} tokens and a message of {max(message, 1)} do not fit into a "
                f"context of {limit}. Plan with a smaller `prompt_length`, or set `max_context_length` or "
                "`max_completion_length`."
            )
    turns = args.max_turns or args.num_rounds * len(agents)
    contexts: list[list[int]] = [[] for _ in agents]
    length = prompt_length
    for turn in range(turns):
        speaker = turn % len(agents)
        contexts[speaker].append(min(length, limits[speaker] - longest[speaker]))
        length += longest[speaker] + (TEMPLATE_TOKENS if len(agents) > 1 else 0)
    last = max(length - min(longest), prompt_length)
    found = []
    for number in range(len(agents)):
        room = limits[number] - longest[number]
        mine = contexts[number] or [prompt_length]  # `max_turns` may leave no turn
        if args.router == "random" and turns > 0:  # it may speak last
            mine = [*mine[:-1], min(last, room)]
        found.append(AgentLengths(len(contexts[number]), longest[number], tuple(mine)))
    return found
