"""
Whether a team learns to play guess-a-number with its tools (docs/worlds.md): both agents guess, and each hears another count, so that
no agent alone finds every number.

    python benchmarks/guess_number_tools.py runs/guess_number_tools            # five seeds, two arms
    python benchmarks/guess_number_tools.py runs/guess_number_tools --summary  # table, plot and transcripts of what is there
    python benchmarks/guess_number_tools.py runs/quick --quick                 # one seed, 4 stages
    python benchmarks/guess_number_tools.py runs/smoke --smoke                 # seconds, in one process: says only that it runs

Arms: `team`, of which `a` hears the digits in the right place and `b` the others; `alone`, the model of `a` with the tools of `a`,
which hears nobody. It has twice the stages, since one agent is updated where the team updates two: no fewer decoded tokens, which
the table prints. Within a seed both arms start from the same weights (benchmarks/guess_number_tools_start.py), and have the same
prompts, learning rate, radius and passes. Rollouts of the team are resampled speculatively, and where one changes, its guesses are
made again.

There are twelve numbers, and all of them are trained on: what is measured is how they are found, not what carries over to others.

Each cell (arm, seed) writes its own file in the folder and is not run again, so that the whole can be stopped and gone on with at
any time. Intervals are Student's 95 % intervals over seeds. Prints the table and one JSON object last.
"""

import argparse
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
PROMPTS, GROUP, STAGES, EVALUATED_EVERY, ROWS = 8, 8, 6, 2, 1200
EVALUATED, TRANSCRIPTS = 8, 4  # rollouts of each number in an evaluation; numbers that are shown
LAST = 1  # evaluations whose mean is the end
BOUND = 7 / 12  # most that an agent alone can have that hears the digits in place; enumerated in the tests of the task


def make_data(size: str) -> tuple[list[dict], list[dict]]:
    """Rows to train on, and one for each number."""
    from guess_number_tools_start import TASK

    from trl_teamtr.tasks.loading import load_split

    rows = load_split("guess_number", "train", 200 if size == "smoke" else ROWS, 0, **TASK).to_list()
    numbers = {row["secret"]: row for row in rows}
    return rows, [numbers[secret] for secret in sorted(numbers)]


def make_trainer(arm: str, seed: int, stages: int, size: str, folder: Path):
    from datasets import Dataset
    from guess_number_tools_start import GAMES, as_played
    from transformers.trainer_callback import PrinterCallback

    from trl_teamtr import Agent, TeamTRConfig, TeamTRTrainer

    game = GAMES[arm]
    train, numbers = (Dataset.from_list(as_played(arm, rows)) for rows in make_data(size))
    group, prompts = (2, 4) if size == "smoke" else (GROUP, PROMPTS)
    slower = len(GAMES["team"].tools) // len(game.tools)
    args = TeamTRConfig(
        str(folder / "trainer"),
        seed=seed,
        num_stages=stages * slower,
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
        eval_steps=EVALUATED_EVERY * slower * len(game.tools),
        per_device_eval_batch_size=EVALUATED * len(numbers),
        num_generations_eval=EVALUATED,
        **game.options,
        **QUIET,
    )
    team = [Agent(name, str(folder / f"team_{seed}" / name), tools=tools) for name, tools in game.tools.items()]
    trainer = TeamTRTrainer(
        team, [], args, train_dataset=train, eval_dataset=numbers, environment_factory=game.environment
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def sample_transcripts(trainer) -> list[dict]:
    """Rollouts of some numbers: what was called, with its results, and what was said."""
    from guess_number_tools_start import share_solved
    from scripted import note_messages

    from trl_teamtr.policy.evaluating import evaluating

    found = []
    for row in trainer.eval_dataset.shuffle(0).take(TRANSCRIPTS).to_list():
        with evaluating([member.model for member in trainer.members]):
            rollouts = trainer.team.collect([row])
        reward = share_solved(rollouts)
        found.append({"secret": row["secret"], "reward": reward, "messages": note_messages(rollouts.transcripts[0])})
    return found


def run_cell(arm: str, seed: int, stages: int, size: str, folder: Path):
    """Train one arm; write its curve, its tokens and some transcripts before and after."""
    trainer = make_trainer(arm, seed, stages, size, folder)
    train_cell(trainer, arm, seed, lambda: sample_transcripts(trainer), folder)


# Summary


def summarize(folder: Path, seeds: range, size: str) -> dict:
    runs = read_cells(folder, ARMS, seeds)
    found = {"players": describe_players(folder, size)}
    print("success: at the start, at the end (the last evaluation), and the differences")
    found |= print_table(runs, LAST)
    keep(folder, runs)
    plot(folder, runs)
    write_transcripts(folder, runs)
    return found


def describe_players(folder: Path, size: str) -> dict:
    """Print how the scripted agents and the base fare."""
    from guess_number_tools_start import CARELESS, GAMES, as_played, share_solved

    found = {}
    for arm, game in GAMES.items():
        rows = as_played(arm, make_data(size)[1] * EVALUATED)
        found[arm] = {
            "scripted": round(share_solved(game.play(rows, 0.0, 0)), 4),
            "scripted, careless": round(share_solved(game.play(rows, CARELESS, 0)), 4),
            "base": round(share_solved(game.play_with(folder / "base", rows)), 4),
        }
        print(
            f"{arm}: {', '.join(f'{name} {share:.3f}' for name, share in found[arm].items())} ({len(rows)} rollouts)"
        )
    return found


def plot(folder: Path, runs: dict[str, dict[int, dict]]):
    """Success over decoded tokens."""
    line = (BOUND, "most that `a` alone can have")
    plot_curves(folder / "guess_number_tools.png", runs, "Guess-a-number, played with tools", line)


def write_transcripts(folder: Path, runs: dict[str, dict[int, dict]]):
    """Rollouts before and after, of each cell."""
    from scripted import show_messages

    lines = []
    for arm, seed, run in ((arm, seed, run) for arm, by_seed in runs.items() for seed, run in by_seed.items()):
        for when in ("before", "after"):
            for each in run[when]:
                lines.append(f"{arm}, seed {seed}, {when}: secret {each['secret']}, reward {each['reward']:g}")
                lines += show_messages(each["messages"])
    (folder / "transcripts.txt").write_text("\n".join(lines) + "\n")


def main(options):
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    if options.team is not None:
        from guess_number_tools_start import save_models

        return save_models(folder, make_data(options.size)[0], options.team, options.size)
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
