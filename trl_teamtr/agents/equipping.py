"""Which tools and environments the members of a team have."""

from collections.abc import Callable, Sequence
from typing import Any

from ..teamtr_config import TeamTRConfig
from ..tools import Environments
from ..tools.worlds import TEAM, EnvironmentFactory
from .agent import Agent
from .resolving import resolve_code, resolve_team


def resolve_equipped(
    model: Any,
    args: TeamTRConfig,
    peft_config: Any,
    tools: Sequence[Callable] | None,
    environment_factory: Any,
    **code: Any,
) -> tuple[list[Agent], Environments | None, dict[str, Any]]:
    """
    The team that `model` specifies ([`resolve_team`]), with its tools and environments, and the rest of its `code`: its router and its
    stop condition ([`resolve_code`]).
    """
    agents = resolve_team(model, args, peft_config)
    code = resolve_code(model, environment_factory=environment_factory, **code)
    return agents, equip(agents, tools, code.pop("environment_factory")), code


def equip(
    agents: Sequence[Agent],
    tools: Sequence[Callable] | None = None,
    environment_factory: EnvironmentFactory | dict[str, EnvironmentFactory] | None = None,
) -> Environments | None:
    """
    Give `agents` the tools of the team, unless they have their own.

    Args:
        agents (`Sequence[Agent]`): The members. Changed in place.
        tools (`Sequence[Callable]`, *optional*): The team's functions.
        environment_factory (`Callable`, *optional*): Makes the team's environment of a rollout.

    Returns:
        [`Environments`], or `None` if there are none.

    Raises:
        `ValueError`: If there are several kinds of environments for the team, or an agent names a method that there is not.
    """
    if isinstance(environment_factory, dict):
        raise ValueError(
            f"`environment_factory` is a dict of {len(environment_factory)}, but a team shares one environment in each rollout. Pass "
            "one factory, whose environment chooses by what its `reset` is given of the row."
        )
    if callable(tools):
        raise ValueError("`tools` is one function. Pass a list: `tools=[function]`.")
    factories = {} if environment_factory is None else {TEAM: environment_factory}
    factories |= {agent.name: agent.environment_factory for agent in agents if agent.environment_factory is not None}
    chosen = {
        agent.name: [tool for tool in agent.tools if isinstance(tool, str)]
        for agent in agents
        if agent.tools is not None
    }
    for agent in agents:
        if agent.tools is None:
            agent.tools = list(tools or []) or None
    if not factories:
        named = [name for name, methods in chosen.items() if methods]
        if named:
            raise ValueError(
                f"Agent {named[0]!r} has the tool {chosen[named[0]][0]!r}, the name of a method, but the team has no environment. Pass "
                "`environment_factory`, or the function itself."
            )
        return None
    return Environments(factories, [agent.name for agent in agents], chosen)
