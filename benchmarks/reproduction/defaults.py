"""
The settings that `TeamTRConfig` has a default for, one at a time, around those of the studies: LINK teams of three with speculative
resampling, at two learning rates, the common one and about five times that, which nobody would choose.

Planned before the runs: 16 seeds, as many as those of the study of learning rates, whose runs at these rates are the reference.
"""

from pathlib import Path
from typing import Any

import numpy as np

from .arms import ARMS as ALL
from .cell import Cell, read, shrink
from .learning_rates import AGENTS, LATE, RATES, REFERENCE, STAGES
from .learning_rates import ARMS as PROMPTS
from .light import keep
from .statistics import accuracy_differences, final_accuracy, holm, interval, p_value, show, write_csv


ARMS = (REFERENCE, *(arm for arm in ALL if arm.startswith(f"{REFERENCE}_") and arm not in PROMPTS))
SCALES = (1.0, RATES[5])


def cells(seeds: range, size: str) -> list[Cell]:
    arms, scales = (ARMS, SCALES) if size == "full" else (ARMS[:2], SCALES[:1])
    stages, late = (STAGES, LATE) if size == "full" else (2 if size == "quick" else 1, 0)
    found = [
        Cell(arm, AGENTS, PROMPTS[REFERENCE], seed, stages, scale=scale, late=late)
        for seed in seeds
        for scale in scales
        for arm in arms
    ]
    return shrink(found, size)


def report(folder: Path, seeds: range, size: str) -> dict[str, Any]:
    runs: dict[tuple[float, str], list[dict[str, Any]]] = {}
    for cell, result in read(folder, cells(seeds, size)):
        runs.setdefault((cell.scale, cell.arm), []).append(result)
    pairs = {
        key: accuracy_differences(own, runs.get((key[0], REFERENCE), []))
        for key, own in runs.items()
        if key[1] != REFERENCE
    }
    p_values = {str(key): p_value(each) for key, each in pairs.items() if len(each) > 1}
    corrected = holm(p_values)
    print(
        f"\nLINK, n = {AGENTS}, multiples of the common learning rate: accuracy [95 % over seeds], minus {REFERENCE}, p, and after Holm's "
        f"correction for the {len(p_values)} comparisons; the share of updates out of the region, the processor's seconds per stage"
    )
    found, rows = {}, []
    for key, own in sorted(runs.items()):
        values = [final_accuracy(run) for run in own]
        text = f"{key[0]:5.2f} x  {key[1]:<28} {show(interval(values))}"
        if str(key) in p_values:
            text += f"  {show(interval(pairs[key]))}  {p_values[str(key)]:.3f} {corrected[str(key)]:.3f}"
            found[f"{key[1]} at {key[0]:.2f}"] = [round(value, 4) for value in interval(pairs[key])]
        outside, seconds = (float(np.mean([run[name] for run in own])) for name in ("outside", "seconds"))
        print(f"{text}  {outside:.3f}  {seconds:.2f} s  ({len(own)} seeds)")
        rows += [
            {"arm": key[1], "scale": key[0], "seed": run["cell"]["seed"], "accuracy": value}
            for run, value in zip(own, values, strict=True)
        ]
    write_csv(folder / "defaults.csv", rows)
    keep("defaults", cells(seeds, size), folder)
    return found
