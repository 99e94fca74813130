"""
Staleness against the number of agents (the paper's Table "scaling"), at equal prompts and at equal decoded tokens; and
the importance weights by position.

Gaps are averaged over the probed stages before anything is fitted: signed, with the gap at the stage's first update,
where the true one is 0, beside them; and without their signs, less that floor.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from trl_teamtr.certificate import stale_penalty

from .cell import Cell, read
from .statistics import (
    accuracy_differences,
    exponent,
    final_accuracy,
    interval,
    show,
    signed_gap,
    tokens_per_stage,
    write_csv,
)


SIZES = (2, 3, 4, 6, 8)
WEIGHT_SIZES = (3, 5)
PROMPTS = 24
PROBED = (4,)
PROBED_ARMS = ("full", "stale", "stale_no_radius")


def cells(seeds: range, quick: bool) -> list[Cell]:
    sizes, stages, probed = ((2, 3), 2, (1,)) if quick else (SIZES, 10, PROBED)
    found = []
    for seed in seeds:
        for n in sizes:
            found += [Cell(arm, n, PROMPTS, seed, stages, probed) for arm in PROBED_ARMS]
            found.append(Cell("speculative", n, PROMPTS, seed, stages))
            # As many tokens as the stale arms decode on all prompts
            found.append(Cell("full", n, PROMPTS // n, seed, stages))
            found.append(Cell("speculative", n, PROMPTS - 2, seed, stages))
        if not quick:
            found += [Cell(arm, 5, PROMPTS, seed, stages, probed) for arm in ("stale", "stale_no_radius")]
    return found


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
    stages: dict[int, list[float]] = {}
    for update in result["updates"]:
        if "occupancy/tv" in update:
            value = signed_gap(update) if name == "gap" else update[f"occupancy/{name}"]
            stages.setdefault(update["stage"], []).append(value)
    return list(stages.values())


def _summed(result: dict[str, Any], name: str) -> float:
    """Mean over the probed stages of the sum over a stage's updates."""
    return float(np.mean([sum(values) for values in _of_stage(result, name)]))


def _beyond_floor(result: dict[str, Any]) -> float:
    """Mean over the probed stages of a stage's gaps without their signs, each less the first update's: noise is no gap."""
    return float(np.mean([sum(map(abs, gaps)) - len(gaps) * abs(gaps[0]) for gaps in _of_stage(result, "gap")]))


def report(folder: Path, seeds: range, quick: bool) -> dict[str, Any]:
    arms = _by_arm(read(folder, cells(seeds, quick)))
    sizes = sorted({n for _, _, n in arms if n != 5})
    found: dict[str, Any] = {}
    for kind in ("prompts", "tokens"):
        _report_accuracy(kind, arms, sizes, found)
    _report_staleness(arms, sizes, found)
    _report_weights(arms, found)
    write_csv(folder / "scaling.csv", [row for key, runs in arms.items() for row in _rows(key, runs)])
    _plot(folder, arms, sizes)
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
    stages: dict[int, list[float]] = {}
    for update in result["updates"]:
        stages.setdefault(update["stage"], []).append(update["kl"])
    return list(stages.values())


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
    "gap_beyond_floor": _beyond_floor,
    "root_kl": _root_kls,
    "stale_penalty": _stale_penalty,
}


def _report_staleness(arms, sizes: list[int], found: dict[str, Any]):
    print(
        "\nSummed over a stage's updates: D_occ, the signed stale gap with its two parts, and what the bounds charge for "
        "the measured KLs [95 % over seeds]"
    )
    for arm in PROBED_ARMS:
        by_size = {n: list(arms[key].values()) for n in sizes if (key := ("prompts", arm, n)) in arms}
        sums = {name: [[value(run) for run in runs] for runs in by_size.values()] for name, value in SUMS.items()}
        for (n, runs), tv, gap, beyond, roots, penalty in zip(by_size.items(), *sums.values(), strict=True):
            last = [float(np.mean([stage[-1] for stage in _of_stage(run, "tv")])) for run in runs]
            ess = [float(np.mean([stage[-1] for stage in _of_stage(run, "ess")])) for run in runs]
            contexts = [_summed(run, "stale_gap_contexts") for run in runs]
            returns = [_summed(run, "stale_gap_returns") for run in runs]
            floor = [float(np.mean([stage[0] for stage in _of_stage(run, "gap")])) for run in runs]
            print(
                f"{arm:<17} n={n}: D_occ {show(interval(tv))}, of the last agent {np.mean(last):.3f}, its ESS "
                f"{np.mean(ess):.3f}; gap {show(interval(gap), 4)} = contexts {show(interval(contexts), 4)} + "
                f"returns {show(interval(returns), 4)}; at the first update {show(interval(floor), 4)}; without signs and "
                f"less the floor {show(interval(beyond), 4)}; root KLs {show(interval(roots))}, stale penalty "
                f"{show(interval(penalty))}"
            )
            found[f"tv_{arm}_n{n}"] = round(float(np.mean(tv)), 4)
            found[f"gap_{arm}_n{n}"] = round(float(np.mean(gap)), 5)
        for name, values in sums.items():
            if len(sizes) == len(values) > 1:
                fitted = exponent(sizes, values)
                print(f"{arm:<17} exponent in n of the summed {name}: {show(fitted, 2) if fitted else NO_EXPONENT}")
                found[f"exponent_{name}_{arm}"] = [round(value, 2) for value in fitted] if fitted else None


NO_EXPONENT = "none can be fitted, since it cannot be told from 0 at every size"


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


def _plot(folder: Path, arms, sizes: list[int]):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(20, 4.5), constrained_layout=True)
    colors = {"full": "tab:blue", "speculative": "tab:red", "stale": "tab:gray", "stale_no_radius": "tab:orange"}
    panels = [
        ("prompts", final_accuracy, "accuracy, equal prompts"),
        ("tokens", final_accuracy, "accuracy, equal tokens"),
    ]
    panels += [("prompts", lambda run: _summed(run, "tv"), "D_occ, summed over a stage")]
    panels += [("prompts", lambda run: _summed(run, "gap"), "signed stale gap, summed over a stage")]
    for axis, (kind, value, title) in zip(axes, panels, strict=True):
        for arm, color in colors.items():
            there = [n for n in sizes if arms.get((kind, arm, n))]
            if not there or ("summed" in title and arm not in PROBED_ARMS):
                continue
            stats = [interval([value(run) for run in arms[(kind, arm, n)].values()]) for n in there]
            mean, low, high = zip(*stats, strict=True)
            axis.plot(there, mean, ".-", color=color, label=arm)
            axis.fill_between(there, low, high, color=color, alpha=0.15)
        axis.set(xlabel="agents", title=title)
        axis.legend()
    figure.savefig(folder / "scaling.png", dpi=100)
