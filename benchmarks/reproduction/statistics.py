"""
Means, intervals, exponents: over seeds, which are what is independent. Intervals are Student's: with five seeds a
percentile bootstrap holds the mean 84 times of 100, not 95.
"""

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trl_teamtr.maths import evaluation_metrics


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and the ends of its 95 % interval by Student's t; NaN for one value."""
    from scipy.stats import t

    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, math.nan, math.nan
    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return mean, mean - half, mean + half


def p_value(values: Sequence[float]) -> float:
    """Of a mean of 0, by Student's t, both sides; NaN where all values are the same."""
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(values, 0.0).pvalue) if np.ptp(values) > 0 else math.nan


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """Holm's correction for as many comparisons as there are; NaN is none."""
    ordered = sorted((p, name) for name, p in p_values.items() if not math.isnan(p))
    found, largest = dict.fromkeys(p_values, math.nan), 0.0
    for i, (p, name) in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - i) * p))
        found[name] = largest
    return found


def slope(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Of log value over log size."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def exponent(sizes: Sequence[int], by_seed: Sequence[Sequence[float]]) -> tuple[float, float, float] | None:
    """
    [`slope`] of each seed by itself, and their interval; `None` where a value is not positive: what cannot be told
    from 0 has no exponent.

    Args:
        sizes (`Sequence[int]`): Of the teams.
        by_seed (`Sequence[Sequence[float]]`): For each seed, a value for each size.
    """
    if min(map(min, by_seed)) <= 0:
        return None
    return interval([slope(sizes, values) for values in by_seed])


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


def report_differences(arms: dict[str, list[dict[str, Any]]], found: dict[str, Any], reference: Callable[[str], str]):
    """
    Print the accuracy of each arm minus that of its reference, seed by seed, and add it to what was found.

    Args:
        arms (`dict[str, list[dict]]`): Results of each arm.
        found (`dict[str, dict]`): What was found of each arm.
        reference (`Callable[[str], str]`): Name of the arm that an arm is compared with; itself if with none.
    """
    paired = {arm: accuracy_differences(runs, arms.get(reference(arm), [])) for arm, runs in arms.items()}
    paired = {arm: values for arm, values in paired.items() if arm != reference(arm) and len(values) > 1}
    p_values = {arm: p_value(differences) for arm, differences in paired.items()}
    corrected = holm(p_values)
    print(
        f"\nAccuracy minus that of full, seed by seed [95 %], p of the t-test, and after Holm's correction for the "
        f"{sum(not math.isnan(p) for p in p_values.values())} comparisons; an interval that holds 0 tells nothing apart"
    )
    for arm, differences in paired.items():
        print(f"{arm:<27} {show(interval(differences)):<24} {p_values[arm]:.3f} {corrected[arm]:.3f}")
        found[arm]["accuracy_minus_full"] = [round(value, 4) for value in interval(differences)]


def reference_minus_arms(values: dict[str, dict[int, float]], reference: str) -> dict[str, list[float]]:
    """
    A measure of the reference minus that of each other arm, of the seeds that both have.

    Args:
        values (`dict[str, dict[int, float]]`): The measure, by arm and seed.
        reference (`str`): An arm.
    """
    theirs = values.get(reference, {})
    return {
        arm: [theirs[seed] - value for seed, value in own.items() if seed in theirs]
        for arm, own in values.items()
        if arm != reference
    }


def p_values_of(pairs: dict[str, list[float]]) -> dict[str, float]:
    """[`p_value`] of each arm with at least two seeds."""
    return {arm: p_value(each) for arm, each in pairs.items() if len(each) > 1}


def stability(result: dict[str, Any]) -> float:
    """Standard deviation of the last six evaluations."""
    return evaluation_metrics.stability([accuracy for _, accuracy in result["curve"]])


def regression_rate(result: dict[str, Any]) -> float:
    """Share of the changes from stage to stage that are negative."""
    return evaluation_metrics.regression_rate([accuracy for _, accuracy in result["curve"]])


def tokens_per_stage(result: dict[str, Any]) -> float:
    return sum(update["rollout/tokens_decoded"] for update in result["updates"]) / result["cell"]["stages"]


def signed_gap(update: dict[str, Any]) -> float:
    return update["occupancy/stale_gap_contexts"] + update["occupancy/stale_gap_returns"]
