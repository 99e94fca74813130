"""The plots of the studies, from the rows of their CSV files."""

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .arms import BASE
from .learning_rates import INSIDE
from .learning_rates import NAMES as LABELS
from .statistics import interval, signed_gap


TEXTS = ("equal", "arm")  # columns
COLORS = {"full": "tab:blue", "speculative": "tab:red", "stale": "tab:gray", "stale_no_radius": "tab:orange"}


def _figure(*args, **kwargs):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt.subplots(*args, constrained_layout=True, **kwargs)


def read_csv(path: Path) -> list[dict[str, Any]]:
    """What `write_csv` wrote; numbers as numbers, empty cells left out."""
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {key: text if key in TEXTS else json.loads(text) for key, text in row.items() if text}
            for row in csv.DictReader(file)
        ]


def name_seeds(seeds: Iterable[int]) -> str:
    """For a title: which seeds there are, and how many."""
    seeds = sorted(set(seeds))
    if not seeds:
        return "no runs"
    return f"seeds {seeds[0]} to {seeds[-1]} (n = {len(seeds)})" if len(seeds) > 1 else f"seed {seeds[0]} (n = 1)"


def _summed(rows: list[dict[str, Any]], value: Callable[[dict[str, Any]], float]) -> float:
    """Mean over the probed stages of the sum over a stage's updates."""
    stages: dict[Any, list[float]] = {}
    for row in rows:
        stages.setdefault(row["stage"], []).append(value(row))
    return float(np.mean([sum(values) for values in stages.values()]))


def plot_scaling(rows: list[dict[str, Any]], path: Path):
    """Accuracy, occupancy shift and stale gap against the number of agents; bands are 95 % intervals over seeds."""
    runs: dict[tuple, dict[int, list[dict[str, Any]]]] = {}
    for row in rows:
        runs.setdefault((row["equal"], row["arm"], row["n"]), {}).setdefault(row["seed"], []).append(row)
    figure, axes = _figure(1, 4, figsize=(20, 4.5))
    panels = (
        ("prompts", lambda own: own[0]["accuracy"], "equal prompts", "held-out accuracy", False),
        ("tokens", lambda own: own[0]["accuracy"], "equal tokens", "held-out accuracy", False),
        (
            "prompts",
            lambda own: _summed(own, lambda row: row["occupancy/tv"]),
            "occupancy shift",
            "D_occ, summed over a stage",
            True,
        ),
        ("prompts", lambda own: _summed(own, signed_gap), "stale gap", "return, signed, summed over a stage", True),
    )
    for axis, (kind, value, title, label, probed) in zip(axes, panels, strict=True):
        shown = set[int]()
        for arm, color in COLORS.items():
            # Five agents have two arms only
            sizes = sorted({n for equal, name, n in runs if (equal, name) == (kind, arm) and n != 5})
            if not sizes or (
                probed and not all("occupancy/tv" in own[0] for own in runs[kind, arm, sizes[0]].values())
            ):
                continue
            stats = [interval([value(own) for own in runs[kind, arm, n].values()]) for n in sizes]
            mean, low, high = zip(*stats, strict=True)
            axis.plot(sizes, mean, ".-", color=color, label=arm)
            axis.fill_between(sizes, low, high, color=color, alpha=0.12)
            shown |= {seed for n in sizes for seed in runs[kind, arm, n]}
        axis.set(xlabel="agents", ylabel=label, title=f"{title}, {name_seeds(shown)}")
        axis.legend()
    figure.savefig(path, dpi=100)


def plot_certificates(rows: list[dict[str, Any]], path: Path):
    """For each arm the surrogate of each update against the change that was measured; bars are two standard errors."""
    arms: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if "certificate/measured" in row:
            arms.setdefault(row["arm"], []).append(row)
    figure, axes = _figure(1, len(arms), figsize=(5 * len(arms), 4.5), squeeze=False)
    for axis, (arm, own) in zip(axes[0], arms.items(), strict=True):
        surrogate, measured, error = (
            [row[f"certificate/{name}"] for row in own] for name in ("surrogate", "measured", "measured_se")
        )
        errors = [2 * each for each in error]
        axis.errorbar(
            surrogate,
            measured,
            yerr=errors,
            fmt=".",
            alpha=0.5,
            elinewidth=0.5,
            label="an update, ± 2 standard errors",
        )
        ends = [min(surrogate), max(surrogate)]
        axis.plot(ends, ends, color="black", linewidth=0.8, label="measured = surrogate")
        seeds = name_seeds(row["seed"] for row in own)
        axis.set(
            xlabel="surrogate on fresh rollouts (return)",
            ylabel="measured change, held out (return)",
            title=f"{arm}, {seeds}",
        )
        axis.locator_params(axis="x", nbins=6)
        axis.legend(loc="lower right", framealpha=0.5)
    figure.savefig(path, dpi=100)


def plot_learning_rates(rows: list[dict[str, Any]], path: Path):
    """The accuracy of each arm against the learning rate; bands are 95 % intervals over seeds."""
    figure, axis = _figure(figsize=(9, 5.5))
    runs: dict[str, dict[float, dict[int, float]]] = {}
    for row in rows:
        runs.setdefault(row["arm"], {}).setdefault(row["scale"], {})[row["seed"]] = row["accuracy"]
    for arm, by_rate in runs.items():
        rates = sorted(by_rate)
        mean, low, high = zip(*(interval(list(by_rate[rate].values())) for rate in rates), strict=True)
        learning_rates = [BASE["learning_rate"] * rate for rate in rates]
        style = "-" if arm in INSIDE else "--"  # with and without a radius
        (line,) = axis.plot(learning_rates, mean, f".{style}", label=LABELS.get(arm, arm))
        axis.fill_between(learning_rates, low, high, color=line.get_color(), alpha=0.1)
    start = np.mean(list({row["seed"]: row["start"] for row in rows}.values()))
    axis.axhline(start, color="black", linewidth=0.8, linestyle=":", label="before training")
    axis.set(
        xscale="log",
        xlabel="learning rate",
        ylabel="held-out accuracy after ten stages",
        title=f"LINK, three agents, about as many decoded tokens, {name_seeds(row['seed'] for row in rows)}",
    )
    axis.legend(fontsize="small")
    figure.savefig(path, dpi=100)


def plot_long_training(rows: list[dict[str, Any]], path: Path):
    """The accuracy of each run of each arm over the stages, and their mean."""
    arms: dict[str, dict[int, dict[int, float]]] = {}
    for row in rows:
        arms.setdefault(row["arm"], {}).setdefault(row["seed"], {})[row["stage"]] = row["accuracy"]
    figure, axes = _figure(1, len(arms), figsize=(4.5 * len(arms), 4), squeeze=False, sharey=True)
    for axis, (arm, by_seed) in zip(axes[0], arms.items(), strict=True):
        for curve in by_seed.values():
            axis.plot(sorted(curve), [curve[stage] for stage in sorted(curve)], linewidth=0.6, alpha=0.6)
        stages = sorted(set.intersection(*(set(curve) for curve in by_seed.values())))
        mean = [np.mean([curve[stage] for curve in by_seed.values()]) for stage in stages]
        axis.plot(stages, mean, color="black", linewidth=1.5, label="mean")
        axis.set(xlabel="stage", ylabel="held-out accuracy", title=f"{LABELS.get(arm, arm)}\n{name_seeds(by_seed)}")
        axis.legend()
    figure.savefig(path, dpi=100)
