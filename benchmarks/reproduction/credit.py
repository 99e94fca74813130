"""
Groups by turn (`credit="suffix"`) against groups by rollout with full, suffix and speculative resampling: at equal prompts, and
at about the decoded tokens of full resampling, for LINK teams of several sizes.

No arm divides its advantages, so that the gradients of all have the same mean. Planned before the runs: 16 seeds, with which a
difference of 0.05 to 0.09 is found in 80 of 100 studies at the spread of "scaling" (benchmarks/power.py); looks as there.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from .arms import BASE
from .cell import Cell, read, shrink
from .light import keep
from .statistics import (
    accuracy_differences,
    final_accuracy,
    holm,
    interval,
    p_value,
    show,
    write_csv,
)


SIZES, PROMPTS, STAGES, LATE = (2, 3, 6), 24, 10, 6
REFERENCE = "undivided"
ARMS = (REFERENCE, "turn", "undivided_suffix", "undivided_speculative")


def prompts_of(arm: str, agents: int, kind: str) -> int:
    """Prompts per stage of an arm, at equal `"prompts"` or about equal `"tokens"`; messages are of one length."""
    if kind == "prompts" or arm == REFERENCE:
        return PROMPTS
    group, full = BASE["num_generations"], agents**2
    messages = {
        "turn": sum(before + group * (agents - before) for before in range(agents)) / group,
        "undivided_suffix": agents + agents * (agents - 1) / 2,
        "undivided_speculative": agents * PROMPTS / (PROMPTS - 2),  # as in the study "scaling"
    }
    return round(PROMPTS * full / messages[arm])


def cells(seeds: range, size: str) -> list[Cell]:
    sizes, arms = (SIZES, ARMS) if size == "full" else (SIZES[:2] if size == "quick" else SIZES[:1], ARMS[:2])
    stages, kinds = (STAGES, ("prompts", "tokens")) if size == "full" else (2 if size == "quick" else 1, ("tokens",))
    found = [
        Cell(arm, agents, prompts_of(arm, agents, kind), seed, stages, late=LATE if size == "full" else 0)
        for seed in seeds
        for agents in sizes
        for kind in kinds
        for arm in arms
    ]
    return shrink(dict.fromkeys(found), size)


def report(folder: Path, seeds: range, size: str) -> dict[str, Any]:
    runs: dict[tuple[int, str, str], list[dict[str, Any]]] = {}
    for cell, result in read(folder, cells(seeds, size)):
        for kind in ("prompts", "tokens"):
            if cell.prompts == prompts_of(cell.arm, cell.agents, kind):
                runs.setdefault((cell.agents, kind, cell.arm), []).append(result)
    others = [key for key in runs if key[2] != REFERENCE]
    paired = {key: accuracy_differences(runs[key], runs.get((key[0], key[1], REFERENCE), [])) for key in others}
    p_values = {str(key): p_value(values) if len(values) > 1 else math.nan for key, values in paired.items()}
    corrected = holm(p_values)
    print(
        f"\nLINK, {PROMPTS} prompts x {BASE['num_generations']} per stage or about as many decoded tokens as full resampling takes for "
        f"them. Accuracy [95 % over seeds]: mean of the last three evaluations; its difference from {REFERENCE!r} of the same seeds, p of "
        "the t-test,\nand after Holm's correction for all comparisons"
    )
    found, rows = {}, []
    for key, own in sorted(runs.items()):
        agents, kind, arm = key
        line = f"n = {agents}, equal {kind:<7}  {arm:<22} {show(interval([final_accuracy(run) for run in own]))}"
        line += f"  tokens/stage {np.mean([run['tokens'] for run in own]):6.0f}  ({len(own)} seeds)"
        if paired.get(key):
            line += f"  {show(interval(paired[key]))}  {p_values[str(key)]:.3f} {corrected[str(key)]:.3f}"
            found[f"{arm}_n{agents}_{kind}"] = [round(value, 4) for value in interval(paired[key])]
        print(line)
        rows += [
            {"n": agents, "equal": kind, "arm": arm, "seed": run["cell"]["seed"], "accuracy": final_accuracy(run)}
            | {"tokens_per_stage": float(np.mean(run["tokens"]))}
            for run in own
        ]
    write_csv(folder / "credit.csv", rows)
    keep("credit", cells(seeds, size), folder)
    return found
