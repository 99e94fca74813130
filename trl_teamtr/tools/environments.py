"""The environments of a team: one for all, one for each of some agents, or both; made for every rollout."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from .toolbox import Tool
from .worlds import NEVER, REBUILD, REPLAY, SNAPSHOT, TEAM, EnvironmentFactory, World, has_method


# Methods of an environment that are no tools
_NO_TOOLS = ("reset", "get_reward", "snapshot", "restore")

# From the best that can be done to the least
_KINDS = (SNAPSHOT, REPLAY, REBUILD, NEVER)


class Environments:
    """
    Makes the environments of rollouts.

    Args:
        factories (`dict[str, Callable]`): By their owner, an agent or [`TEAM`], what makes an environment, as in
            [`~trl.GRPOTrainer`].
        agents (`Sequence[str]`): Names of the team.
        chosen (`dict[str, Sequence[str]]`): For the agents that may not call all methods of the team's environment, which they
            may.

    Attributes:
        kind (`str`): How an earlier state of a rollout is found again.
        rewards (`list[str]`): Class names of those that score rollouts by a `get_reward`.

    Raises:
        `ValueError`: If an environment has no `reset`, or no method that an agent may call according to `chosen`.
    """

    def __init__(
        self, factories: Mapping[str, EnvironmentFactory], agents: Sequence[str], chosen: Mapping[str, Sequence[str]]
    ):
        self._factories = dict(factories)
        self._examples = {owner: factory() for owner, factory in self._factories.items()}
        for owner, example in self._examples.items():
            if not has_method(example, "reset"):
                raise ValueError(
                    f"The environment of {_name(owner)}, a {type(example).__name__}, has no method `reset`. It gets the columns of "
                    "a row, and returns what is read at the beginning, or `None`."
                )
        self._methods = {agent: self._choose(agent, chosen.get(agent)) for agent in agents}
        kinds = [_find_kind(type(example)) for example in self._examples.values()]
        self.kind = max(kinds, key=_KINDS.index)
        self.rewards = sorted(
            {type(each).__name__ for each in self._examples.values() if has_method(each, "get_reward")}
        )

    @property
    def of_team(self) -> EnvironmentFactory | None:
        """What makes the team's environment, if there is one."""
        return self._factories.get(TEAM)

    def tools_of(self, agent: str) -> list[Tool]:
        """The methods that `agent` may call, of an environment that no rollout has; for their names and docstrings."""
        return list(self._open(self._examples, {}).tools_of(agent).values())

    def open(self, row: Mapping[str, Any]) -> World:
        """The environments of a rollout of `row`, ready to begin."""
        world = self._make(row)
        world.reset()
        return world

    def reopen(self, described: Mapping[str, Any]) -> World:
        """Those of a rollout that was described ([`World.describe`]), before any call, and without its beginning."""
        world = self._make(described["row"])
        world.observations, world.known_rewards = described["observations"], described["rewards"]
        return world

    def fork(self, world: World) -> World:
        """Others for a rollout that begins like that of `world` ([`World.fork`])."""
        return world.fork(self._new())

    def _make(self, row: Mapping[str, Any]) -> World:
        return self._open(self._new(), row)

    def _new(self) -> dict[str, Any]:
        return {owner: factory() for owner, factory in self._factories.items()}

    def _open(self, environments: dict[str, Any], row: Mapping[str, Any]) -> World:
        return World(environments, dict(row), self.kind, self._methods)

    def _choose(self, agent: str, chosen: Sequence[str] | None) -> tuple[str, ...]:
        team, own = (_list_tools(self._examples.get(owner)) for owner in (TEAM, agent))
        unknown = [name for name in chosen or [] if name not in (*team, *own)]
        if unknown:
            raise ValueError(
                f"Agent {agent!r} has the tool {unknown[0]!r}, which is no method of its environments. They have: "
                f"{', '.join((*own, *team)) or 'none'}."
            )
        names = (*own, *(name for name in team if name not in own))
        return names if chosen is None else tuple(name for name in names if name in chosen or name in own)


def _list_tools(environment: Any) -> tuple[str, ...]:
    """The names of the methods that are tools: those that TRL takes for one."""
    if environment is None:
        return ()
    methods = inspect.getmembers(type(environment), predicate=inspect.isfunction)
    return tuple(name for name, _ in methods if not name.startswith("_") and name not in _NO_TOOLS)


def _find_kind(environment: type) -> str:
    attributes = dict(inspect.getmembers(environment))
    if "snapshot" in attributes and "restore" in attributes:
        return SNAPSHOT
    if "deterministic" not in attributes:
        return NEVER
    return REPLAY if attributes["deterministic"] else REBUILD


def _name(owner: str) -> str:
    return "the team" if owner == TEAM else f"agent {owner!r}"
