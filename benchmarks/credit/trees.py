"""
Teams as trees: every rollout of a team with tabular policies, with its probability and return.

A message is one token. A decision is a context together with who speaks in it. Policies have a logit for each message of
each decision, so that the gradient of log π at a decision is the indicator of the message minus the probabilities.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch


# What was said, as (agent, message), and by whom the next message may be, as (agent or None, probability)
Said = tuple[tuple[int, int], ...]
Router = Callable[[Said], list[tuple[int | None, float]]]


@dataclass(frozen=True)
class Family:
    """
    Teams of one kind.

    Args:
        name (`str`): What it is.
        agents, messages, prompts (`int`): Number of agents, of messages to choose from, and of equally frequent prompts.
        router (`Router`): Who speaks next; a function of what was said alone.
        max_turns (`int`): Largest number of turns.
    """

    name: str
    agents: int
    messages: int
    prompts: int
    router: Router
    max_turns: int


def round_robin(agents: int, rounds: int) -> Router:
    """Team order."""
    return lambda said: [(len(said) % agents if len(said) < agents * rounds else None, 1.0)]


def at_random(agents: int, turns: int) -> Router:
    """Uniform at each turn: the number of an agent's own turns is random."""
    return lambda said: [(agent, 1 / agents) for agent in range(agents)] if len(said) < turns else [(None, 1.0)]


def by_text(agents: int, turns: int, last: int) -> Router:
    """The last message decides who is next, and whether the rollout ends."""

    def route(said: Said) -> list[tuple[int | None, float]]:
        if not said:
            return [(0, 1.0)]
        agent, message = said[-1]
        ended = len(said) >= turns or (message == last and len(said) > 1)
        return [(None if ended else (agent + 1 + message) % agents, 1.0)]

    return route


@dataclass
class Tree:
    """
    The rollouts of a family.

    Args:
        family ([`Family`]): Whose.
        decisions (`torch.Tensor` of shape `(rollouts, turns)`): At which decision each turn is, -1 after the end.
        messages (`torch.Tensor` of shape `(rollouts, turns)`): What is said there.
        prompts (`torch.Tensor` of shape `(rollouts,)`): The prompts.
        speakers (`torch.Tensor` of shape `(decisions,)`): Who decides.
        routed (`torch.Tensor` of shape `(rollouts,)`): Probability of the prompt and of the router's choices, float64.
    """

    family: Family
    decisions: torch.Tensor
    messages: torch.Tensor
    prompts: torch.Tensor
    speakers: torch.Tensor
    routed: torch.Tensor


def grow(family: Family) -> Tree:
    """All rollouts of a family."""
    numbers: dict[tuple[int, Said, int], int] = {}
    found: list[tuple[int, list[int], list[int], float]] = []

    def go_on(prompt: int, said: Said, decisions: list[int], probability: float):
        for agent, share in family.router(said):
            if agent is None:
                found.append((prompt, decisions, [message for _, message in said], probability * share))
                continue
            number = numbers.setdefault((prompt, said, agent), len(numbers))
            for message in range(family.messages):
                go_on(prompt, (*said, (agent, message)), [*decisions, number], probability * share)

    for prompt in range(family.prompts):
        go_on(prompt, (), [], 1 / family.prompts)

    def pad(rows: list[list[int]]) -> torch.Tensor:
        return torch.tensor([row + [-1] * (family.max_turns - len(row)) for row in rows])

    return Tree(
        family,
        pad([decisions for _, decisions, _, _ in found]),
        pad([messages for _, _, messages, _ in found]),
        torch.tensor([prompt for prompt, *_ in found]),
        torch.tensor([agent for _, _, agent in numbers]),
        torch.tensor([probability for *_, probability in found], dtype=torch.float64),
    )


@dataclass
class Team:
    """
    A team of a family, seen from one of its agents.

    Args:
        tree ([`Tree`]): All rollouts.
        policy (`torch.Tensor` of shape `(decisions, messages)`): Probabilities, float64.
        returns (`torch.Tensor` of shape `(rollouts,)`): In [0, 1].
        agent (`int`): The agent.
    """

    tree: Tree
    policy: torch.Tensor
    returns: torch.Tensor
    agent: int

    def __post_init__(self):
        tree = self.tree
        self.there = tree.decisions >= 0
        chosen = self.policy[tree.decisions.clamp(min=0), tree.messages.clamp(min=0)]
        self.law = tree.routed * torch.where(self.there, chosen, 1.0).prod(dim=1)
        self.own = self.there & (tree.speakers[tree.decisions.clamp(min=0)] == self.agent)
        self.num_own, self.lengths = self.own.sum(dim=1), self.there.sum(dim=1)

    @property
    def num_parameters(self) -> int:
        return int((self.tree.speakers == self.agent).sum()) * self.tree.family.messages

    @cached_property
    def score(self) -> list[torch.Tensor]:
        """For each turn the gradient of log π of an own message, `(rollouts, parameters)`; 0 where it is another's, or none."""
        return [self._score(turn) for turn in range(self.own.size(1))]

    @cached_property
    def scores(self) -> torch.Tensor:
        """Gradient of log π of all own messages, `(rollouts, parameters)`."""
        return torch.stack(self.score).sum(dim=0)

    def _score(self, turn: int) -> torch.Tensor:
        tree, size = self.tree, self.tree.family.messages
        rank = (tree.speakers == self.agent).cumsum(dim=0) - 1  # of an own decision among the own ones
        decisions, messages = tree.decisions[:, turn].clamp(min=0), tree.messages[:, turn].clamp(min=0)
        local = torch.nn.functional.one_hot(messages, size).double() - self.policy[decisions]
        scores = torch.zeros(len(self.law), self.num_parameters // size, size, dtype=torch.float64)
        own = self.own[:, turn]
        scores[own, rank[decisions[own]]] = local[own]
        return scores.flatten(1)

    def gradient(self) -> torch.Tensor:
        """Of the mean return, `(parameters,)`."""
        return (self.law * self.returns) @ self.scores

    def first_own(self) -> torch.Tensor:
        """The first own turn of each rollout; -1 if there is none."""
        return torch.where(self.num_own > 0, self.own.int().argmax(dim=1), -1)


def draw_team(tree: Tree, seed: int, agent: int) -> Team:
    """A random team; every second one has returns of 0 or 1. The same for all agents of a seed."""
    generator = torch.Generator().manual_seed(seed)
    sharpness = 2 * torch.rand(1, generator=generator, dtype=torch.float64)
    logits = torch.randn(len(tree.speakers), tree.family.messages, generator=generator, dtype=torch.float64)
    returns = torch.rand(len(tree.prompts), generator=generator, dtype=torch.float64)
    return Team(tree, (sharpness * logits).softmax(dim=1), returns.round() if seed % 2 else returns, agent)
