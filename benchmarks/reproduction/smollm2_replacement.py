"""
Replacement of a member of a team of SmolLM2-135M-Instruct: the solver of a trained solver and checker, an adapter of rank 8,
gives its place to a fresh adapter of rank 16 on the same base model. Both members were warmed up on conversations in which both are
right, as LINK's teams are, and trained for some stages. The new solver is swapped in directly, or aligned first; the control spends the
alignment's tokens on more stages instead. After the swap both members have new optimizers, also in the team that was never
swapped. The sums that the team is trained on, those of the alignment and the held-out ones are distinct. Three seeds, as the issue
asks; nothing is stopped early.
"""

import os
from pathlib import Path
from typing import Any

from . import small_language_model as small
from .cell import Cell, read, shrink
from .light import keep
from .replacement import curve_rows, report_arms, save_trained, train_on
from .statistics import write_csv


PROMPTS, BEFORE, AFTER, EXTRA = 3, 2, 3, 5  # stages: of the old team, after the swap, and at most of the control
WARM_UP, ROWS = 40, 16  # steps, and conversations in a step
HELD_OUT = 48
NEW_RANK = 16
MEMBERS = ("solver", "checker")
EXAMPLE = "Question: 2 + 6\n\nsolver: 8\n\nchecker: 8"  # the system prompt of both
SWITCHES: dict[str, bool | None] = {"never_swapped": None, "none": False, "aligned": True}  # whether it is aligned
PREFIX = "smollm2_swap_"


def cells(seeds: range, size: str) -> list[Cell]:
    after, extra = (AFTER, EXTRA) if size == "full" else (1, 1)
    found = [
        Cell(PREFIX + arm, 2, PROMPTS, seed, after + (extra if arm == "none" else 0))
        for seed in seeds
        for arm in SWITCHES
    ]
    return shrink(found, size)


def prepare(seed: int, folder: Path, smoke: bool) -> Path:
    """The trained team of a seed, which all its cells share."""
    path = folder / f"smollm2_team_{seed}"
    if not path.exists():
        team = [_warm_up(name, seed, folder, smoke) for name in MEMBERS]
        save_trained(make_trainer(team, seed, folder, 1 if smoke else BEFORE, smoke, eval_delay=2 * BEFORE), path)
    return path


def _warm_up(name: str, seed: int, folder: Path, smoke: bool):
    """A member that was fine-tuned on conversations in which all are right."""
    sums, steps = _sums(seed, smoke)[0], 1 if smoke else WARM_UP
    heard = "\n\nsolver: {answer}" if name == "checker" else ""
    demonstrations = [
        {
            "prompt": f"{EXAMPLE}\n\n{row['prompt']}{heard.format(**row)}\n\n{name}:",
            "completion": f" {row['answer']}",
        }
        for row in (sums[number % len(sums)] for number in range(steps * (2 if smoke else ROWS)))
    ]
    return small.warm_up(name, EXAMPLE, demonstrations, steps, seed, folder, smoke)


def _sums(seed: int, smoke: bool) -> list[Any]:
    """To train on, for the alignment, and held out."""
    return small.make_sums(4 if smoke else HELD_OUT, seed, parts=2)


def make_trainer(team: Any, data_seed: int, folder: Path, stages: int, smoke: bool, **settings: Any):
    from trl_teamtr.tasks.reasoning_gym import reasoning_gym_reward

    train, _, held_out = _sums(data_seed, smoke)
    return small.make_trainer(
        team,
        (train, held_out),
        reasoning_gym_reward,
        folder / "trainer",
        smoke,
        prompts=PROMPTS,
        num_stages=stages,
        resampling="suffix",
        update_order="reversed",
        learning_rate=1e-3,
        eval_steps=2,
        **({"seed": data_seed} | settings),
    )


def swap(cell: Cell, start: Path, folder: Path, aligned: bool) -> tuple[Any, dict[str, Any]]:
    """The team with the new solver, and the report of the replacement."""
    from trl_teamtr import Agent, Team
    from trl_teamtr.replacement import AlignmentConfig, replace_member
    from trl_teamtr.tasks.reasoning_gym import reasoning_gym_reward

    team = Team.from_pretrained(str(start))
    newcomer = Agent("solver", small.save_model(folder, cell.smoke), peft_config=small.make_lora(NEW_RANK, cell.smoke))
    args = AlignmentConfig(
        align=aligned,
        num_probes=8 if cell.smoke else 500,
        learning_rate=small.WARM_UP_RATE,
        num_train_epochs=1 if cell.smoke else 8,
        per_device_train_batch_size=ROWS,
        eval_steps=8,
        use_cpu=True,
        seed=cell.seed,
    )
    _, probes, held_out = _sums(cell.seed, cell.smoke)
    report = replace_member(
        team, "solver", newcomer, probes=probes, args=args, reward_funcs=reasoning_gym_reward, eval_prompts=held_out
    )
    return team, {name: value for name, value in report.as_dict().items() if name != "losses"}


def run_cell(cell: Cell, folder: Path):
    """Swap, and train on; write the report of the swap, the curve, and the tokens of each stage."""
    with small.fast_on_cpus():
        _run(cell, folder)


def _run(cell: Cell, folder: Path):
    from trl_teamtr import load_team

    start, report = prepare(cell.seed, folder, cell.smoke), None
    aligned = SWITCHES[cell.arm.removeprefix(PREFIX)]
    if aligned is not None:
        team, report = swap(cell, start, folder, aligned)
        start = folder / f"{cell.name}.team{os.getpid()}"
        team.save_pretrained(str(start))
    more = {"seed": cell.seed + 500, "eval_on_start": True}
    trainer = make_trainer(load_team(str(start)), cell.seed, folder, cell.stages, cell.smoke, **more)
    train_on(trainer, cell, report, folder)


def report(folder: Path, seeds: range, size: str) -> dict[str, Any]:
    arms: dict[str, dict[int, dict[str, Any]]] = {}
    for cell, result in read(folder, cells(seeds, size)):
        arms.setdefault(cell.arm.removeprefix(PREFIX), {})[cell.seed] = result
    stages = AFTER if size == "full" else 1
    print(
        f"\nSmolLM2-135M-Instruct, the solver of a trained solver and checker replaced: an adapter of rank {small.RANK} by a fresh one of "
        f"rank {NEW_RANK}; accuracy on {HELD_OUT} held-out sums is the mean of the last three of {stages} stages after the swap [95 % "
        "over seeds]"
    )
    found = report_arms(arms, "none", stages, {})
    write_csv(folder / "smollm2_replacement.csv", curve_rows(arms))
    keep("smollm2_replacement", cells(seeds, size), folder)
    return found
