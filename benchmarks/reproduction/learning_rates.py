"""
Learning rates that nobody has tuned: seven over a factor of 100, for the method and its baselines, all at about as many decoded
tokens; LINK teams of three.

What is compared is the accuracy of each seed at the rate that is worst for the arm. Planned before the runs: 16 seeds, with which
a difference of 0.05 to 0.09 is found in 80 of 100 studies at the spread of "large steps" (benchmarks/power.py); one look at half
of them, where p < 0.001 after Holm's correction ends a comparison, and one at all, at 0.05. The arm with a larger radius was added
after the first seed, and is no part of the correction: it shows what is to be tuned in the place of the learning rate.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from .arms import LABELS
from .cell import Cell, read, shrink
from .light import keep
from .plots import plot_learning_rates, read_csv
from .statistics import final_accuracy, holm, interval, p_values_of, reference_minus_arms, show, write_csv


AGENTS, STAGES, LATE = 3, 10, 6
RATES = tuple(10 ** (third / 3) for third in range(-3, 4))  # multiples of the common learning rate
REFERENCE = "speculative"
# Prompts per stage: as many decoded tokens as 24 without resampling
ARMS = {
    REFERENCE: 22,
    "full": 8,
    "stale": 24,
    "speculative_no_radius": 22,
    "single_penalty": 22,
    "ppo_clip": 24,
    "dapo": 24,
    "speculative_radius_threefold": 22,
}
ADDED_LATER = "speculative_radius_threefold"


def cells(seeds: range, size: str) -> list[Cell]:
    arms, rates = (ARMS, RATES) if size == "full" else ((REFERENCE, "stale"), RATES[::3])
    stages, late = (STAGES, LATE) if size == "full" else (2 if size == "quick" else 1, 0)
    found = [
        Cell(arm, AGENTS, ARMS[arm], seed, stages, scale=rate, late=late)
        for seed in seeds
        for arm in arms
        for rate in rates
    ]
    return shrink(found, size)


Runs = dict[str, dict[float, dict[int, dict[str, Any]]]]  # by arm, rate and seed


def report(folder: Path, seeds: range, size: str) -> dict[str, Any]:
    runs: Runs = {}
    for cell, result in read(folder, cells(seeds, size)):
        runs.setdefault(cell.arm, {}).setdefault(cell.scale, {})[cell.seed] = result
    rates = sorted({rate for each in runs.values() for rate in each})
    print(
        f"\nLINK, n = {AGENTS}. Accuracy [95 % over seeds] at each multiple of the common learning rate: mean of the last three "
        "evaluations; then the processor's seconds and the decoded tokens per stage, and the share of runs that end below their start"
    )
    for arm, by_rate in runs.items():
        _print_arm(arm, by_rate, rates)
    found = _compare(runs, len(rates), "at equal tokens", lambda arm, run: final_accuracy(run))
    stages = {arm: _stages_of_equal_time(runs, arm) for arm in runs}
    print(f"\nStages in the time of {STAGES} of {LABELS['stale']}: {stages}")
    found["equal_time"] = _compare(
        runs, len(rates), "at equal time", lambda arm, run: _accuracy_after(run, stages[arm])
    )
    write_csv(folder / "learning_rates.csv", _rows(runs))
    plot_learning_rates(read_csv(folder / "learning_rates.csv"), folder / "learning_rates.png")
    keep("learning_rates", cells(seeds, size), folder)
    return found


def _print_arm(arm: str, by_rate: dict[float, dict[int, dict]], rates: list[float]):
    own = [run for each in by_rate.values() for run in each.values()]
    collapsed = np.mean([final_accuracy(run) < run["curve"][0][1] for run in own])
    at = [interval([final_accuracy(run) for run in by_rate[rate].values()]) for rate in rates if rate in by_rate]
    print(
        f"{arm:<22} {'  '.join(show(value, 2) for value in at)}  {np.mean([run['seconds'] for run in own]):.2f} s  "
        f"{np.mean([run['tokens'] for run in own]):.0f} tokens  collapsed {collapsed:.3f}  ({len(own)} runs)"
    )


def _by_seed(by_rate: dict[float, dict[int, dict]], rates: int, accuracy) -> dict[int, list[float]]:
    """The accuracies over all rates, of the seeds that have them all."""
    seeds = set.intersection(*(set(each) for each in by_rate.values())) if len(by_rate) == rates else set()
    return {seed: [accuracy(by_rate[rate][seed]) for rate in sorted(by_rate)] for seed in sorted(seeds)}


def _compare(runs: Runs, rates: int, what: str, accuracy) -> dict[str, Any]:
    """Print, and return, the worst and the mean accuracy over the rates, each seed by itself, and the reference minus each arm."""
    by_seed = {arm: _by_seed(by_rate, rates, lambda run, arm=arm: accuracy(arm, run)) for arm, by_rate in runs.items()}
    found: dict[str, Any] = {}
    for measure, reduce in (("worst", min), ("mean", np.mean)):
        values = {arm: {seed: float(reduce(each)) for seed, each in own.items()} for arm, own in by_seed.items()}
        pairs = reference_minus_arms(values, REFERENCE)
        p_values = p_values_of(pairs)
        corrected = holm({arm: p for arm, p in p_values.items() if arm != ADDED_LATER})
        print(
            f"\nThe {measure} accuracy over the learning rates, {what}; that of {REFERENCE} minus it, p, and after Holm's correction"
        )
        for arm, own in values.items():
            if not own:
                continue
            text = f"{arm:<22} {show(interval(list(own.values())))}"
            if arm in p_values:
                text += f"  {show(interval(pairs[arm]))}  {p_values[arm]:.2g} {corrected.get(arm, math.nan):.2g}"
                found[f"{measure}_minus_{arm}"] = [round(value, 4) for value in interval(pairs[arm])]
            print(f"{text}  ({len(own)} seeds)")
    return found


def _stages_of_equal_time(runs: Runs, arm: str) -> int:
    """How many stages of `arm` fit into the time of all those without resampling; at most all, at least those evaluated."""
    seconds = {
        each: np.mean([run["seconds"] for by_seed in runs[each].values() for run in by_seed.values()])
        for each in {arm, "stale"} & set(runs)
    }
    return min(STAGES, int(STAGES * seconds.get("stale", seconds[arm]) / seconds[arm]))


def _accuracy_after(run: dict[str, Any], stages: int) -> float:
    """Mean of the last three evaluations of the first `stages` stages."""
    return float(np.mean([value for stage, value in run["curve"] if stage <= stages][-3:]))


def _rows(runs: Runs) -> list[dict[str, Any]]:
    return [
        {"arm": arm, "scale": rate, "seed": seed, "start": run["curve"][0][1], "accuracy": final_accuracy(run)}
        | {"seconds_per_stage": float(np.mean(run["seconds"])), "tokens_per_stage": float(np.mean(run["tokens"]))}
        | {"outside": float(np.mean(run["outside"]))}
        for arm, by_rate in runs.items()
        for rate, by_seed in by_rate.items()
        for seed, run in by_seed.items()
    ]
