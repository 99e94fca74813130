"""The bound of docs/theory.md on swaps of a member in teams whose rollouts can all be listed, and wrong forms that fail."""

import math

import pytest
import torch
from enumeration import Stage, tabular_stage

from trl_teamtr.maths.swap_bound import swap_bound, swap_bound_by_turn


ROUNDING = 1e-10
SHAPES = [(2, 1, 4), (3, 1, 3), (2, 2, 3), (3, 2, 2), (2, 3, 2)]  # agents, rounds, messages


@pytest.fixture(scope="module")
def swaps() -> list[tuple[Stage, int]]:
    """200 random teams, each with a member whose policy is replaced by another."""
    stages = [tabular_stage(*shape, seed) for shape in SHAPES for seed in range(40)]
    return [(stage, seed % len(stage.order)) for seed, stage in enumerate(stages)]


def shock(stage: Stage, swap: int) -> float:
    return abs(stage.gain(swap).item())


def kl_in_new_contexts(stage: Stage, swap: int) -> list[float]:
    """KL(old ‖ new) at each turn of the member, in the contexts of the swapped team."""
    found = []
    for turn in stage.turns(swap):
        log_ratios = (stage.teams[swap] - stage.teams[swap + 1])[:, turn]
        by_context = stage.given_context(swap, turn, log_ratios)
        found.append((stage.context_law(swap + 1, turn) @ by_context).item())
    return found


def test_no_shock_exceeds_the_bound(swaps):
    assert len(swaps) == 200
    for stage, swap in swaps:
        assert shock(stage, swap) <= swap_bound(stage.own_kl(swap)) + ROUNDING


def test_the_bound_by_turn_is_looser_and_holds_in_the_contexts_of_either_team(swaps):
    for stage, swap in swaps:
        own = stage.own_kl(swap)
        assert swap_bound(own) <= swap_bound_by_turn(own) + ROUNDING
        assert shock(stage, swap) <= swap_bound_by_turn(kl_in_new_contexts(stage, swap)) + ROUNDING


def test_the_largest_advantage_in_place_of_the_width_is_too_little(swaps):
    """So that W is read as what it is."""
    violated = 0
    for stage, swap in swaps:
        values = stage.values(swap)
        advantages = (values[:, 1:] - values[:, :-1])[:, stage.turns(swap)].abs().max().item()
        violated += shock(stage, swap) > swap_bound(stage.own_kl(swap), width=advantages) + ROUNDING
    assert violated > 5


def test_a_team_on_which_the_bound_is_within_one_percent_of_equality():
    """
    A member speaks once or twice: `a`, `b` or `c`, and after `c` once more, `a` or `b`. The swap makes `a` a little less probable
    at both turns, so that the probability of every rollout changes by one of two factors. The return is whether `a` was said.
    """
    eta = 0.01
    old, new = (torch.tensor([0.25 + x, 0.25 - x, 0.5], dtype=torch.float64) for x in (eta, -eta))
    old_2, new_2 = (torch.tensor([0.5 + 2 * x, 0.5 - 2 * x], dtype=torch.float64) for x in (eta, -eta))
    change = (new[0] + new[2] * new_2[0]) - (old[0] + old[2] * old_2[0])
    first = (old * (old / new).log()).sum().item()
    second = old[2].item() * (old_2 * (old_2 / new_2).log()).sum().item()  # averaged over all rollouts
    bound = swap_bound([first, second])
    assert 0.99 * bound < abs(change.item()) <= bound
    # Neither a smaller constant, nor one turn alone, nor the KL given that there is a second turn
    assert abs(change.item()) > swap_bound([first, second], width=0.99)
    assert abs(change.item()) > 1.3 * swap_bound([first])
    assert swap_bound([first, second / old[2].item()]) > 1.1 * bound
    assert swap_bound_by_turn([first, second]) > 1.3 * bound


def test_the_width_is_a_factor_and_estimates_below_zero_count_as_zero():
    assert swap_bound([0.08], width=3.0) == pytest.approx(3 * math.sqrt(0.04))
    assert swap_bound([-0.1, 0.08]) == swap_bound([0.08])
    assert swap_bound_by_turn([0.08, 0.02, -1.0], width=2.0) == pytest.approx(2 * (0.2 + 0.1))
    assert swap_bound([]) == 0.0
