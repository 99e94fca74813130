"""Groups by turn, on teams whose groups can all be listed: their gradient is that of the mean return, up to 1 - 1/G."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from trl_teamtr.maths.advantages import group_advantages
from trl_teamtr.maths.turn_groups import CREDITS, branch_turns, group_weights


sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from credit.estimators import by_message, by_rollout, by_suffix  # noqa: E402
from credit.trees import Family, Team, at_random, by_text, draw_team, grow, round_robin  # noqa: E402


FAMILIES = [
    Family("one round", 3, 2, 2, round_robin(3, 1), 3),
    Family("two rounds", 2, 2, 1, round_robin(2, 2), 4),
    Family("random speakers", 2, 2, 2, at_random(2, 3), 3),
    Family("the text decides", 2, 3, 1, by_text(2, 4, last=2), 4),
]
# Where an agent may have another number of turns in each rollout, none included
UNEVEN = FAMILIES[2:]
TREES = {family.name: grow(family) for family in FAMILIES}
SEEDS = range(3)


def teams(families=FAMILIES) -> list[Team]:
    return [
        draw_team(TREES[family.name], seed, agent)
        for family in families
        for seed in SEEDS
        for agent in range(family.agents)
    ]


@dataclass
class Groups:
    """
    Groups with one trunk, and one turn if there is one.

    Args:
        law (`torch.Tensor` of shape `(groups,)`): Their probabilities.
        rows (`torch.Tensor` of shape `(groups, G)`): Their rollouts, the trunk first.
        turn (`int`, *optional*): Where the branches part.
    """

    law: torch.Tensor
    rows: torch.Tensor
    turn: int | None


def all_groups(team: Team, size: int, credit: str, draw=None):
    """Every trunk, with every turn that `draw` gives a probability, by default `branch_turns`; and all its branches."""
    for trunk in range(len(team.law)):
        own = team.own[trunk].nonzero().flatten().tolist()
        chosen = branch_turns(own, credit)
        turns = dict.fromkeys(chosen, 1 / max(len(chosen), 1)) if draw is None else draw(team, trunk, own)
        if not turns:
            yield Groups(team.law[trunk][None], torch.full((1, size), trunk), None)
        for turn, share in turns.items():
            same = (team.tree.decisions[:, turn] == team.tree.decisions[trunk, turn]).nonzero().flatten()
            branches = torch.cartesian_prod(*[same] * (size - 1)).view(-1, size - 1)
            law = team.law[branches].prod(dim=1) / team.law[same].sum() ** (size - 1)
            rows = torch.cat([torch.full((len(branches), 1), trunk), branches], dim=1)
            yield Groups(team.law[trunk] * share * law, rows, turn)


def gradients(team: Team, groups: Groups, credit: str, advantages=None, weigh=None) -> torch.Tensor:
    """The gradient of each group: the mean over its rollouts of advantage, weight and score, `(groups, parameters)`."""
    size = groups.rows.size(1)
    returns = team.returns[groups.rows]
    if advantages is None:
        found = group_advantages(returns.flatten(), size, scale="none", clip=None).view_as(returns)
    else:
        found = advantages(team, groups)
    if weigh is None:
        weights = group_weights(team.num_own[groups.rows[:, 0]], size, credit).view_as(returns)
    else:
        weights = weigh(team, groups)
    if groups.turn is None:
        scores = torch.zeros(len(team.law), team.num_parameters, dtype=torch.float64)
    else:
        last = groups.turn + 1 if credit == "message" else team.own.size(1)
        scores = torch.stack(team.score[groups.turn : last]).sum(dim=0)
    return torch.einsum("kg,kgp->kp", found * weights, scores[groups.rows]) / size


def expected(team: Team, size: int, credit: str, draw=None, **how) -> torch.Tensor:
    return sum(g.law @ gradients(team, g, credit, **how) for g in all_groups(team, size, credit, draw))


def error(found: torch.Tensor, team: Team, size: int, scaled: bool = False) -> float:
    """Largest difference from (1 - 1/G) times the gradient, over its largest entry; with `scaled`, from its best multiple."""
    right = (1 - 1 / size) * team.gradient()
    if scaled:
        right = right * (found @ right) / (right @ right)
    return float((found - right).abs().max() / right.abs().max())


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("credit", CREDITS)
def test_the_expected_gradient_is_that_of_the_mean_return_up_to_the_group(credit, size):
    assert all(error(expected(team, size, credit), team, size) < 1e-12 for team in teams()[:: size - 1])


def test_rollouts_of_a_prompt_have_the_same_expected_gradient():
    """Which is what eq. 9 without division has, by all pairs of rollouts."""
    for team in teams():
        law = team.law[:, None] * team.law * (team.tree.prompts[:, None] == team.tree.prompts)
        law = law * team.tree.family.prompts
        rows = law.nonzero()
        found = Groups(law[rows[:, 0], rows[:, 1]], rows, 0)
        one = gradients(team, found, "suffix", weigh=lambda team, groups: torch.ones(groups.rows.shape))
        assert error(found.law @ one, team, 2) < 1e-12


@pytest.mark.parametrize("credit", CREDITS)
def test_the_groups_are_all_there(credit):
    for team in teams():
        assert sum(g.law.sum() for g in all_groups(team, 2, credit)) == pytest.approx(1)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("estimate, credit", [(by_suffix, "suffix"), (by_message, "message")])
def test_variances_are_those_of_all_groups(estimate, credit, size):
    for team in teams()[:: 3 if size == 3 else 1]:
        mean, square, means = expected(team, size, credit), 0.0, {}
        for groups in all_groups(team, size, credit):
            found = gradients(team, groups, credit)
            square += float(groups.law @ found.square().sum(dim=1))
            place = -1 if groups.turn is None else team.tree.decisions[groups.rows[0, 0], groups.turn].item()
            law, total = means.get(place, (0.0, 0.0))
            means[place] = law + groups.law.sum(), total + groups.law @ found
        exact = estimate(team, size)
        torch.testing.assert_close(exact.mean, mean, atol=1e-12, rtol=0)
        assert exact.variance == pytest.approx(square - float(mean.square().sum()), rel=1e-9, abs=1e-14)
        of_means = sum(float((total / law).square().sum() * law) for law, total in means.values())
        assert exact.between == pytest.approx(of_means - float(mean.square().sum()), rel=1e-9, abs=1e-14)


def test_variances_of_groups_of_rollouts_are_those_of_all_pairs():
    for team in teams():
        square, prompts = 0.0, team.tree.family.prompts
        for prompt in range(prompts):
            rows = (team.tree.prompts == prompt).nonzero().flatten()
            law = team.law[rows] * prompts
            groups = Groups((law[:, None] * law).flatten(), torch.cartesian_prod(rows, rows), 0)
            found = gradients(team, groups, "suffix", weigh=lambda team, groups: torch.ones(groups.rows.shape))
            square += float(groups.law @ found.square().sum(dim=1)) / prompts
        exact = by_rollout(team, 2)
        assert error(exact.mean, team, 2) < 1e-12
        assert exact.variance == pytest.approx(square - float(exact.mean.square().sum()), rel=1e-9, abs=1e-14)


def test_tokens_are_those_of_all_groups():
    for credit, estimate in (("suffix", by_suffix), ("message", by_message)):
        for team in teams():
            tokens = 0.0
            for groups in all_groups(team, 3, credit):
                lengths = team.lengths[groups.rows].double()
                new = lengths[:, 0] + (0 if groups.turn is None else (lengths[:, 1:] - groups.turn).sum(dim=1))
                tokens += float(groups.law @ new)
            assert estimate(team, 3).tokens == pytest.approx(tokens)


def test_for_the_first_speaker_a_suffix_is_a_rollout():
    for team in teams(FAMILIES[:2])[::3]:
        if team.agent == 0:
            one, other = by_suffix(team, 4), by_rollout(team, 4)
            assert one.variance == pytest.approx(other.variance, rel=1e-12) and one.tokens == other.tokens


# What breaks it


def number_of_branch(team: Team, groups: Groups) -> torch.Tensor:
    return team.num_own[groups.rows].double()


def no_number(team: Team, groups: Groups) -> torch.Tensor:
    return torch.ones(groups.rows.shape, dtype=torch.float64)


def over_deviation(team: Team, groups: Groups) -> torch.Tensor:
    returns = team.returns[groups.rows]
    return group_advantages(returns.flatten(), returns.size(1), scale="group", clip=None).view_as(returns)


def against_the_same_message(team: Team, groups: Groups) -> torch.Tensor:
    """The baseline is the mean return of the others with the same message, 0 if there are none."""
    returns, said = team.returns[groups.rows], team.tree.messages[groups.rows, groups.turn or 0]
    same = (said[:, :, None] == said[:, None, :]).double() - torch.eye(groups.rows.size(1), dtype=torch.float64)
    return returns - (same @ returns[..., None]).squeeze(-1) / same.sum(dim=-1).clamp(min=1)


def early_if_it_went_well(team: Team, trunk: int, own: list[int]) -> dict[int, float]:
    """More often the first turn of a trunk with a large return."""
    share = 0.5 + 0.5 * team.returns[trunk].item()
    return {turn: (share if turn == own[0] else (1 - share) / (len(own) - 1)) if own[1:] else 1.0 for turn in own}


def every_turn(team: Team, trunk: int, own: list[int]) -> dict[int, float]:
    return dict.fromkeys(own, 1.0)


WRONG = {
    "the branch's own number": ("message", UNEVEN, {"weigh": number_of_branch}),
    "no number": ("message", UNEVEN, {"weigh": no_number}),
    "suffixes at every turn": ("suffix", FAMILIES[1:], {"draw": every_turn}),
    "a draw that looks at returns": ("message", FAMILIES[1:], {"draw": early_if_it_went_well}),
    "a baseline that depends on the message": ("suffix", FAMILIES, {"advantages": against_the_same_message}),
    "division by the deviation": ("suffix", FAMILIES, {"advantages": over_deviation}),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_variants_are_wrong(name):
    """For most teams by more than a thousandth of the largest gradient, whatever constant they are multiplied by."""
    credit, families, how = WRONG[name]
    for family in families:
        errors = [error(expected(team, 2, credit, **how), team, 2, scaled=True) for team in teams([family])]
        assert sorted(errors)[len(errors) // 2] > 1e-3, f"{family.name}: {errors}"


def test_dividing_by_the_trunks_in_which_the_agent_spoke_is_wrong():
    """With one group for each prompt: prompts in which it speaks more often count less."""
    family = Family("random speakers", 2, 2, 2, at_random(2, 2), 2)
    tree = grow(family)
    # The router of the second prompt calls agent 0 at the first turn three times as often as that of the first one
    favoured = (tree.prompts == 1) & (tree.speakers[tree.decisions[:, 0]] == 0)
    other = (tree.prompts == 1) & ~favoured
    tree.routed = tree.routed * torch.where(favoured, 1.8, torch.where(other, 0.2, 1.0))
    wrong, right = [], []
    for seed in SEEDS:
        team = draw_team(tree, seed, agent=0)
        spoke = [float(team.law[(tree.prompts == p) & (team.num_own > 0)].sum()) * 2 for p in (0, 1)]
        parts = torch.zeros(2, team.num_parameters, dtype=torch.float64)
        for groups in all_groups(team, 2, "suffix"):
            parts[tree.prompts[groups.rows[0, 0]]] += 2 * groups.law @ gradients(team, groups, "suffix")
        # A group with an own turn, beside another that has one too or not; one without adds 0
        found = sum(part * (spoke[1 - p] / 2 + (1 - spoke[1 - p])) for p, part in enumerate(parts))
        wrong.append(error(found, team, 2, scaled=True))
        right.append(error(parts.sum(dim=0) / 2, team, 2))
    assert max(right) < 1e-12 and min(wrong) > 1e-3


# The functions themselves


def test_turns_and_weights():
    assert branch_turns([1, 4, 5], "suffix") == [1] and branch_turns([1, 4, 5], "message") == [1, 4, 5]
    assert branch_turns([], "suffix") == branch_turns([], "message") == []
    numbers = torch.tensor([2, 0, 3])
    assert group_weights(numbers, 2, "message").tolist() == [2, 2, 0, 0, 3, 3]
    assert group_weights(numbers, 2, "suffix").tolist() == [1, 1, 0, 0, 1, 1]
    for call in (lambda: branch_turns([0], "token"), lambda: group_weights(numbers, 2, "token")):
        with pytest.raises(ValueError, match="`credit` is 'token'"):
            call()
