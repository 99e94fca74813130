"""The mean and the variance of an agent's gradient, exactly, for groups by rollout and by turn."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from .trees import Team


@dataclass
class Estimate:
    """
    The gradient of one group.

    Args:
        mean (`torch.Tensor` of shape `(parameters,)`): Its mean.
        between, within (`float`): Its total variance: of its mean given the context in which the group's rollouts part,
            and the mean of its variance given that.
        tokens (`float`): Mean number of decoded tokens of a group.
    """

    mean: torch.Tensor
    between: float
    within: float
    tokens: float

    @property
    def variance(self) -> float:
        return self.between + self.within

    @property
    def cost(self) -> float:
        """Variance at a budget of one token."""
        return self.variance * self.tokens


@dataclass
class Context:
    """
    What follows a context in which rollouts part.

    Args:
        probability (`float`): With which a group has this context.
        law (`torch.Tensor` of shape `(k,)`): Probability of each continuation, given the context.
        returns (`torch.Tensor` of shape `(k,)`): Its return.
        scores (`torch.Tensor` of shape `(k, parameters)`): Its gradient of log π, of the messages that are trained.
        weights (`torch.Tensor` of shape `(k,)`): By how much the squared gradient counts if that is the trunk's continuation.
        mean_weight (`float`): By how much the mean gradient counts.
    """

    probability: float
    law: torch.Tensor
    returns: torch.Tensor
    scores: torch.Tensor
    weights: torch.Tensor
    mean_weight: float = 1.0


def squared_norm(context: Context, group: int) -> float:
    """
    Mean squared norm of (1/G) Σ (R_g - mean R) S_g over independent continuations, of which the first, the trunk's, has a
    weight that may depend on it.

    With X = R S and the sums over the others, of which there are M = G - 1, written as Rs, Ss and Xs, it is that of
    (X_1 + Xs)/G - (R_1 + Rs)(S_1 + Ss)/G². Scores and centred returns have mean 0, which leaves the terms below.
    """
    law, others = context.law, group - 1
    centred = context.returns - law @ context.returns
    scores, moved = context.scores, centred[:, None] * context.scores
    squares = scores.square().sum(dim=1)
    mean = law @ moved  # E[R S]
    spread = law @ centred.square()  # E[R²]
    size = law @ squares  # E|S|²
    lean = law @ (centred * squares)  # E[R |S|²]
    bend = (law * centred.square()) @ scores  # E[R² S]
    both = law @ (centred.square() * squares)  # E[R² |S|²]
    pairs = others * (others - 1)
    first_moved, first_scores = moved @ mean, scores @ bend

    sums = moved.square().sum(dim=1) + 2 * others * first_moved + others * both + pairs * mean.square().sum()
    crossed = moved.square().sum(dim=1) + others * first_moved  # X_1 with the product of the sums
    crossed = crossed + others * first_moved + others * centred * lean + others * first_scores
    crossed = crossed + others * both + pairs * mean.square().sum()
    products = centred.square() * squares + others * centred.square() * size + 4 * others * centred * (scores @ mean)
    products = products + 2 * others * centred * lean + others * spread * squares + 2 * others * first_scores
    products = products + others * both + pairs * (spread * size + 2 * mean.square().sum())
    return float((law * context.weights) @ (sums / group**2 - 2 * crossed / group**3 + products / group**4))


def estimate(contexts: Iterator[Context], group: int, tokens: float) -> Estimate:
    """The estimate of groups of `group` rollouts, each of which has one of `contexts`."""
    mean, squares, of_means = torch.zeros(()), 0.0, 0.0
    for context in contexts:
        centred = context.returns - context.law @ context.returns
        own = context.mean_weight * (1 - 1 / group) * ((context.law * centred) @ context.scores)
        mean = mean + context.probability * own
        of_means += context.probability * float(own.square().sum())
        squares += context.probability * squared_norm(context, group)
    between = of_means - float(mean.square().sum())
    return Estimate(mean, between, squares - of_means, tokens)


def by_rollout(team: Team, group: int, tokens: float | None = None) -> Estimate:
    """G independent rollouts of a prompt; `tokens` in place of those of entirely fresh ones."""
    scores, prompts = team.scores, team.tree.prompts

    def contexts() -> Iterator[Context]:
        for prompt in prompts.unique().tolist():
            rows = prompts == prompt
            yield make_context(team, rows, scores[rows])

    fresh = group * float(team.law @ team.lengths.double())
    return estimate(contexts(), group, fresh if tokens is None else tokens)


def by_suffix(team: Team, group: int) -> Estimate:
    """A trunk, and branches from the agent's first turn on."""
    scores, first = team.scores, team.first_own()
    decisions = team.tree.decisions.gather(1, first.clamp(min=0)[:, None]).squeeze(1)
    decisions = torch.where(first >= 0, decisions, -1)

    def contexts() -> Iterator[Context]:
        for decision in decisions.unique().tolist():
            rows = decisions == decision
            yield make_context(team, rows, scores[rows])

    before = torch.where(first >= 0, first, team.lengths).double()
    tokens = float(team.law @ (before + group * (team.lengths - before)))
    return estimate(contexts(), group, tokens)


def by_message(team: Team, group: int) -> Estimate:
    """A trunk, and branches from one of the agent's turns on, drawn uniformly; that message alone is trained."""
    share = 1 / team.num_own.clamp(min=1).double()

    def contexts() -> Iterator[Context]:
        for turn in range(team.own.size(1)):
            scores = team.score[turn]
            for rows in own_decisions(team, turn):
                context = make_context(team, rows, scores[rows])
                passed = context.probability
                context.probability = passed * float(context.law @ share[rows])  # and is drawn
                # A trunk has probability 1 / N of this draw, and its group the weight N
                context.mean_weight = passed / context.probability
                context.weights = context.mean_weight * team.num_own[rows].double()
                yield context

    tokens = float(team.law @ team.lengths.double())
    for turn in range(team.own.size(1)):
        for rows in own_decisions(team, turn):
            law, rest = team.law[rows], (team.lengths[rows] - turn).double()
            tokens += (group - 1) * float(law @ share[rows]) * float(law @ rest / law.sum())
    return estimate(contexts(), group, tokens)


def own_decisions(team: Team, turn: int) -> Iterator[torch.Tensor]:
    """For each decision of the agent at `turn`, which rollouts pass it."""
    decisions = torch.where(team.own[:, turn], team.tree.decisions[:, turn], -1)
    for decision in decisions.unique().tolist():
        if decision >= 0:
            yield decisions == decision


def make_context(team: Team, rows: torch.Tensor, scores: torch.Tensor) -> Context:
    """The context that `rows` have in common."""
    law = team.law[rows]
    return Context(
        float(law.sum()), law / law.sum(), team.returns[rows], scores, torch.ones(len(law), dtype=law.dtype)
    )
