"""
Ablations on LINK with three agents (the paper's Tables 2b and 9), the update orders, and how often updates leave the
region: on the rollouts that they are trained on, and on others.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .cell import HELD_OUT_KL_AGENTS, Cell, read, shrink
from .scaling import PROBED, PROMPTS, SHORT
from .statistics import (
    final_accuracy,
    interval,
    regression_rate,
    report_differences,
    show,
    signed_gap,
    stability,
    tokens_per_stage,
    write_csv,
)


AGENTS = HELD_OUT_KL_AGENTS
ABLATIONS = (
    "full",
    "adaptive_kl_only",
    "fixed_kl_only",
    "every_2",
    "importance",
    "stale",
    "no_radius",
    "stale_no_radius",
    "radius_tenth",
    "radius_tenfold",
    "no_normalisation",
    "no_advantage_clip",
    "reversed",
    "random_order",
    "stale_reversed",
)
LARGE_STEPS = ("large_steps_full", "large_steps_stale", "large_steps_no_radius", "large_steps_stale_no_radius")
REGIONS = ("full", "monitored", "grpo", "dapo", "ppo_clip")


def cells(seeds: range, size: str) -> list[Cell]:
    short = size != "full"
    ablations = ("full", "stale", "no_radius")[: 3 if size == "quick" else 2] if short else ABLATIONS
    regions = ("full", "grpo") if short else REGIONS
    stages, probed = (10, PROBED) if size == "full" else SHORT[size]
    found = []
    for seed in seeds:
        found += [Cell(arm, AGENTS, PROMPTS, seed, stages, probed) for arm in ablations]
        found += [Cell(arm, AGENTS, PROMPTS, seed, stages) for arm in regions if arm not in ablations]
    if not short:
        found += [Cell(arm, AGENTS, PROMPTS, seed, stages) for seed in seeds for arm in LARGE_STEPS]
    return shrink(found, size)


def _probed(run: dict[str, Any], value: Callable[[dict[str, Any]], float]) -> float:
    """Mean of a value over the probed updates but a stage's first."""
    return float(np.mean([value(u) for u in run["updates"] if "occupancy/tv" in u and u["position"] > 0]))


def _gap(run: dict[str, Any]) -> float:
    return _probed(run, signed_gap)


def _shift(run: dict[str, Any]) -> float:
    return _probed(run, lambda update: update["occupancy/tv"])


def _out_of_region(run: dict[str, Any], name: str) -> float:
    return float(np.mean([update[name] for update in run["updates"] if name in update]))


def report(folder: Path, seeds: range, size: str) -> dict[str, Any]:
    arms: dict[str, list[dict[str, Any]]] = {}
    for cell, result in read(folder, cells(seeds, size)):
        arms.setdefault(cell.arm, []).append(result)
    found: dict[str, Any] = {}
    print(
        f"\nLINK, n = {AGENTS}, {PROMPTS} prompts x 8 per stage [95 % over seeds]. Accuracy: mean of the last three "
        "evaluations; stability: standard deviation of the last six;\nregressions: share of falling evaluations; stale "
        "gap: signed, per update after a stage's first; coordination does not apply to LINK, where no message holds the answer"
    )
    rows = []
    for arm in (*ABLATIONS, *(arm for arm in REGIONS if arm not in ABLATIONS), *LARGE_STEPS):
        runs = arms.get(arm)
        if not runs:
            continue
        accuracy, spread = interval([final_accuracy(run) for run in runs]), interval([stability(run) for run in runs])
        gap, shift = ([of(run) for run in runs] if _is_probed(runs[0]) else [] for of in (_gap, _shift))
        inside, outside = (
            interval([_out_of_region(run, name) for run in runs])
            for name in ("out_of_region_rate", "out_of_region_rate_heldout")
        )
        kl = float(np.mean([update["kl"] for run in runs for update in run["updates"] if "kl" in update]))
        print(
            f"{arm:<27} accuracy {show(accuracy)}  stability {show(spread)}  regressions "
            f"{np.mean([regression_rate(run) for run in runs]):.2f}  stale gap "
            f"{show(interval(gap), 4) if gap else '-':<24}  D_occ {show(interval(shift)) if shift else '-':<20}  "
            f"out of region {inside[0]:.3f}, held out {show(outside)}  kl "
            f"{kl:.3f}  start {np.mean([run['curve'][0][1] for run in runs]):.3f}  tokens/stage {np.mean([tokens_per_stage(run) for run in runs]):.0f}  ({len(runs)} seeds)"
        )
        found[arm] = {
            "accuracy": round(accuracy[0], 4),
            "stability": round(spread[0], 4),
            "out_of_region": round(inside[0], 4),
            "out_of_region_heldout": round(outside[0], 4),
        } | ({"stale_gap": round(float(np.mean(gap)), 5), "d_occ": round(float(np.mean(shift)), 4)} if gap else {})
        rows += [
            {"arm": arm, "seed": run["cell"]["seed"], "accuracy": final_accuracy(run), "stability": stability(run)}
            | {"out_of_region": _out_of_region(run, "out_of_region_rate")}
            | {"out_of_region_heldout": _out_of_region(run, "out_of_region_rate_heldout")}
            | {"regression_rate": regression_rate(run), "stale_gap": _gap(run) if _is_probed(run) else None}
            | {"occupancy_shift": _shift(run) if _is_probed(run) else None}
            for run in runs
        ]
    report_differences(arms, found, lambda arm: LARGE_STEPS[0] if arm in LARGE_STEPS else "full")
    write_csv(folder / "ablations.csv", rows)
    return found


def _is_probed(run: dict[str, Any]) -> bool:
    return any("occupancy/tv" in update for update in run["updates"])
