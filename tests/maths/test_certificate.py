"""The formulas of the certificate by hand, and the chain of its surrogates by property."""

import math

import pytest
import torch

from trl_teamtr.maths.certificate import (
    Certificate,
    discounted_penalty,
    finite_horizon_penalty,
    horizon_radii,
    leave_one_out_advantages,
    stale_penalty,
    surrogate_terms,
)


# Penalties


def test_penalty_counts_the_turns_that_follow():
    # 2 * sqrt(0.04) + 1 * sqrt(0.01) + 0 * sqrt(9)
    assert finite_horizon_penalty([0.04, 0.01, 9.0]) == pytest.approx(math.sqrt(2) * 0.5)
    assert finite_horizon_penalty([0.04, 0.01, 9.0], advantage_bound=3.0) == pytest.approx(3 * math.sqrt(2) * 0.5)


@pytest.mark.parametrize("kl_by_turn", [[], [0.3], [0.0, 0.3]])
def test_no_penalty_without_a_turn_after_the_change(kl_by_turn):
    assert finite_horizon_penalty(kl_by_turn) == 0


def test_kl_below_zero_by_rounding_counts_as_zero_and_nan_stays():
    assert finite_horizon_penalty([-1e-17, 0.1]) == 0
    assert math.isnan(finite_horizon_penalty([float("nan"), 0.1]))
    assert math.isnan(discounted_penalty(float("nan"), 0.5))


def test_discounted_penalty_by_hand():
    # sqrt(2) * 0.9 * 2 / 0.01 * sqrt(0.02) = 180 * 0.2
    assert discounted_penalty(0.02, gamma=0.9, advantage_bound=2.0) == pytest.approx(36.0)
    assert discounted_penalty(0.02, gamma=0.0) == 0


@pytest.mark.parametrize("gamma", [1.0, 1.5, -0.1, float("nan")])
def test_discount_of_one_is_refused(gamma):
    with pytest.raises(ValueError, match="0 <= gamma < 1.*finite_horizon_penalty"):
        discounted_penalty(0.01, gamma)


def test_stale_penalty_by_hand():
    # Turns x y z x y z; y is updated after x and z: alpha = 0.1 and 0.4 at its turns, beta = 0.2 at theirs
    own, earlier = [0, 0.02, 0, 0, 0.32, 0], [0.08, 0, 0.08, 0.08, 0, 0.08]
    found = stale_penalty(own, earlier, advantage_bound=2.0)
    # X = 0.2 and 0.6, Y = 0.6 and 0.2
    assert found.contexts == pytest.approx(2 * ((0.2 + 0.1) + (0.6 + 0.4)))
    assert found.returns == pytest.approx(2 * ((0.1 + 0.1) + (0.4 + 0.2)))
    assert found.total == pytest.approx(found.contexts + found.returns)


def test_in_one_round_the_order_of_updates_says_which_part_staleness_has():
    before, after = stale_penalty([0, 0.02], [0.08, 0]), stale_penalty([0.02, 0], [0, 0.08])
    assert before.contexts > 0 and before.returns == 0
    assert after.returns > 0 and after.contexts == 0
    first = stale_penalty([0.02, 0.02], [0, 0])
    assert first.total == 0


def stale_stage(num_agents: int, backwards: bool, radius: float = 0.02) -> float:
    """Sum of the stale penalties of a stage of one round in which every agent moves by `radius`."""
    total = 0.0
    for agent in range(num_agents):
        earlier = range(agent + 1, num_agents) if backwards else range(agent)
        kl_of = [[radius * (turn in agents) for turn in range(num_agents)] for agents in ([agent], earlier)]
        total += stale_penalty(*kl_of).total
    return total


@pytest.mark.parametrize("n", [2, 5, 16])
def test_a_stale_stage_costs_the_square_of_the_agents_only_where_contexts_move(n):
    alpha = 0.1
    assert stale_stage(n, backwards=False) == pytest.approx(alpha * (n * (n - 1) / 2 + n - 1))
    assert stale_stage(n, backwards=True) == pytest.approx(alpha * 2 * (n - 1))


# Radii


@pytest.mark.parametrize("turns, expected", [(1, [1]), (2, [1, 4]), (3, [0.5625, 2.25, 9])])
def test_radii_by_hand(turns, expected):
    assert horizon_radii(0.01, turns) == pytest.approx([0.01 * x for x in expected])


@pytest.mark.parametrize("turns", range(1, 9))
def test_radii_share_the_penalty_of_the_uniform_radius_equally(turns):
    radii = horizon_radii(0.01, turns)
    assert len(radii) == turns
    assert finite_horizon_penalty(radii) == pytest.approx(finite_horizon_penalty([0.01] * turns), rel=1e-12, abs=1e-15)
    weighted = [(turns - 1 - u) * math.sqrt(radius) for u, radius in enumerate(radii)]
    assert sum(weighted) == pytest.approx(0.1 * turns * (turns - 1) / 2, rel=1e-12)
    assert weighted[:-1] == pytest.approx([0.1 * turns / 2] * (turns - 1), rel=1e-12)


def largest_surrogate(kl_by_turn: list[float]) -> float:
    """A limit that no surrogate can exceed (test_bounds.py), for an advantage bound of 1."""
    return sum(math.sqrt(kl / 2) for kl in kl_by_turn)


def test_where_no_lower_bound_can_be_positive():
    for turns in range(2, 9):
        uniform, horizon = [0.01] * turns, horizon_radii(0.01, turns)
        room = largest_surrogate(uniform) - finite_horizon_penalty(uniform)
        assert room == pytest.approx(math.sqrt(0.005) * turns * (2 - turns), abs=1e-12)
        room = largest_surrogate(horizon) - finite_horizon_penalty(horizon)
        assert room > 0 if turns == 2 else room < 0
    for gamma in (0.34, 0.9):
        assert discounted_penalty(0.01, gamma) > largest_surrogate([0.01]) / (1 - gamma)
    assert discounted_penalty(0.01, gamma=0.33) < largest_surrogate([0.01]) / (1 - 0.33)


# Surrogates


def test_leave_one_out_by_hand():
    returns = torch.tensor([0.0, 3.0, 6.0, 1.0, 1.0, 1.0])
    assert leave_one_out_advantages(returns, 3).tolist() == pytest.approx([-4.5, 0, 4.5, 0, 0, 0])


def test_terms_by_hand():
    """Two messages of two and one tokens, with another agent's token between; then a row of silence."""
    ratios = torch.tensor([[2.0, 1.5, 7.0, 0.5], [3.0, 3.0, 3.0, 3.0]])
    mask = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0]])
    index = torch.tensor([[0, 0, -1, 1], [-1, -1, -1, -1]])
    terms = surrogate_terms(
        ratios.log(), mask, index, torch.tensor([0.5, 4.0]), torch.tensor([0.25, 4.0]), clip_low=0.2, clip_high=0.3
    )
    message, token, clipped = (3 - 1) + (0.5 - 1), 1 + 0.5 - 0.5, 0.3 + 0.3 - 0.5
    assert terms[0].tolist() == pytest.approx([message * 0.5, message * 0.25, token * 0.25, clipped * 0.25])
    assert terms[1].tolist() == [0] * 4
    assert terms.dtype == torch.float64


def test_negative_advantages_are_clipped_from_below_only():
    ratios = torch.tensor([[2.0, 0.5]])
    one = torch.ones(1)
    terms = surrogate_terms(ratios.log(), torch.ones(1, 2), torch.tensor([[0, 1]]), -one, -one, 0.2, 0.2)
    assert terms[0, 3].item() == pytest.approx(-1.0 + 0.2)


def test_what_is_not_the_agents_is_not_read():
    log_ratios = torch.tensor([[0.1, float("nan"), -torch.inf, 800.0]])
    terms = surrogate_terms(
        log_ratios,
        torch.tensor([[1, 0, 0, 0]]),
        torch.tensor([[0, 5, 99, -1]]),
        torch.ones(1),
        torch.ones(1),
        0.2,
        0.2,
    )
    assert terms[0].tolist() == pytest.approx([math.expm1(0.1)] * 4)


@pytest.mark.parametrize("shape", [(4, 0), (4, 3)])
def test_rows_without_any_message_have_zeros(shape):
    silent = torch.zeros(shape)
    terms = surrogate_terms(silent, silent, silent.long() - 1, torch.ones(4), torch.ones(4), 0.2, 0.2)
    assert terms.tolist() == [[0.0] * 4] * 4
    certificate = Certificate.from_terms(terms, 2, penalty=0.0)
    assert certificate.lower_bound == certificate.standard_error == 0


def test_an_update_that_changed_nothing_gains_nothing():
    terms = surrogate_terms(
        torch.zeros(4, 3), torch.ones(4, 3), torch.zeros(4, 3).long(), torch.randn(4), torch.randn(4), 0.2, 0.2
    )
    assert terms.abs().max() == 0


def test_certificate_by_hand():
    terms = torch.tensor(
        [[0.4, 0.1, 0.3, 0.2], [0.2, 0.1, 0.3, 0.2], [0.1, 0.1, 0.3, 0.2], [0.1, 0.1, 0.3, 0.0]], dtype=torch.float64
    )
    found = Certificate.from_terms(terms, group_size=2, penalty=0.05)
    assert found.surrogate == pytest.approx(0.2)
    assert found.standard_error == pytest.approx(0.1)  # means of the groups 0.3 and 0.1
    assert found.trained == pytest.approx(0.15)
    assert (found.zeta_norm, found.zeta_ratio, found.zeta_clip) == pytest.approx((0.1, 0.2, 0.15))
    assert found.lower_bound == pytest.approx(0.15 - 0.05 - 0.45)
    assert math.isnan(Certificate.from_terms(terms, group_size=4, penalty=0.0).standard_error)


@pytest.mark.parametrize("seed", range(20))
def test_lower_bound_is_never_above_what_the_unbiased_surrogate_gives(seed):
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(-1, 4, (24, 10), generator=generator).sort(dim=1).values
    log_ratios = 10 ** (seed % 4 - 2) * torch.randn(24, 10, generator=generator)
    returns = torch.rand(24, generator=generator)
    scaled = torch.randn(24, generator=generator) * returns.std()
    advantages = leave_one_out_advantages(returns, 6)
    terms = surrogate_terms(log_ratios, index >= 0, index, advantages, scaled, 0.2, 0.28)
    found = Certificate.from_terms(terms, 6, penalty=0.1)
    assert found.lower_bound <= found.surrogate - 0.1 + 1e-12 * terms.abs().max().item()
    assert min(found.zeta_norm, found.zeta_ratio, found.zeta_clip) >= 0
    # With the same advantages, messages of one token and nothing clipped, all four are one
    one_by_one = torch.arange(10).expand(24, 10)
    same = surrogate_terms(log_ratios, torch.ones(24, 10), one_by_one, advantages, advantages, 1.0, torch.inf)
    zetas = Certificate.from_terms(same, 6, penalty=0.0)
    limit = 1e-12 * same.abs().max().item()
    assert max(zetas.zeta_norm, zetas.zeta_ratio, zetas.zeta_clip) <= limit
    assert zetas.lower_bound == pytest.approx(zetas.surrogate, abs=4 * limit)
