"""Metrics of evaluated episodes, and of the evaluations of a run: pure functions of numbers (docs/evaluation.md)."""

import math
import statistics
from collections.abc import Sequence

import numpy as np


RESAMPLES = 2000  # of the bootstrap: between seeds, an interval's ends vary by 1 to 2 % of its width


def pass_at_k(n: int, c: int, k: int) -> float:
    """
    Unbiased estimate of the probability that at least one of `k` samples is right: 1 - C(n-c, k) / C(n, k).

    Args:
        n (`int`): Number of samples.
        c (`int`): Number of those that are right.
        k (`int`): Number of samples in the estimated probability.

    Raises:
        `ValueError`: Unless 0 <= c <= n and 1 <= k <= n.
    """
    if not 0 <= c <= n:
        raise ValueError(f"Of n={n} samples, c={c} cannot be right. Pass 0 <= c <= n.")
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} cannot be estimated from n={n} samples. Pass 1 <= k <= n, or draw more samples.")
    if n - c < k:
        return 1.0
    # The quotient of binomials is a product of c factors, and also of k. In logarithms, since it may be close to 1
    few, many = sorted((c, k))
    return 0.0 - math.expm1(math.fsum(math.log1p(-many / (n - i)) for i in range(few)))


def avg_at_k(right: Sequence[Sequence[bool]], seed: int = 0) -> tuple[float, float, float]:
    """
    Mean accuracy over the samples of each task and over tasks, with a 95 % percentile bootstrap interval over tasks.

    Args:
        right (`Sequence[Sequence[bool]]`): For each task, whether each of its samples is right.
        seed (`int`, *optional*, defaults to `0`): Seed of the bootstrap.

    Returns:
        `tuple` of three `float`: the mean, and the lower and the upper end of the interval.

    Raises:
        `ValueError`: If there is no task, or a task without samples.
    """
    if not right or not all(len(samples) for samples in right):
        raise ValueError("An accuracy needs at least one task, and at least one sample of each.")
    tasks = np.array([np.mean(samples) for samples in right])
    rng = np.random.default_rng(seed)
    means = [tasks[rng.integers(len(tasks), size=len(tasks))].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(tasks.mean()), float(low), float(high)


def coordination(earlier: Sequence[Sequence[bool]], final: Sequence[bool]) -> float | None:
    """
    Share of right answers among the episodes in which an earlier message already contained the right answer.

    Args:
        earlier (`Sequence[Sequence[bool]]`): For each episode, whether each message before the answer is right.
        final (`Sequence[bool]`): For each episode, whether its answer is right.

    Returns:
        `float`, or `None` if there is no such episode.
    """
    kept = [answer for before, answer in zip(earlier, final, strict=True) if any(before)]
    return sum(kept) / len(kept) if kept else None


def stability(evaluations: Sequence[float], last: int = 6) -> float:
    """
    Standard deviation (Bessel-corrected) of the evaluations of the `last` stages. Lower is better.

    Raises:
        `ValueError`: If there are fewer than two of them.
    """
    recent = list(evaluations)[-last:] if last > 0 else []
    if len(recent) < 2:
        raise ValueError(
            f"The stability of the last {last} of {len(evaluations)} evaluations is undefined. Pass at least two "
            "evaluations, and `last` of at least 2."
        )
    return statistics.stdev(map(float, recent))


def regression_rate(evaluations: Sequence[float]) -> float:
    """
    Share of the changes from one stage's evaluation to the next that are negative.

    Raises:
        `ValueError`: If there are fewer than two evaluations.
    """
    if len(evaluations) < 2:
        raise ValueError(f"A change needs two evaluations, got {len(evaluations)}.")
    changes = [after - before for before, after in zip(evaluations[:-1], evaluations[1:], strict=True)]
    return sum(change < 0 for change in changes) / len(changes)
