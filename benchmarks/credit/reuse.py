"""How many tokens a stage decodes per rollout, exactly, when the rollouts of one update are reused for the next."""

import math
from dataclasses import dataclass

import torch

from .trees import Team, Tree


@dataclass
class Tokens:
    """
    Tokens that a stage decodes, per rollout of a group, with rollout-wise groups.

    Args:
        full, reversed_suffix, speculative (`float`): By mode of resampling.
        redone (`float`): Share of the tokens of a rollout that `speculative` decodes again per update.
    """

    full: float
    reversed_suffix: float
    speculative: float
    redone: float


def count_tokens(team: Team, radius: float, seed: int) -> Tokens:
    """
    Of a stage that updates all agents of a round-robin team, each in a random direction up to a KL of `radius`.

    Args:
        team (`Team`): Whose turns are all taken, so that all rollouts have one length.
        radius (`float`): KL of an update, in nats per message.
        seed (`int`): Of the directions.
    """
    tree, agents = team.tree, team.tree.family.agents
    length = float(team.law @ team.lengths.double())
    generator = torch.Generator().manual_seed(seed)
    speculative = length
    # In team order; the last update has no other after it
    policy = team.policy
    for agent in range(agents - 1):
        new = move(tree, policy, agent, radius, generator)
        speculative += decoded_again(tree, policy, new)
        policy = new
    firsts = [int((team.tree.speakers[team.tree.decisions[0]] == agent).int().argmax()) for agent in range(agents)]
    # In the other order: after an update all from that agent's first turn on is new
    backwards = length + sum(length - firsts[agent] for agent in range(agents - 1, 0, -1))
    return Tokens(agents * length, backwards, speculative, (speculative - length) / ((agents - 1) * length))


def move(tree: Tree, policy: torch.Tensor, agent: int, radius: float, generator: torch.Generator) -> torch.Tensor:
    """`policy` with that of `agent` moved in a random direction, until its mean KL per message is `radius`."""
    own = (tree.speakers == agent)[:, None]
    direction = torch.randn(policy.shape, generator=generator, dtype=torch.float64) * own
    team = Team(tree, policy, torch.zeros(len(tree.prompts)), agent)
    passed = torch.zeros(len(policy), dtype=torch.float64)
    for turn in range(team.own.size(1)):
        passed.index_add_(0, tree.decisions[team.own[:, turn], turn], team.law[team.own[:, turn]])

    def after(step: float) -> torch.Tensor:
        return (policy.log() + step * direction).softmax(dim=1)

    def kl(step: float) -> float:
        return float(passed @ (policy * (policy.log() - after(step).log())).sum(dim=1) / passed.sum())

    low, high = 0.0, 1.0
    while kl(high) < radius:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if kl(middle) < radius else (low, middle)
    return after(high)


def decoded_again(tree: Tree, old: torch.Tensor, new: torch.Tensor) -> float:
    """
    Mean number of tokens of a rollout that verification of drafts decodes, for messages of one token.

    The drafts have the law `old` in their own contexts, and are kept with min(1, new/old) in those of the resampled
    rollout; a message that is not is drawn from what is left of `new`.
    """
    children: dict[tuple[int, int], int] = {}
    for decisions, messages in zip(tree.decisions.tolist(), tree.messages.tolist(), strict=True):
        for turn in range(len(decisions) - 1):
            children[decisions[turn], messages[turn]] = decisions[turn + 1]
    roots = sorted({decisions[0] for decisions in tree.decisions.tolist()})
    pairs = {(root, root): 1 / len(roots) for root in roots}
    total = 0.0
    while pairs:
        following: dict[tuple[int, int], float] = {}
        for (then, now), probability in pairs.items():
            was, law = old[then].tolist(), new[now].tolist()
            rest = [max(b - a, 0.0) for a, b in zip(was, law, strict=True)]
            left = math.fsum(rest)
            for draft, share in enumerate(was):
                kept = min(1.0, law[draft] / share)
                outcomes = [(draft, kept)]
                if left > 0:
                    outcomes += [(message, (1 - kept) * part / left) for message, part in enumerate(rest)]
                    total += probability * share * (1 - kept)
                for message, chance in outcomes:
                    place = children.get((then, draft)), children.get((now, message))
                    if chance > 0 and place[0] is not None and place[1] is not None:
                        following[place] = following.get(place, 0.0) + probability * share * chance
        pairs = following
    return total
