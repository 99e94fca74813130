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
import statistics
import sys
from pathlib import Path

from machine import describe_machine
from quiet import QUIET
from reproduction.statistics import interval
from side_by_side import run_script
from size import add_size


os.environ.setdefault("OMP_NUM_THREADS", "1")  # cells run side by side
os.environ["CI"] = "1"  # no telemetry

ARMS = ("team", "alone")
LONE_HINTS = "a"  # whose hints the lone agent is told
PROMPTS, GROUP, STAGES, EVALUATED_EVERY, ROWS, HELD_OUT = 24, 8, 20, 4, 6000, 64
EVALUATED, TRANSCRIPTS = 4, 4  # rollouts of each held-out row in an evaluation; of those shown


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
    before = sample_transcripts(trainer, TRANSCRIPTS)
    trainer.train()
    logs, agents = trainer.state.log_history, len(trainer.team.names)
    curve = [[log["step"] // agents, log["eval_reward"]] for log in logs if "eval_reward" in log]
    tokens = round(sum(log.get("rollout/tokens_decoded", 0) for log in logs))
    result = {
        "arm": arm,
        "seed": seed,
        "curve": curve,
        "tokens": tokens,
        "held_out": len(trainer.eval_dataset),
    }
    secrets = [trainer.eval_dataset[i]["secret"] for i in range(TRANSCRIPTS)]
    result |= {"secrets": secrets, "before": before, "after": sample_transcripts(trainer, TRANSCRIPTS)}
    path = cell_path(folder, arm, seed)
    path.with_suffix(".part").write_text(json.dumps(result))
    path.with_suffix(".part").rename(path)


def cell_path(folder: Path, arm: str, seed: int) -> Path:
    return folder / f"{arm}_seed{seed}.json"


def prepare(seed: int, size: str, folder: Path):
    """The models of a seed."""
    from guess_number_start import save_base, save_start

    rows = list(make_data(size)[0])
    save_base(folder / "base", rows, size)
    save_start(folder / f"team_{seed}", folder / "base", rows, seed, size)


# Summary


def final(result: dict) -> float:
    """Mean of the last three evaluations."""
    return statistics.mean(success for _, success in result["curve"][-3:])


def show(values: list[float]) -> str:
    """Mean and 95 % interval."""
    mean, low, high = interval(values)
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def summarize(folder: Path, seeds: range, size: str) -> dict:
    runs = {
        arm: {seed: json.loads(path.read_text()) for seed in seeds if (path := cell_path(folder, arm, seed)).exists()}
        for arm in ARMS
    }
    if not any(runs.values()):
        raise SystemExit(f"There is no result in {folder}. Run it without `--summary` first.")
    found = {"base": describe_base(folder, size)}
    print("held-out success: at the start, at the end (mean of the last three evaluations), and the differences")
    print(f"{'arm':<9}{'seeds':>6}{'tokens':>14}   {'start':<25}{'end':<25}{'end - start':<25}team - arm, paired")
    for arm, by_seed in runs.items():
        if not by_seed:
            continue
        start, end = [run["curve"][0][1] for run in by_seed.values()], [final(run) for run in by_seed.values()]
        gains = [b - a for a, b in zip(start, end, strict=True)]
        paired = [final(runs["team"][seed]) - final(run) for seed, run in by_seed.items() if seed in runs["team"]]
        tokens = statistics.mean(run["tokens"] for run in by_seed.values())
        columns = "".join(f"{show(values):<25}" for values in (start, end, gains))
        print(
            f"{arm:<9}{len(by_seed):>6}{tokens:>14.0f}   {columns}{show(paired) if arm != 'team' and paired else ''}"
        )
        found[arm] = {"start": statistics.mean(start), "end": statistics.mean(end), "tokens": round(tokens)}
        found[arm] |= {"by_seed": {seed: round(final(run), 4) for seed, run in by_seed.items()}}
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
    """Held-out success over decoded tokens: each seed, and the mean."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.5), constrained_layout=True)
    for (arm, by_seed), color in zip(runs.items(), ("tab:red", "tab:blue"), strict=True):
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
    axis.axhline(0.5, color="black", linestyle="--", linewidth=0.8, label="most that an agent alone can have")
    seeds = sorted({seed for by_seed in runs.values() for seed in by_seed})
    title = f"Guess-a-number with split hints, seeds {seeds[0]} to {seeds[-1]} (n = {len(seeds)})"
    axis.set(xlabel="decoded tokens", ylabel="held-out success (share of tasks)", ylim=(0, 1), title=title)
    axis.legend()
    figure.savefig(folder / "guess_number.png", dpi=110)


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
    seeds, stages = range(options.seeds), options.stages
    if options.size != "full":
        seeds, stages = range(1), 1 if options.size == "smoke" else 4
    if not options.summary:
        size = [] if options.size == "full" else [f"--{options.size}"]
        command = [str(folder), "--stages", str(stages), *size]
        here = (lambda arguments: main(make_parser().parse_args(arguments))) if options.size == "smoke" else None
        teams = [[*command, "--team", str(seed)] for seed in seeds if not (folder / f"team_{seed}").exists()]
        cells = [(arm, seed) for arm in ARMS for seed in seeds if not cell_path(folder, arm, seed).exists()]
        # The first makes the base, which the others share
        for waiting in (teams[:1], teams[1:], [[*command, "--cell", arm, str(seed)] for arm, seed in cells]):
            run_script(__file__, waiting, options.jobs, folder / "output.txt", here)
    print("$ python " + " ".join(["benchmarks/guess_number.py", *sys.argv[1:]]))
    found = summarize(folder, seeds, options.size)
    print(f"\n{describe_machine()}, {options.jobs} cells at a time")
    print(json.dumps(found | {"size": options.size, "stages": stages, "seeds": len(seeds)}))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="where the cells' results go")
    add_size(parser)
    parser.add_argument("--summary", action="store_true", help="run nothing")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--stages", type=int, default=STAGES)
    parser.add_argument("--jobs", type=int, default=2, help="cells at a time")
    parser.add_argument("--cell", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--team", type=int, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main(make_parser().parse_args())
