"""
Cells of studies that need many runs: of each run the curve, the tokens and the seconds are kept, in a line of a file that is
committed, so that a study goes on where it was left on any machine.
"""

import gc
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerCallback

from .cell import Cell, make_trainer, prepare_team, write_whole


SMALLEST_TEAM = 3  # smaller teams are the beginning of its chain
KEPT = Path(__file__).resolve().parents[2] / "docs" / "results" / "reproduction"


def team_size(cell: Cell) -> int:
    """Of the warmed-up team that a cell begins with."""
    return max(SMALLEST_TEAM, cell.agents)


class TrainingClock(TrainerCallback):
    """
    The processor's seconds that each stage takes, without evaluations; other processes beside this one do not count.

    Args:
        agents (`int`): Updates of a stage.
    """

    def __init__(self, agents: int):
        self.seconds: list[float] = []
        self._agents, self._last = agents, 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        self._last = time.process_time()

    def on_evaluate(self, args, state, control, **kwargs):
        self._last = time.process_time()

    def on_step_end(self, args, state, control, **kwargs):
        now = time.process_time()
        if (state.global_step - 1) % self._agents == 0:
            self.seconds.append(0.0)
        self.seconds[-1] += now - self._last
        self._last = now


def run_cell(cell: Cell, folder: Path):
    """Train the cell's team; write its curve, and the tokens, the seconds and the share of updates out of the region by stage."""
    gc.set_threshold(1_000_000)  # thousands of transcripts, and no cycles among them
    trainer = make_trainer(cell, prepare_team(cell.seed, folder, cell.size, team_size(cell)), folder / "trainer")
    clock = TrainingClock(cell.agents)
    trainer.add_callback(clock)
    trainer.train()
    logs = trainer.state.log_history
    updates = [log for log in logs if "rollout/messages" in log]
    result = {
        "cell": vars(cell),
        "curve": [[log["step"] // cell.agents, log["eval_reward"]] for log in logs if "eval_reward" in log],
        "tokens": by_stage([log["rollout/tokens_decoded"] for log in updates], cell.agents, np.sum),
        "seconds": [round(seconds, 2) for seconds in clock.seconds],
        "reward": by_stage([log["reward"] for log in updates], cell.agents, lambda each: each[0]),
        "outside": by_stage([log.get("out_of_region_rate", 0.0) for log in updates], cell.agents, np.mean),
    }
    write_whole(cell.path(folder), result)


def by_stage(values: list[float], agents: int, reduce) -> list[float]:
    """`values` of updates, reduced to one for each stage."""
    return [round(float(reduce(values[first : first + agents])), 4) for first in range(0, len(values), agents)]


def restore(study: str, cells: list[Cell], folder: Path):
    """Write into `folder` those of `cells` that are committed, and not there."""
    wanted = {cell.name: cell.path(folder) for cell in cells}
    path = KEPT / f"{study}.jsonl"
    for line in path.read_text().splitlines() if path.exists() else []:
        target = wanted.get(Cell(**as_fields(json.loads(line)["cell"])).name)
        if target is not None and not target.exists():
            target.write_text(line)


def as_fields(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a [`Cell`], as they are in JSON."""
    return given | {"probed": tuple(given["probed"])}


def keep(study: str, cells: list[Cell], folder: Path):
    """Write what there is of `cells` into one file, a line for each, to be committed."""
    lines = [path.read_text() for cell in cells if (path := cell.path(folder)).exists()]
    (folder / f"{study}.jsonl").write_text("".join(f"{line}\n" for line in lines))
