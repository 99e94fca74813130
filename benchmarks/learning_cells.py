"""
What benchmarks of learning share: cells, each an arm with a seed, which are run once; their table, curves and transcripts.
"""

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from machine import describe_machine
from reproduction.statistics import interval
from side_by_side import run_script


Runs = dict[str, dict[int, dict[str, Any]]]  # results by arm and seed


def cell_path(folder: Path, arm: str, seed: int) -> Path:
    return folder / f"{arm}_seed{seed}.json"


def train_cell(trainer, arm: str, seed: int, sample: Callable[[], list[dict]], folder: Path, **more):
    """
    Train, and write what the cell gives: its held-out curve over stages, its decoded tokens, and transcripts.

    Args:
        trainer ([`TeamTRTrainer`]): With an `eval_dataset`.
        arm, seed: The cell.
        sample (`Callable`): Held-out transcripts, which are made before and after.
        folder (`Path`): Where the result goes.
        more: What else is noted.
    """
    before = sample()
    trainer.train()
    logs, agents = trainer.state.log_history, len(trainer.team.names)
    curve = [[log["step"] // agents, log["eval_reward"]] for log in logs if "eval_reward" in log]
    tokens = round(sum(log.get("rollout/tokens_decoded", 0) for log in logs))
    result = {"arm": arm, "seed": seed, "curve": curve, "tokens": tokens, "held_out": len(trainer.eval_dataset)}
    result |= more | {"before": before, "after": sample()}
    path = cell_path(folder, arm, seed)
    path.with_suffix(".part").write_text(json.dumps(result))
    path.with_suffix(".part").rename(path)


def run_missing(
    script: str, options, arms: Sequence[str], seeds: range, stages: int, main: Callable[[list[str]], Any]
):
    """
    Make the models of each seed, then train each cell that has no result yet.

    Args:
        script (`str`): The benchmark, which takes `--team seed` and `--cell arm seed`.
        options: Its `folder`, `size` and `jobs`.
        arms, seeds: The cells.
        stages (`int`): Stages of each.
        main (`Callable`): The benchmark on a command line in this process, for the smallest size.
    """
    folder = Path(options.folder)
    size = [] if options.size == "full" else [f"--{options.size}"]
    command = [str(folder), "--stages", str(stages), *size]
    here = main if options.size == "smoke" else None
    teams = [[*command, "--team", str(seed)] for seed in seeds if not (folder / f"team_{seed}").exists()]
    # Seed by seed, so that what is there can be compared at any time
    cells = [(arm, seed) for seed in seeds for arm in arms if not cell_path(folder, arm, seed).exists()]
    # The first makes the base, which the others share
    for waiting in (teams[:1], teams[1:], [[*command, "--cell", arm, str(seed)] for arm, seed in cells]):
        run_script(script, waiting, options.jobs, folder / "output.txt", here)


def add_cell_options(parser, stages: int):
    parser.add_argument("--summary", action="store_true", help="run nothing")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--stages", type=int, default=stages)
    parser.add_argument("--jobs", type=int, default=2, help="cells at a time")
    parser.add_argument("--cell", nargs=2, help="run only this arm and seed")
    parser.add_argument("--team", type=int, help="make only the models of this seed")


def choose_cells(options) -> tuple[range, int]:
    """The seeds and the number of stages; fewer of both for the smaller sizes."""
    if options.size == "full":
        return range(options.seeds), options.stages
    return range(1), 1 if options.size == "smoke" else 4


def read_cells(folder: Path, arms: Sequence[str], seeds: range) -> Runs:
    """
    The results that there are.

    Raises:
        `SystemExit`: If there is none.
    """
    runs = {
        arm: {seed: json.loads(path.read_text()) for seed in seeds if (path := cell_path(folder, arm, seed)).exists()}
        for arm in arms
    }
    if not any(runs.values()):
        raise SystemExit(f"There is no result in {folder}. Run it without `--summary` first.")
    return runs


# Summary


def final(result: dict, last: int) -> float:
    """Mean of the `last` evaluations."""
    return statistics.mean(success for _, success in result["curve"][-last:])


def show(values: list[float]) -> str:
    """Mean and 95 % interval."""
    mean, low, high = interval(values)
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def print_table(runs: Runs, last: int) -> dict:
    """
    Print, for each arm, success at the start and at the end, and their difference; and the difference of the first arm to it,
    seed by seed.

    Args:
        runs: The results.
        last (`int`): Number of evaluations whose mean is the end.
    """
    (first, *_), found = runs, {}
    paired_title = f"{first} - arm, paired" if len(runs) > 1 else ""
    print(f"{'arm':<9}{'seeds':>6}{'tokens':>14}   {'start':<25}{'end':<25}{'end - start':<25}{paired_title}".rstrip())
    for arm, by_seed in runs.items():
        if not by_seed:
            continue
        start, end = [run["curve"][0][1] for run in by_seed.values()], [final(run, last) for run in by_seed.values()]
        gains = [b - a for a, b in zip(start, end, strict=True)]
        both = [seed for seed in by_seed if seed in runs[first] and arm != first]
        paired = [final(runs[first][seed], last) - final(by_seed[seed], last) for seed in both]
        tokens = statistics.mean(run["tokens"] for run in by_seed.values())
        columns = "".join(f"{show(values):<25}" for values in (start, end, gains))
        print(f"{arm:<9}{len(by_seed):>6}{tokens:>14.0f}   {columns}{show(paired) if paired else ''}".rstrip())
        found[arm] = {"start": statistics.mean(start), "end": statistics.mean(end), "tokens": round(tokens)}
        found[arm] |= {"by_seed": {seed: round(final(run, last), 4) for seed, run in by_seed.items()}}
    return found


def keep(folder: Path, runs: Runs):
    """Write all results into one file, `cells.jsonl`, a line each."""
    lines = [json.dumps(run) for by_seed in runs.values() for run in by_seed.values()]
    (folder / "cells.jsonl").write_text("\n".join(lines) + "\n")


def plot_curves(path: Path, runs: Runs, title: str, line: tuple[float, str] | None = None):
    """
    Held-out success over decoded tokens: each seed, and the mean.

    Args:
        path (`Path`): The image.
        runs: The results.
        title (`str`): What was learned.
        line (`tuple[float, str]`, *optional*): A success to compare with, and what it is.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.5), constrained_layout=True)
    for (arm, by_seed), color in zip(runs.items(), ("tab:red", "tab:blue"), strict=False):
        curves = [
            [(step / run["curve"][-1][0] * run["tokens"], y) for step, y in run["curve"]] for run in by_seed.values()
        ]
        for curve in curves:
            axis.plot(*zip(*curve, strict=True), color=color, alpha=0.2)
        if curves:
            means = [
                statistics.mean(values) for values in zip(*([y for _, y in curve] for curve in curves), strict=True)
            ]
            axis.plot([x for x, _ in curves[0]], means, ".-", color=color, label=arm)
    if line is not None:
        axis.axhline(line[0], color="black", linestyle="--", linewidth=0.8, label=line[1])
    seeds = sorted({seed for by_seed in runs.values() for seed in by_seed})
    title = f"{title}, seeds {seeds[0]} to {seeds[-1]} (n = {len(seeds)})"
    axis.set(xlabel="decoded tokens", ylabel="held-out success (share of tasks)", ylim=(0, 1), title=title)
    axis.legend()
    figure.savefig(path, dpi=110)


def print_end(found: dict, options, stages: int, seeds: range):
    """Print the machine, and all figures as one JSON object."""
    print(f"\n{describe_machine()}, {options.jobs} cells at a time")
    print(json.dumps(found | {"size": options.size, "stages": stages, "seeds": len(seeds)}))


def print_command(script: str):
    print("$ python " + " ".join([f"benchmarks/{Path(script).name}", *sys.argv[1:]]))
