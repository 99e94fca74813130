"""Environments of rollouts: who may act on them, and how their state is found again where a rollout changes."""

import inspect
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..conversation.tool_calls import UNREADABLE
from ..conversation.transcript import ToolCall, ToolUse
from .toolbox import Tool, ask_async


EnvironmentFactory = Callable[[], Any]

# How the state after some of the calls of a rollout is found again
SNAPSHOT, REPLAY, REBUILD, NEVER = "snapshot", "replay", "rebuild", "never"

# Owner of an environment on which the whole team acts
TEAM = ""


@dataclass(frozen=True)
class Done:
    """A call that was executed: whose, and what the result was."""

    agent: str
    call: ToolCall
    result: str


def calls_of(agent: str, uses: Sequence[ToolUse]) -> list[Done]:
    """The calls of `agent` that could be read, in order."""
    pairs = [pair for use in uses for pair in zip(use.calls, use.results, strict=True)]
    return [Done(agent, call, result) for call, result in pairs if call.name != UNREADABLE]


@dataclass
class World:
    """
    The environments of one rollout.

    Args:
        environments (`dict[str, Any]`): By their owner: an agent, or [`TEAM`].
        row (`dict`): What they are reset with.
        kind (`str`): How an earlier state is found again.
        methods (`dict[str, tuple[str, ...]]`): For each agent the methods that are its tools.

    Attributes:
        observations (`dict[str, str]`): For each owner what its environment said at the beginning.
        known_rewards (`dict[str, float]` or `None`): What was last said of the rollout, if it has not changed since then.
    """

    environments: dict[str, Any]
    row: dict[str, Any]
    kind: str
    methods: Mapping[str, tuple[str, ...]]
    observations: dict[str, str] = field(default_factory=dict)
    known_rewards: dict[str, float] | None = None
    _done: list[Done] | None = None
    _snapshots: list[dict[str, Any]] = field(default_factory=list)

    def reset(self):
        """Begin anew."""
        self._done, self._snapshots, self.known_rewards = [], [], None
        self.observations = {}
        for owner, environment in self.environments.items():
            seen = environment.reset(**_with_seed(self.row, environment.reset))
            if seen is not None:
                self.observations[owner] = str(seen)
        self._take_snapshot()

    @property
    def team(self) -> Any:
        """The team's environment, if there is one."""
        return self.environments.get(TEAM)

    def tools_of(self, agent: str) -> dict[str, Tool]:
        """The methods that `agent` may call, of its own environment or that of the team."""
        found = {}
        for name in self.methods.get(agent, ()):
            own = agent in self.environments and has_method(self.environments[agent], name)
            found[name] = getattr(self.environments[agent if own else TEAM], name)
        return found

    def note(self, done: Sequence[Done]):
        """Note that calls were executed."""
        self._done, self.known_rewards = [*(self._done or []), *done], None
        self._take_snapshot(len(done))

    def reach(self, done: list[Done], execute: Callable[[Done], str]):
        """
        Bring the environments into their state after the calls `done`.

        Args:
            done (`list[Done]`): The first calls of the rollout.
            execute (`Callable[[Done], str]`): Executes one again.

        Raises:
            `RuntimeError`: If an environment that says it is deterministic has another result than before.
        """
        if done == self._done:
            return
        self.known_rewards = None
        if self._snapshots and self._done is not None and done == self._done[: len(done)]:
            for owner, environment in self.environments.items():
                environment.restore(self._snapshots[len(done)][owner])
            self._done, self._snapshots = done, self._snapshots[: len(done) + 1]
        else:
            self._replay(done, execute)

    def fork(self, environments: dict[str, Any]) -> "World":
        """
        Another world of the same row, on new `environments`. Where states are kept, they are in that which this world has
        reached; where calls are executed again, in none until it is asked for.
        """
        other = World(environments, self.row, self.kind, self.methods, dict(self.observations))
        if self._snapshots:
            for owner, environment in environments.items():
                environment.reset(**_with_seed(self.row, environment.reset))
                environment.restore(self._snapshots[-1][owner])
            other._done, other._snapshots = list(self._done or []), list(self._snapshots)
        return other

    def rewards(self) -> dict[str, float]:
        """By its class name, what each environment with a `get_reward` says of the rollout. Asked once in each state."""
        if self.known_rewards is None:
            scored = [each for each in self.environments.values() if has_method(each, "get_reward")]
            self.known_rewards = {type(each).__name__: _ask_reward(each) for each in scored}
        return self.known_rewards

    def describe(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"row": self.row, "observations": self.observations, "rewards": self.known_rewards}

    def _replay(self, done: list[Done], execute: Callable[[Done], str]):
        seen = self.observations
        self.reset()
        different = next((each for each in done if execute(each) != each.result), None)
        if different is None and self.observations == seen:
            self.note(done)
            return
        what = "its first observation" if different is None else f"{different.call.name}({different.call.arguments})"
        raise RuntimeError(
            f"An environment says that it is `deterministic`, but {what} is not what it was before: a rollout cannot be resampled "
            "on it. Set `deterministic = False` on its class if it can be rebuilt at random, or leave the attribute out, for "
            "`resampling='full'`."
        )

    def _take_snapshot(self, times: int = 1):
        """Of the present state, for each of the last calls."""
        if self.kind == SNAPSHOT:
            state = {owner: environment.snapshot() for owner, environment in self.environments.items()}
            self._snapshots += [state] * times


def _ask_reward(environment: Any) -> float:
    if inspect.iscoroutinefunction(environment.get_reward):
        return ask_async(environment.get_reward, {}).result()
    return environment.get_reward()


def has_method(environment: Any, name: str) -> bool:
    """Whether the class of `environment` has a method; as TRL, which does not look at properties of the instance."""
    return any(name == own for own, _ in inspect.getmembers(type(environment), predicate=inspect.isfunction))


def _with_seed(row: dict[str, Any], reset: Callable) -> dict[str, Any]:
    """`row`, with a seed if `reset` takes one: the same for all rollouts of a prompt, which begin in one state."""
    if "seed" in row or "seed" not in inspect.signature(reset).parameters:
        return row
    return {**row, "seed": random.Random(json.dumps(row, sort_keys=True, default=str)).getrandbits(31)}
