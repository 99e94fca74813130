"""
The arms of team_tasks.py: their teams, warmed up on the hints, their data, and their trainers.
"""

from pathlib import Path
from typing import Any

import numpy as np

from . import hints
from . import small_language_model as small
from .arms import UNDIVIDED
from .cell import Cell


HELD_OUT = 48
WARM_UP, ROWS = 10, 16  # steps of a member, and conversations in a step
SYSTEM = "Question: 2 + 6\n\nsolver: 8"
CHECKED = f"{SYSTEM}\n\nchecker: 8"
REVERSED = {"resampling": "suffix", "update_order": "reversed"}
ALL = {"resampling": "full"}

# Settings of the trainer; the arms of a task are compared with the first
ARMS: dict[str, dict[str, Any]] = {
    "hints_team": REVERSED,
    "hints_single": ALL,
    "sums_team": REVERSED,
    "sums_single": ALL,
    "sums_context": ALL,
    "sums_frozen_solver": ALL,
    "sums_frozen_checker": ALL,
    "sums_order": ALL,
    "sums_undivided": REVERSED | UNDIVIDED,
    "sums_turn": ALL | UNDIVIDED | {"advantage_group": "turn"},
}
WARM_UPS = {"hints_team": 1, "hints_single": 2}  # times the warm-up of a member
FROZEN = {"sums_frozen_solver": "solver", "sums_frozen_checker": "checker"}
SINGLE = ("single", "context")


def is_single(arm: str) -> bool:
    return arm.endswith(SINGLE)


def make_team(arm: str, seed: int, folder: Path, smoke: bool) -> list:
    from trl_teamtr import Agent

    if arm.startswith("hints"):
        return warm_up(arm, WARM_UPS[arm], seed, folder, smoke)
    model, lora = small.save_model(folder, smoke), small.make_lora(small.RANK, smoke)
    if arm == "sums_context":
        prompts = {"checker": CHECKED}
    else:
        prompts = {"solver": SYSTEM} if is_single(arm) else {"solver": CHECKED, "checker": CHECKED}
    frozen = FROZEN.get(arm)
    return [
        Agent(name, model, system_prompt=text, peft_config=lora, trainable=name != frozen)
        for name, text in prompts.items()
    ]


def warm_up(arm: str, times: int, seed: int, folder: Path, smoke: bool) -> list:
    """A team, or a single agent; each member with so many times [`WARM_UP`] steps."""
    single = is_single(arm)
    prompts = {hints.MEMBERS[0]: hints.ALONE} if single else hints.EXAMPLE
    steps = 1 if smoke else WARM_UP * times
    rows = hints.make_dataset(steps * (2 if smoke else ROWS), 2 * 10**6 + seed, single)
    return [
        small.warm_up(name, text, [hints.demonstrate(row, name, single) for row in rows], steps, seed, folder, smoke)
        for name, text in prompts.items()
    ]


def make_data(arm: str, seed: int, smoke: bool) -> tuple[Any, Any]:
    size, held_out = (40, 4) if smoke else (2000, HELD_OUT)
    if arm.startswith("hints"):
        return (
            hints.make_dataset(size, seed, is_single(arm)),
            hints.make_dataset(held_out, 10**6 + seed, is_single(arm)),
        )
    train, others = small.make_sums(held_out, seed)
    cue = {"sums_single": ask_solver, "sums_context": ask_checker}.get(arm)
    return (train.map(cue), others.map(cue)) if cue else (train, others)


def ask_solver(row: dict[str, Any]) -> dict[str, Any]:
    """A team of one has no cue of its own."""
    return {"agent_prompts": {"solver": "solver:"}}


def ask_checker(row: dict[str, Any], low: int = 0, high: int = 18) -> dict[str, Any]:
    """With a number in place of what a solver says, which is seldom right."""
    number = np.random.default_rng(sum(map(ord, row["prompt"]))).integers(low, high, endpoint=True)
    return {"agent_prompts": tell(number)}


def tell(number: int) -> dict[str, str]:
    return {"checker": f"solver: {number}\n\nchecker:"}


def make_trainer(cell: Cell, folder: Path, team: list | None = None, **settings: Any):
    from trl_teamtr.tasks.reasoning_gym import reasoning_gym_reward

    hinted = cell.arm.startswith("hints")
    trained = 1 if cell.arm in FROZEN else cell.agents
    own = {
        "seed": cell.seed,
        "prompts": cell.prompts,
        "num_stages": cell.stages * (2 // trained),
        "max_completion_length": 6 if hinted else small.SETTINGS["max_completion_length"],
        "eval_on_start": True,
        "eval_steps": 2,
        "eval_delay": 2 * (cell.stages - 3) + 1,  # the last three stages
    }
    return small.make_trainer(
        team or make_team(cell.arm, cell.seed, folder, cell.smoke),
        make_data(cell.arm, cell.seed, cell.smoke),
        hints.score_pairs if hinted else reasoning_gym_reward,
        folder / "trainer",
        cell.smoke,
        **own | ARMS[cell.arm] | settings,
    )
