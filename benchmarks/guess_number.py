"""
Whether a team learns to tell each other what it takes: guess-a-number with split hints (docs/worlds.md), in which no agent
alone can be right more than half of the time.

    python benchmarks/guess_number.py runs/guess_number            # five seeds, two arms
    python benchmarks/guess_number.py runs/guess_number --summary  # table and plot of what is there
    python benchmarks/guess_number.py runs/quick --quick           # one seed, 4 stages
    python benchmarks/guess_number.py runs/smoke --smoke           # seconds, in one process: says only that it runs

Arms: `team`, an agent that hears the digits in the right place (`a`) and one that hears the others and answers (`b`);
`alone`, the model of `b`, which is told the hints of `a` and hears nobody. It has twice the prompts per stage, since it says
one message where the team says two, and twice the stages, since one agent is updated where the team updates two: about equal
decoded tokens, which the table prints.
Within a seed all arms start from the same weights; all have the same tasks, learning rate, radius and passes.

Each cell (arm, seed) writes its own file in the folder and is not run again, so that the whole can be stopped and gone on
with at any time. Success is the share of held-out tasks whose number the last message says; no held-out task, guesses and
hints, is among those of the warm start or the training. Intervals are Student's 95 % intervals over seeds. Prints the table
and one JSON object last.
"""

import argparse
import json
import os
from pathlib import Path

from learning_cells import (
    add_cell_options,
    choose_cells,
    keep,
    plot_curves,
    print_command,
    print_end,
    print_table,
    read_cells,
    run_missing,
    train_cell,
)
from quiet import QUIET
from size import add_size


os.environ.setdefault("OMP_NUM_THREADS", "1")  # cells run side by side
os.environ["CI"] = "1"  # no telemetry

ARMS = ("team", "alone")
LONE_HINTS = "a"  # whose hints the lone agent is told
PROMPTS, GROUP, STAGES, EVALUATED_EVERY, ROWS, HELD_OUT = 24, 8, 20, 4, 6000, 64
EVALUATED, TRANSCRIPTS = 4, 4  # rollouts of each held-out row in an evaluation; of those shown
LAST = 3  # evaluations whose mean is the end


def make_data(size: str):
    """Rows to train on and held-out rows, the same for all seeds."""
    from guess_number_start import TASK

    from trl_teamtr.tasks.loading import hold_out, load_split

    return hold_out(load_split("guess_number", "train", 300 if size == "smoke" else ROWS, 0, **TASK), HELD_OUT, 0)


def only(rows, owner: str):
    """The rows with the hints of `owner` alone, told to `b`."""
    from datasets import Dataset

    return Dataset.from_list([row | {"agent_prompts": {"b": row["agent_prompts"][owner]}} for row in rows])


def make_trainer(arm: str, seed: int, stages: int, size: str, folder: Path):
    from transformers.trainer_callback import PrinterCallback

    from trl_teamtr import Agent, TeamTRConfig, TeamTRTrainer
    from trl_teamtr.tasks.guess_number.reward import guess_number_reward

    train, held_out = make_data(size)
    if arm != "team":
        train, held_out = only(train, LONE_HINTS), only(held_out, LONE_HINTS)
    if size == "smoke":
        held_out = held_out.take(8)
    names = "ab" if arm == "team" else "b"
    group, prompts = (2, 4) if size == "smoke" else (GROUP, PROMPTS * (1 if arm == "team" else 2))
    args = TeamTRConfig(
        str(folder / "trainer"),
        seed=seed,
        num_stages=stages * (1 if arm == "team" else 2),
        resampling="full",
        per_device_train_batch_size=group * prompts,
        num_generations=group,
        max_completion_length=3,
        num_iterations=4,
        learning_rate=1.5e-3,
        lr_scheduler_type="constant",
        adam_beta2=0.9,
        trust_region_radius=0.2,
        kl_estimator="exact",
        kl_coef=0.03,
        logging_steps=1,
        eval_strategy="steps",
        eval_on_start=True,
        eval_steps=EVALUATED_EVERY,
        per_device_eval_batch_size=EVALUATED * len(held_out),
        num_generations_eval=EVALUATED,
        **QUIET,
    )
    team = [Agent(name, str(folder / f"team_{seed}" / name)) for name in names]
    trainer = TeamTRTrainer(team, guess_number_reward, args, train_dataset=train, eval_dataset=held_out)
    trainer.remove_callback(PrinterCallback)
    return trainer


def run_cell(arm: str, seed: int, stages: int, size: str, folder: Path):
    """Train one arm; write its held-out curve, its tokens and some transcripts before and after."""
    from trl_teamtr.cli.quickstart import sample_transcripts

    trainer = make_trainer(arm, seed, stages, size, folder)
    secrets = [trainer.eval_dataset[i]["secret"] for i in range(TRANSCRIPTS)]
    train_cell(trainer, arm, seed, lambda: sample_transcripts(trainer, TRANSCRIPTS), folder, secrets=secrets)


def prepare(seed: int, size: str, folder: Path):
    """The models of a seed."""
    from guess_number_start import save_base, save_start

    rows = list(make_data(size)[0])
    save_base(folder / "base", rows, size)
    save_start(folder / f"team_{seed}", folder / "base", rows, seed, size)


# Summary


def summarize(folder: Path, seeds: range, size: str) -> dict:
    runs = read_cells(folder, ARMS, seeds)
    found = {"base": describe_base(folder, size)}
    print("held-out success: at the start, at the end (mean of the last three evaluations), and the differences")
    found |= print_table(runs, LAST)
    keep(folder, runs)
    plot(folder, runs)
    write_transcripts(folder, runs["team"])
    return found


def describe_base(folder: Path, size: str) -> dict:
    """Print how many tasks there are, and how many of them the base solves if `a` says what it was told."""
    from guess_number_start import share_solved

    found = {}
    for name, rows in zip(("shown", "held out"), make_data(size), strict=True):
        distinct = list({json.dumps(row["agent_prompts"]): row for row in rows}.values())
        found[name] = {"tasks": len(distinct), "solved": round(share_solved(folder / "base", distinct), 4)}
        print(f"{name}: {len(distinct)} tasks; the base, which is told both parts, solves {found[name]['solved']:.3f}")
    return found


def plot(folder: Path, runs: dict[str, dict[int, dict]]):
    """Held-out success over decoded tokens."""
    line = (0.5, "most that an agent alone can have")
    plot_curves(folder / "guess_number.png", runs, "Guess-a-number with split hints", line)


def write_transcripts(folder: Path, runs: dict[int, dict]):
    """The team's held-out rollouts before and after, of each seed."""
    lines = []
    for seed, run in runs.items():
        for i, secret in enumerate(run["secrets"]):
            lines.append(f"seed {seed}, secret {secret}: {run['before'][i]['private']}")
            lines += [f"  {when}: {'; '.join(run[when][i]['messages'])}" for when in ("before", "after")]
    (folder / "transcripts.txt").write_text("\n".join(lines) + "\n")


def main(options):
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    if options.team is not None:
        return prepare(options.team, options.size, folder)
    if options.cell:
        return run_cell(options.cell[0], int(options.cell[1]), options.stages, options.size, folder)
    seeds, stages = choose_cells(options)
    if not options.summary:
        run_missing(__file__, options, ARMS, seeds, stages, lambda line: main(make_parser().parse_args(line)))
    print_command(__file__)
    print_end(summarize(folder, seeds, options.size), options, stages, seeds)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="where the cells' results go")
    add_size(parser)
    add_cell_options(parser, STAGES)
    return parser


if __name__ == "__main__":
    main(make_parser().parse_args())
