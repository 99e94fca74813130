"""
Long training at a large learning rate: a hundred stages at about three times the common one, for the method and its baselines at about
as many decoded tokens; LINK teams of three. How often the team's score falls from stage to stage, and by how much; how many runs
end below their best by a tenth or more, or below their start; and the stability of the end.

Planned before the runs: eight seeds, with which a difference of 0.1 is found in 80 of 100 studies at the spread of "large steps"
(benchmarks/power.py).
"""

from pathlib import Path
from typing import Any

import numpy as np

from .cell import Cell, read, shrink
from .learning_rates import AGENTS, REFERENCE
from .learning_rates import ARMS as PROMPTS
from .light import keep
from .plots import plot_long_training, read_csv
from .statistics import final_accuracy, holm, interval, p_values_of, reference_minus_arms, show, write_csv


STAGES, SCALE = 100, 10 ** (1 / 2)
ARMS = (REFERENCE, "stale", "speculative_no_radius", "ppo_clip")
FALL = 0.1


def cells(seeds: range, size: str) -> list[Cell]:
    arms, stages = (ARMS, STAGES) if size == "full" else (ARMS[:2], 3 if size == "quick" else 1)
    found = [Cell(arm, AGENTS, PROMPTS[arm], seed, stages, scale=SCALE, late=0) for seed in seeds for arm in arms]
    return shrink(found, size)


def falls(run: dict[str, Any]) -> float:
    """Share of the stages after which the score is lower than before by more than two standard errors of an evaluation."""
    scores, links = [value for _, value in run["curve"]], (AGENTS - 1) * 256
    pairs = list(zip(scores, scores[1:], strict=False))
    return float(np.mean([a - b > 2 * ((a * (1 - a) + b * (1 - b)) / links) ** 0.5 for a, b in pairs]))


def fall_from_best(run: dict[str, Any]) -> float:
    """The best mean of three evaluations in a row, less that of the last three."""
    scores = [value for _, value in run["curve"]]
    means = [float(np.mean(scores[first : first + 3])) for first in range(max(1, len(scores) - 2))]
    return max(means) - means[-1]


def report(folder: Path, seeds: range, size: str) -> dict[str, Any]:
    runs: dict[str, dict[int, dict[str, Any]]] = {}
    for cell, result in read(folder, cells(seeds, size)):
        runs.setdefault(cell.arm, {})[cell.seed] = result
    measures = {
        "accuracy": final_accuracy,
        "best": lambda run: final_accuracy(run) + fall_from_best(run),
        "fall_from_best": fall_from_best,
        "share_of_falls": falls,
        "stability": lambda run: float(np.std([value for _, value in run["curve"][-20:]])),
    }
    print(
        f"\nLINK, n = {AGENTS}, {STAGES} stages at {SCALE:.2f} times the common learning rate [95 % over seeds]; "
        f"{REFERENCE} minus each arm, p, and after Holm's correction for the arms. `stability` is the deviation of the last 20 evaluations"
    )
    found: dict[str, Any] = {}
    for name, measure in measures.items():
        values = {arm: {seed: measure(run) for seed, run in own.items()} for arm, own in runs.items()}
        pairs = reference_minus_arms(values, REFERENCE)
        p_values = p_values_of(pairs)
        corrected = holm(p_values)
        for arm, own in values.items():
            text = f"{name:<16} {arm:<22} {show(interval(list(own.values())))}"
            if arm in p_values:
                text += f"  {show(interval(pairs[arm]))}  {p_values[arm]:.2g} {corrected[arm]:.2g}"
                found[f"{name}_minus_{arm}"] = [round(value, 4) for value in interval(pairs[arm])]
            print(f"{text}  ({len(own)} seeds)")
    for arm, own in runs.items():
        ends = [final_accuracy(run) for run in own.values()]
        below = sum(end < run["curve"][0][1] for end, run in zip(ends, own.values(), strict=True))
        fallen = sum(fall_from_best(run) >= FALL for run in own.values())
        print(
            f"{arm:<22} ends below its start in {below} of {len(own)} runs, below its best by {FALL} or more in {fallen}; updates out of "
            f"the region {np.mean([run['outside'] for run in own.values()]):.3f}; {np.mean([run['seconds'] for run in own.values()]):.2f} s and "
            f"{np.mean([run['tokens'] for run in own.values()]):.0f} tokens per stage"
        )
    rows = [
        {"arm": arm, "seed": seed, "stage": stage, "accuracy": value}
        for arm, own in runs.items()
        for seed, run in own.items()
        for stage, value in run["curve"]
    ]
    write_csv(folder / "long_training.csv", rows)
    plot_long_training(read_csv(folder / "long_training.csv"), folder / "long_training.png")
    keep("long_training", cells(seeds, size), folder)
    return found
