"""Means, intervals, exponents: over seeds, which are what is independent."""

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trl_teamtr.evaluation import metrics


RESAMPLES = 4000


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and the ends of its 95 % bootstrap interval."""
    return bootstrap([list(values)], lambda samples: float(np.mean(samples[0])))


def bootstrap(
    groups: Sequence[Sequence[Any]], statistic: Callable[[list[list[Any]]], float]
) -> tuple[float, float, float]:
    """
    A statistic of several groups of seeds, and its 95 % bootstrap interval: each group's seeds are drawn anew.

    Args:
        groups (`Sequence[Sequence]`): Values by seed, of each group.
        statistic (`Callable`): Of as many lists.
    """
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        drawn.append(statistic([[group[i] for i in rng.integers(len(group), size=len(group))] for group in groups]))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return statistic([list(group) for group in groups]), float(low), float(high)


def exponent(sizes: Sequence[int], groups: Sequence[Sequence[float]]) -> tuple[float, float, float] | None:
    """
    Slope of log mean over log size, with its interval. `None` where a mean, or one of more than a fortieth of the redrawn
    ones, is not positive: what cannot be told from 0 has no exponent.
    """
    lost = 0

    def slope(samples: list[list[float]]) -> float:
        nonlocal lost
        means = [float(np.mean(sample)) for sample in samples]
        if min(means) <= 0:
            lost += 1
            return math.nan
        return float(np.polyfit(np.log(sizes), np.log(means), 1)[0])

    if math.isnan(slope([list(group) for group in groups])):
        return None
    fitted = bootstrap(groups, slope)
    return fitted if lost <= RESAMPLES / 40 else None


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's."""
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)


def show(value: tuple[float, float, float], digits: int = 3) -> str:
    return f"{value[0]:.{digits}f} [{value[1]:.{digits}f}, {value[2]:.{digits}f}]"


def write_csv(path: Path, rows: list[dict[str, Any]]):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)


def final_accuracy(result: dict[str, Any]) -> float:
    """Mean of the last three evaluations."""
    return float(np.mean([accuracy for _, accuracy in result["curve"][-3:]]))


def accuracy_differences(runs: list[dict[str, Any]], reference: list[dict[str, Any]]) -> list[float]:
    """Accuracies minus those of the reference, of the seeds that both have."""
    theirs = {run["cell"]["seed"]: final_accuracy(run) for run in reference}
    return [final_accuracy(run) - theirs[run["cell"]["seed"]] for run in runs if run["cell"]["seed"] in theirs]


def stability(result: dict[str, Any]) -> float:
    """Standard deviation of the last six evaluations."""
    return metrics.stability([accuracy for _, accuracy in result["curve"]])


def regression_rate(result: dict[str, Any]) -> float:
    """Share of the changes from stage to stage that are negative."""
    return metrics.regression_rate([accuracy for _, accuracy in result["curve"]])


def tokens_per_stage(result: dict[str, Any]) -> float:
    return sum(update["rollout/tokens_decoded"] for update in result["updates"]) / result["cell"]["stages"]


def signed_gap(update: dict[str, Any]) -> float:
    return update["occupancy/stale_gap_contexts"] + update["occupancy/stale_gap_returns"]
