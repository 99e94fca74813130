"""
Whether a team learns to act together with tools: the service desk (docs/worlds.md), in which an assistant and a user call tools on
one database, and neither can serve alone.

    python benchmarks/service_desk.py runs/service_desk            # five seeds
    python benchmarks/service_desk.py runs/service_desk --summary  # table, plot and transcripts of what is there
    python benchmarks/service_desk.py runs/quick --quick           # one seed, 4 stages
    python benchmarks/service_desk.py runs/smoke --smoke           # seconds, in one process: says only that it runs

Both agents are trained, each with its own weights. They start from models that know the service and overlook much of it
(benchmarks/service_desk_start.py). Rollouts are resampled speculatively, and where one changes, its database is restored from a
snapshot.

Each seed writes its own file in the folder and is not run again, so that the whole can be stopped and gone on with at any time.
Success is the share of held-out tasks whose database is right in the end and whose question was answered; no held-out task, number
and question, is among those of the warm start or the training. Intervals are Student's 95 % intervals over seeds. Prints the table
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

ARMS = ("team",)
PROMPTS, GROUP, STAGES, EVALUATED_EVERY, ROWS, HELD_OUT = 16, 8, 6, 2, 6000, 64
EVALUATED, TRANSCRIPTS = 4, 4  # rollouts of each held-out row in an evaluation; of those shown
LAST = 1  # evaluations whose mean is the end


def make_data(size: str):
    """Rows to train on and held-out rows, the same for all seeds."""
    from service_desk_start import TASK

    from trl_teamtr.tasks.loading import hold_out, load_split

    rows = load_split("service_desk", "train", 300 if size == "smoke" else ROWS, 0, **TASK)
    return hold_out(rows, 8 if size == "smoke" else HELD_OUT, 0)


def make_trainer(seed: int, stages: int, size: str, folder: Path):
    from service_desk_start import GAME
    from transformers.trainer_callback import PrinterCallback

    from trl_teamtr import Agent, TeamTRConfig, TeamTRTrainer
    from trl_teamtr.tasks.service_desk.reward import service_desk_reward

    train, held_out = make_data(size)
    group, prompts = (2, 4) if size == "smoke" else (GROUP, PROMPTS)
    args = TeamTRConfig(
        str(folder / "trainer"),
        seed=seed,
        num_stages=stages,
        resampling="speculative",
        per_device_train_batch_size=group * prompts,
        num_generations=group,
        num_iterations=4,
        learning_rate=5e-4,
        lr_scheduler_type="constant",
        adam_beta2=0.9,
        trust_region_radius=0.2,
        kl_coef=0.03,
        logging_steps=1,
        eval_strategy="steps",
        eval_on_start=True,
        eval_steps=EVALUATED_EVERY * len(GAME.tools),
        per_device_eval_batch_size=EVALUATED * len(held_out),
        num_generations_eval=EVALUATED,
        **GAME.options,
        **QUIET,
    )
    team = [Agent(name, str(folder / f"team_{seed}" / name), tools=tools) for name, tools in GAME.tools.items()]
    trainer = TeamTRTrainer(
        team,
        service_desk_reward,
        args,
        train_dataset=train,
        eval_dataset=held_out,
        environment_factory=GAME.environment,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def sample_transcripts(trainer) -> list[dict]:
    """Rollouts of the first held-out rows: what was called, with its results, and what was said."""
    from scripted_agents import note_messages
    from service_desk_start import share_solved

    from trl_teamtr.policy.evaluating import evaluating

    found = []
    for row in trainer.eval_dataset.take(TRANSCRIPTS).to_list():
        with evaluating([member.model for member in trainer.members]):
            rollouts = trainer.team.collect([row])
        found.append({"reward": share_solved(rollouts, [row]), "messages": note_messages(rollouts.transcripts[0])})
    return found


def run_cell(seed: int, stages: int, size: str, folder: Path):
    """Train one team; write its held-out curve, its tokens and some transcripts before and after."""
    trainer = make_trainer(seed, stages, size, folder)
    cases = [json.loads(row["case"]) for row in trainer.eval_dataset.take(TRANSCRIPTS).to_list()]
    tasks = [
        {"number": case["number"], "question": case["question"], "reference": [call[1] for call in case["reference"]]}
        for case in cases
    ]
    train_cell(trainer, ARMS[0], seed, lambda: sample_transcripts(trainer), folder, tasks=tasks)


# Summary


def summarize(folder: Path, seeds: range, size: str) -> dict:
    runs = read_cells(folder, ARMS, seeds)
    found = {"held out": describe_players(folder, size)}
    print("held-out success: at the start, at the end (the last evaluation), and the difference")
    found |= print_table(runs, LAST)
    keep(folder, runs)
    plot(folder, runs)
    write_transcripts(folder, runs[ARMS[0]])
    return found


def describe_players(folder: Path, size: str) -> dict:
    """Print how the scripted agents and the base fare on the held-out rows."""
    from service_desk_start import CARELESS, GAME, share_solved

    rows = make_data(size)[1].to_list() * EVALUATED
    found = {
        "scripted": share_solved(GAME.play(rows, 0.0, 0), rows),
        "scripted, careless": share_solved(GAME.play(rows, CARELESS, 0), rows),
        "base": share_solved(GAME.play_with(folder / "base", rows), rows),
    }
    print(", ".join(f"{name} {share:.3f}" for name, share in found.items()), f"({len(rows)} held-out rollouts each)")
    return {name: round(share, 4) for name, share in found.items()}


def plot(folder: Path, runs: dict[str, dict[int, dict]]):
    """Held-out success over decoded tokens."""
    plot_curves(folder / "service_desk.png", runs, "Service desk, with tools on one database")


def write_transcripts(folder: Path, runs: dict[int, dict]):
    """The team's held-out rollouts before and after, of each seed."""
    from scripted_agents import show_messages

    lines = []
    for seed, run in runs.items():
        for i, task in enumerate(run["tasks"]):
            asked = f", asks for {task['question']}" if task["question"] else ""
            lines.append(f"seed {seed}, number {task['number']}{asked}; reference: {', '.join(task['reference'])}")
            for when in ("before", "after"):
                lines.append(f"  {when}, reward {run[when][i]['reward']:g}")
                lines += show_messages(run[when][i]["messages"])
    (folder / "transcripts.txt").write_text("\n".join(lines) + "\n")


def main(options):
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    if options.team is not None:
        from service_desk_start import save_models

        return save_models(folder, make_data(options.size)[0].to_list(), options.team, options.size)
    if options.cell:
        return run_cell(int(options.cell[1]), options.stages, options.size, folder)
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
