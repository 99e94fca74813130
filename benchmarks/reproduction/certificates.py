"""
The certificate: does its bound hold, and does it rank updates by what they bring? And radii by turn ("horizon")
against one radius, for agents that speak twice. One radius bounds the mean over all messages, so that the first turns may
use more than it: the penalties that were measured are printed, not assumed equal.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from .cell import Cell, read, shrink
from .plots import plot_certificates
from .statistics import accuracy_differences, final_accuracy, interval, rank_correlation, show, write_csv


AGENTS, PROMPTS = 3, 24
ARMS = ("full", "two_rounds", "two_rounds_horizon")


def cells(seeds: range, size: str) -> list[Cell]:
    stages = {"full": 10, "quick": 2, "smoke": 1}[size]
    arms = ARMS if size == "full" else ARMS[:2]
    return shrink([Cell(arm, AGENTS, PROMPTS, seed, stages, certified=True) for seed in seeds for arm in arms], size)


def _values(runs: list[dict[str, Any]], prefix: str = "") -> list[list[dict[str, float]]]:
    """Certificates of the updates (or stages) of each run."""
    found = []
    for run in runs:
        key = f"certificate/{prefix}surrogate"
        found.append(
            [
                {k.removeprefix(f"certificate/{prefix}"): v for k, v in update.items() if k.startswith("certificate/")}
                for update in run["updates"]
                if key in update
            ]
        )
    return found


def _correlations(values: list[list[dict[str, float]]], first: str, second: str = "measured") -> list[float]:
    """Rank correlation over the updates of each run."""
    return [rank_correlation([v[first] for v in run], [v[second] for v in run]) for run in values]


def report(folder: Path, seeds: range, size: str) -> dict[str, Any]:
    arms: dict[str, list[dict[str, Any]]] = {}
    for cell, result in read(folder, cells(seeds, size)):
        arms.setdefault(cell.arm, []).append(result)
    found: dict[str, Any] = {}
    for arm, runs in arms.items():
        values = _values(runs)
        flat = [value for run in values for value in run]
        below = [value for value in flat if value["measured"] < value["lower_bound"]]
        clearly = [v for v in below if v["measured"] + 2 * _error(v) < v["lower_bound"]]
        correlation, bound = (interval(_correlations(values, name)) for name in ("surrogate", "lower_bound"))
        print(
            f"\n{arm}: {len(flat)} updates of {len(runs)} seeds; accuracy {show(interval(list(map(final_accuracy, runs))))}"
        )
        print(
            f"  measured below the lower bound: {len(below)} ({len(clearly)} by more than two standard errors); lower bound "
            f"above 0: {sum(value['lower_bound'] > 0 for value in flat)}"
        )
        print(
            f"  rank correlation with the measured change: of the surrogate {show(correlation, 2)}, of the bound {show(bound, 2)}"
        )
        means = {name: float(np.mean([value[name] for value in flat])) for name in _NAMES}
        print("  means: " + ", ".join(f"{name} {value:.4f}" for name, value in means.items()))
        gap = interval([float(np.mean([v["measured"] - v["surrogate"] for v in run])) for run in values])
        print(f"  measured - surrogate: {show(gap, 4)}")
        errors = [float(np.mean([value[name] for value in flat])) for name in ("standard_error", "measured_se")]
        spread = float(np.std([value["measured"] for value in flat]))
        print(
            f"  standard errors of surrogate and measured: {errors[0]:.4f}, {errors[1]:.4f}; standard deviation of measured "
            f"over updates: {spread:.4f}"
        )
        penalty = interval([float(np.mean([value["penalty"] for value in run])) for run in values])
        kl = interval([float(np.mean([update["kl"] for update in run["updates"]])) for run in runs])
        print(f"  penalty {show(penalty, 4)}, KL per message {show(kl)}")
        found[arm] = {
            "updates": len(flat),
            "violations": len(below),
            "violations_beyond_noise": len(clearly),
            "rank_correlation": [round(value, 3) for value in correlation],
            "accuracy": round(float(np.mean(list(map(final_accuracy, runs)))), 4),
        } | {name: round(value, 5) for name, value in means.items()}
    if {"two_rounds", "two_rounds_horizon"} <= set(arms):
        paired = accuracy_differences(arms["two_rounds_horizon"], arms["two_rounds"])
        print(f"\nAccuracy of radii by turn minus one radius, seed by seed: {show(interval(paired))}")
    rows = [
        {"arm": arm, "seed": run["cell"]["seed"], "stage": update["stage"], "position": update["position"]}
        | {k: v for k, v in update.items() if k.startswith("certificate/") and "stage" not in k}
        for arm, runs in arms.items()
        for run in runs
        for update in run["updates"]
    ]
    write_csv(folder / "certificates.csv", rows)
    plot_certificates(rows, folder / "certificates.png")
    return found


def _error(value: dict[str, float]) -> float:
    """Standard error of the measured change minus the surrogate, which are of different rollouts."""
    return math.hypot(value["measured_se"], value["standard_error"])


_NAMES = ("surrogate", "trained", "penalty", "zeta_norm", "zeta_ratio", "zeta_clip", "lower_bound", "measured")
