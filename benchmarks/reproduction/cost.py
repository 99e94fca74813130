"""
What the diagnostics cost: the same stages with and without them, in turns, in one process.

By default every tenth stage is measured; the ratio is of ten stages, one of them measured, to ten without.
"""

import statistics
import time
from pathlib import Path
from typing import Any

from .cell import Cell, make_trainer, prepare_team, shrink


AGENTS, PROMPTS = 3, 24


def cells(seeds: range, size: str) -> list[Cell]:
    return []  # timed here, alone on the machine


def report(folder: Path, seeds: range, size: str) -> dict[str, Any]:
    from transformers import TrainerCallback

    from trl_teamtr import TeamTRConfig
    from trl_teamtr.diagnostics.callback import DiagnosticsCallback
    from trl_teamtr.diagnostics.probes import make_probes

    class Clock(TrainerCallback):
        """Seconds of each stage."""

        def __init__(self):
            self.seconds: list[float] = []

        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step % AGENTS == 0:
                self.begin = time.perf_counter()

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step % AGENTS == 0:
                self.seconds.append(time.perf_counter() - self.begin)

    stages, found, every = 10 if size == "full" else 2, {}, TeamTRConfig.diagnostics_every
    arms, probes = ("full", "speculative"), ("occupancy", "certificate", "both")
    if size == "smoke":
        arms, probes = arms[1:], probes[2:]
    for arm in arms:
        (cell,), seconds = shrink([Cell(arm, AGENTS, PROMPTS, 0, stages)], size), {}
        for name in ("off", *probes):
            trainer, clock = make_trainer(cell, prepare_team(0, folder, size), folder / "trainer"), Clock()
            trainer.args.eval_strategy, trainer.args.eval_on_start = "no", False
            trainer.args.log_occupancy = name in ("occupancy", "both")
            trainer.args.log_certificate = name in ("certificate", "both")
            trainer.args.diagnostics_every = 1
            if name != "off":
                trainer.add_callback(DiagnosticsCallback(trainer, make_probes(trainer, trainer.eval_dataset)))
            trainer.add_callback(clock)
            trainer.train()
            seconds[name] = statistics.median(clock.seconds[1:])
        for name in probes:
            measured = seconds[name] / seconds["off"]
            found[f"{arm}_{name}"] = round(1 + (measured - 1) / every, 3)
            print(
                f"{arm:<12} {name:<12} a measured stage takes {measured:.2f} times one without; with every {every}th stage "
                f"measured, {found[f'{arm}_{name}']:.3f} times"
            )
    return found
