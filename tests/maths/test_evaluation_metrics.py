import itertools
import math
import statistics

import numpy as np
import pytest

from trl_teamtr.maths.evaluation_metrics import avg_at_k, coordination, pass_at_k, regression_rate, stability


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(n):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
        expected = sum(map(any, subsets)) / len(subsets)
        assert pass_at_k(n, c, k) == pytest.approx(expected, abs=1e-14)


def test_pass_at_k_is_exact_for_large_and_for_tiny_figures():
    exact = 1 - math.comb(2000 - 30, 50) / math.comb(2000, 50)
    assert pass_at_k(2000, 30, 50) == pytest.approx(exact, rel=1e-12)
    assert pass_at_k(10**9, 1, 1) == pytest.approx(1e-9, rel=1e-12)
    assert pass_at_k(10**6, 400_000, 500_000) == 1.0
    assert pass_at_k(10**6, 0, 10**6) == 0.0


@pytest.mark.parametrize("n, c, k", [(4, 5, 1), (4, -1, 1), (4, 2, 5), (4, 2, 0)])
def test_pass_at_k_of_impossible_numbers_is_refused(n, c, k):
    with pytest.raises(ValueError, match=f"c={c}" if not 0 <= c <= n else f"pass@{k} cannot be estimated"):
        pass_at_k(n, c, k)


def test_accuracy_is_the_mean_over_tasks():
    mean, low, high = avg_at_k([[True, True], [True, False], [False, False], [False, False]])
    assert mean == 3 / 8 and 0 <= low < mean < high <= 1


def test_interval_is_a_function_of_the_seed():
    right = [[True] * (task % 12) + [False] * 12 for task in range(30)]
    assert avg_at_k(right, seed=1) == avg_at_k(right, seed=1) != avg_at_k(right, seed=2)


def test_interval_over_tasks_covers_the_true_accuracy_about_as_often_as_it_says():
    """200 evaluations of 40 tasks whose difficulties are drawn anew; many samples of few tasks must not narrow it."""
    rng, covered = np.random.default_rng(0), 0
    for seed in range(200):
        difficulty = rng.beta(2, 2, size=(40, 1))  # of mean 0.5
        _, low, high = avg_at_k((rng.random((40, 8)) < difficulty).tolist(), seed)
        covered += low <= 0.5 <= high
    assert 0.90 <= covered / 200 <= 0.98


@pytest.mark.parametrize("right", [[], [[]], [[True], []]])
def test_accuracy_of_nothing_is_refused(right):
    with pytest.raises(ValueError, match="at least one task"):
        avg_at_k(right)


def test_coordination_by_hand():
    earlier = [[True, False], [False, True], [False, False], [], [True, True]]
    assert coordination(earlier, [True, False, True, True, True]) == 2 / 3
    assert coordination([[False], []], [True, False]) is None
    assert coordination([], []) is None


def test_stability_is_that_of_the_last_stages():
    evaluations = [0.1, 0.9, 0.5, 0.6, 0.5, 0.7, 0.6, 0.4]
    assert stability(evaluations) == pytest.approx(statistics.stdev(evaluations[2:]))
    assert stability(evaluations, last=2) == pytest.approx(0.2 / math.sqrt(2))
    assert stability([0.5, 0.5, 0.5]) == 0
    assert stability(evaluations, last=100) == pytest.approx(statistics.stdev(evaluations))


@pytest.mark.parametrize("evaluations, last", [([], 6), ([0.5], 6), ([0.5, 0.6], 1), ([0.5, 0.6], 0)])
def test_stability_of_less_than_two_is_refused(evaluations, last):
    with pytest.raises(ValueError, match="at least two evaluations"):
        stability(evaluations, last)


def test_regression_rate_counts_the_falls():
    assert regression_rate([0.1, 0.3, 0.2, 0.2, 0.5]) == 1 / 4
    assert regression_rate([0.3, 0.2, 0.1]) == 1 and regression_rate([0.3, 0.3]) == 0
    with pytest.raises(ValueError, match="two evaluations, got 1"):
        regression_rate([0.3])
