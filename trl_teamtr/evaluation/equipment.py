"""The tools and the environment with which the protocols of an evaluation are played."""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..agents.agent import Agent
from ..agents.equipping import equip
from ..returns.environment_rewards import environment_rewards, with_weights
from ..teamtr_config import TeamTRConfig
from ..tools import Environments
from ..tools.worlds import EnvironmentFactory
from .checks import check_rewards
from .evaluation_config import EvaluationConfig
from .protocols import SAMPLED


# What can be played on an environment: each rollout has one of its own, in which the answer is acted out
ACTED = ("team", "single", "best_of_n")


@dataclass(frozen=True)
class Equipment:
    """
    The tools and the environment of an evaluation.

    Args:
        tools (`list[Callable]`): Functions of the agents that have none of their own.
        functions (`list[Callable]`): Functions of all agents, which a single model may call in their place.
        environment_factory (`Callable`, *optional*): Makes the team's environment of a rollout.
        environments ([`Environments`], *optional*): The environments of the team, for their rewards.
    """

    tools: list[Callable]
    functions: list[Callable]
    environment_factory: EnvironmentFactory | None
    environments: Environments | None

    @classmethod
    def of(
        cls,
        agents: Sequence[Agent],
        tools: Sequence[Callable] | None,
        environment_factory: Any,
        config: EvaluationConfig,
    ) -> "Equipment":
        """
        That of a team of `agents`, with the arguments of [`TeamTRTrainer`].

        Raises:
            `ValueError`: If there is an environment, on which a protocol of `config` cannot be played; and as [`equip`].
        """
        environments = equip([copy.copy(agent) for agent in agents], tools, environment_factory)
        if environments is not None:
            _check_protocols(config, agents)
        given = list(tools or [])
        own = [tool for agent in agents for tool in agent.tools or [] if not isinstance(tool, str)]
        return cls(given, list(dict.fromkeys([*given, *own])), environment_factory, environments)

    @property
    def acts(self) -> bool:
        """Whether agents act on an environment."""
        return self.environments is not None

    def add_rewards(
        self, reward_funcs: Any, args: TeamTRConfig, config: EvaluationConfig
    ) -> tuple[list, TeamTRConfig]:
        """
        `reward_funcs` as a list with the rewards of the environments, and `args` with their weights.

        Raises:
            `ValueError`: If there is no reward, or there are several and no threshold.
        """
        if not isinstance(reward_funcs, list | tuple):
            reward_funcs = [] if reward_funcs is None else [reward_funcs]
        funcs = [*reward_funcs, *environment_rewards(self.environments)]
        check_rewards(config, funcs)
        return funcs, with_weights(args, self.environments)

    def seat_one(self, agents: Sequence[Agent]) -> list[Agent]:
        """The single model among `agents`; on an environment it has the tools of the whole team."""
        return [dataclasses.replace(agent, tools=None) for agent in agents] if self.acts else list(agents)


def _check_protocols(config: EvaluationConfig, agents: Sequence[Agent]):
    refused = [protocol for protocol in config.protocols if protocol not in ACTED]
    if refused:
        raise ValueError(
            f"Protocol {refused[0]!r} is not possible with an environment: a vote, a debate and a role-play choose among what was "
            f"said, but here the answer is what was done. Leave it out: {', '.join(map(repr, ACTED))} are possible."
        )
    owners = [agent.name for agent in agents if agent.environment_factory is not None]
    single = [protocol for protocol in config.protocols if protocol in SAMPLED]
    if owners and single:
        raise ValueError(
            f"Protocol {single[0]!r} is not possible: agent {owners[0]!r} has an environment of its own, beside which a single model "
            "would have none. Leave it out, or let the team share one environment."
        )
