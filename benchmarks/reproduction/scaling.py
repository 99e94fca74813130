"""
Staleness against the number of agents (the paper's Table "scaling"), at equal prompts and at equal decoded tokens; and
the importance weights by position.

Gaps are what stale rollouts would be off by, whichever rollouts an arm was trained on: signed, with the gap at the
stage's first update, where the true one is 0, beside them; and squared, less the squares of their standard errors.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from trl_teamtr.maths.certificate import stale_penalty

from .cell import Cell, read, shrink
from .plots import plot_scaling
from .statistics import (
    accuracy_differences,
    exponent,
    final_accuracy,
    interval,
    show,
    signed_gap,
    slope,
    tokens_per_stage,
    write_csv,
)


SIZES = (2, 3, 4, 6, 8)
WEIGHT_SIZES = (3, 5)
PROMPTS = 24
PROBED = (4,)
SHORT = {"quick": (2, (1,)), "smoke": (1, (0,))}  # stages, and those that are probed
PROBED_ARMS = ("full", "stale", "stale_no_radius")


def cells(seeds: range, size: str) -> list[Cell]:
    sizes, stages, probed = (SIZES, 10, PROBED) if size == "full" else ((2, 3), *SHORT[size])
    if size == "smoke":
        return shrink([Cell(arm, n, PROMPTS, 0, stages, probed) for arm in PROBED_ARMS[:2] for n in sizes], size)
    found = []
    for seed in seeds:
        for n in sizes:
            found += [Cell(arm, n, PROMPTS, seed, stages, probed) for arm in PROBED_ARMS]
            found.append(Cell("speculative", n, PROMPTS, seed, stages))
            # As many tokens as the stale arms decode on all prompts
            found.append(Cell("full", n, PROMPTS // n, seed, stages))
            found.append(Cell("speculative", n, PROMPTS - 2, seed, stages))
        if size == "full":
            found += [Cell(arm, 5, PROMPTS, seed, stages, probed) for arm in ("stale", "stale_no_radius")]
    return shrink(found, size)


def _by_arm(results: list[tuple[Cell, dict[str, Any]]]) -> dict[tuple[str, str, int], dict[int, dict[str, Any]]]:
    """(prompts, arm, n) to seed to result."""
    found: dict[tuple[str, str, int], dict[int, dict[str, Any]]] = {}
    for cell, result in results:
        kinds = ["prompts"] if cell.prompts == PROMPTS else []
        stale = cell.arm.startswith("stale")
        kinds += ["tokens"] if stale or cell.prompts != PROMPTS else []
        for kind in kinds:
            found.setdefault((kind, cell.arm, cell.agents), {})[cell.seed] = result
    return found


def _of_stage(result: dict[str, Any], name: str) -> list[list[float]]:
    """Values of the probed updates, by stage, in order of position."""
    probed = [update for update in result["updates"] if "occupancy/tv" in update]
    return _by_stage(probed, signed_gap if name == "gap" else lambda update: update[f"occupancy/{name}"])


def _by_stage(updates: list[dict[str, Any]], value: Callable[[dict[str, Any]], float]) -> list[list[float]]:
    stages: dict[int, list[float]] = {}
    for update in updates:
        stages.setdefault(update["stage"], []).append(value(update))
    return list(stages.values())


def _summed(result: dict[str, Any], name: str) -> float:
    """Mean over the probed stages of the sum over a stage's updates."""
    return float(np.mean([sum(values) for values in _of_stage(result, name)]))


def _squared_gaps(result: dict[str, Any]) -> float:
    """Mean over the probed stages of the sum of the squared gaps, each less its variance: 0 on average without a gap."""
    squares = [
        [g**2 - e**2 for g, e in zip(*pair, strict=True)]
        for pair in zip(_of_stage(result, "gap"), _of_stage(result, "stale_gap_se"), strict=True)
    ]
    return float(np.mean([sum(values) for values in squares]))


def report(folder: Path, seeds: range, size: str) -> dict[str, Any]:
    arms = _by_arm(read(folder, cells(seeds, size)))
    sizes = sorted({n for _, _, n in arms if n != 5})
    found: dict[str, Any] = {}
    for kind in ("prompts", "tokens"):
        _report_accuracy(kind, arms, sizes, found)
    _report_staleness(arms, sizes, found)
    _report_weights(arms, found)
    rows = [row for key, runs in arms.items() for row in _rows(key, runs)]
    write_csv(folder / "scaling.csv", rows)
    plot_scaling(rows, folder / "scaling.png")
    return found


def _report_accuracy(kind: str, arms, sizes: list[int], found: dict[str, Any]):
    print(
        f"\nEqual {kind}: held-out accuracy, mean of the last three evaluations; minus stale's, seed by seed [95 % over "
        "seeds]; tokens per stage"
    )
    for arm in ("full", "speculative", "stale", "stale_no_radius"):
        for n in sizes:
            runs = list(arms.get((kind, arm, n), {}).values())
            if not runs:
                continue
            accuracy, tokens = interval(list(map(final_accuracy, runs))), np.mean(list(map(tokens_per_stage, runs)))
            paired = accuracy_differences(runs, list(arms.get((kind, "stale", n), {}).values()))
            less_stale = show(interval(paired)) if paired and arm != "stale" else "-"
            print(f"{arm:<17} n={n}: {show(accuracy)}  {less_stale:<24} {tokens:6.0f}")
            found[f"accuracy_equal_{kind}_{arm}_n{n}"] = round(accuracy[0], 4)


def _kls(result: dict[str, Any]) -> list[list[float]]:
    """Measured KLs of the updates of each stage, by position."""
    return _by_stage(result["updates"], lambda update: update["kl"])


def _root_kls(result: dict[str, Any]) -> float:
    """Mean over the stages of Σ √KL: what the paper's penalty of a stage of fresh rollouts is proportional to."""
    return float(np.mean([sum(math.sqrt(kl) for kl in kls) for kls in _kls(result)]))


def _stale_penalty(result: dict[str, Any]) -> float:
    """Mean over the stages of what staleness costs at most (docs/theory.md), at the KLs that were measured."""

    def of_stage(kls: list[float]) -> float:
        own = [[kl if turn == i else 0.0 for turn in range(len(kls))] for i, kl in enumerate(kls)]
        earlier = [kls[:i] + [0.0] * (len(kls) - i) for i in range(len(kls))]
        return sum(stale_penalty(*pair).total for pair in zip(own, earlier, strict=True))

    return float(np.mean([of_stage(kls) for kls in _kls(result)]))


# What is summed over a stage, printed for each size and fitted over all of them
SUMS = {
    "tv": lambda run: _summed(run, "tv"),
    "gap": lambda run: _summed(run, "gap"),
    "squared_gap": _squared_gaps,
    "root_kl": _root_kls,
    "stale_penalty": _stale_penalty,
}


# The paper's figures for n = 2, 3, 4, 5, 6, 8, whose exponents it gives as 1.94 and 1.91
PAPER = {
    "naive gap": (0.08, 0.21, 0.41, 0.68, 1.02, 1.89),
    "naive D_occ": (0.05, 0.14, 0.28, 0.47, 0.71, 1.31),
    "TeamTR gap": (0.03, 0.05, 0.07, 0.09, 0.11, 0.15),
}


def _report_references(sizes: list[int]):
    print("\nThe same fit on other series:", end=" ")
    series = {name: ((2, 3, 4, 5, 6, 8), values) for name, values in PAPER.items()}
    series |= {"n(n - 1)/2": (sizes, [n * (n - 1) / 2 for n in sizes]), "n - 1": (sizes, [n - 1 for n in sizes])}
    print(
        ", ".join(f"{'the paper: ' if name in PAPER else ''}{name} {slope(*own):.2f}" for name, own in series.items())
    )


def _report_staleness(arms, sizes: list[int], found: dict[str, Any]):
    print(
        "\nSummed over a stage's updates: D_occ; the stale gap, signed, with its two parts, and squared less its variance; "
        "what the bounds charge for the measured KLs [95 % over seeds]"
    )
    for arm in PROBED_ARMS:
        by_size = {n: arms[key] for n in sizes if (key := ("prompts", arm, n)) in arms}
        for n, runs in by_size.items():
            sums = {name: interval([value(run) for run in runs.values()]) for name, value in SUMS.items()}
            last, ess = (
                np.mean([stage[-1] for run in runs.values() for stage in _of_stage(run, name)])
                for name in ("tv", "ess")
            )
            contexts, returns = (
                interval([_summed(run, f"stale_gap_{part}") for run in runs.values()])
                for part in ("contexts", "returns")
            )
            floor = interval([float(np.mean([stage[0] for stage in _of_stage(run, "gap")])) for run in runs.values()])
            error = np.mean(
                [e for run in runs.values() for stage in _of_stage(run, "stale_gap_se") for e in stage[1:]]
            )
            print(
                f"{arm:<17} n={n}: D_occ {show(sums['tv'])}, of the last agent {last:.3f}, its ESS {ess:.3f}; gap "
                f"{show(sums['gap'], 4)} = contexts {show(contexts, 4)} + returns {show(returns, 4)}; at the first update "
                f"{show(floor, 4)}; standard error of one {error:.4f}; squared {show(sums['squared_gap'], 5)}; root KLs "
                f"{show(sums['root_kl'])}, stale penalty {show(sums['stale_penalty'])}"
            )
            found[f"tv_{arm}_n{n}"], found[f"gap_{arm}_n{n}"] = round(sums["tv"][0], 4), round(sums["gap"][0], 5)
        seeds = set.intersection(*(set(runs) for runs in by_size.values())) if by_size else set()
        if not seeds or len(by_size) < 2:
            continue
        for name, value in SUMS.items():
            fitted = exponent(list(by_size), [[value(runs[seed]) for runs in by_size.values()] for seed in seeds])
            print(f"{arm:<17} exponent in n of the summed {name}: {show(fitted, 2) if fitted else NO_EXPONENT}")
            found[f"exponent_{name}_{arm}"] = [round(value, 2) for value in fitted] if fitted else None
    _report_references(sizes)


NO_EXPONENT = "none, since it is not positive for every seed and size"


def _report_weights(arms, found: dict[str, Any]):
    names = ("ess", "w_p95", "w_p99", "w_max", "w_above_10")
    print("\nImportance weights of the contexts by position (mean over probed stages and seeds)")
    for arm in PROBED_ARMS:
        for n in WEIGHT_SIZES:
            runs = list(arms.get(("prompts", arm, n), {}).values())
            for position in range(1, n) if runs else ():
                values = {
                    name: float(np.mean([stage[position] for run in runs for stage in _of_stage(run, name)]))
                    for name in names
                }
                text = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
                print(f"{arm:<17} n={n}, update {position + 1}: {text}")
                found[f"ess_{arm}_n{n}_update{position + 1}"] = round(values["ess"], 4)


def _rows(key: tuple[str, str, int], runs: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    kind, arm, n = key
    rows = []
    for seed, run in runs.items():
        base = {"equal": kind, "arm": arm, "n": n, "seed": seed, "accuracy": final_accuracy(run)}
        base |= {"tokens_per_stage": tokens_per_stage(run)}
        probed = [update for update in run["updates"] if "occupancy/tv" in update]
        rows += [base | {k: v for k, v in update.items() if not k.startswith("agent")} for update in probed] or [base]
    return rows
