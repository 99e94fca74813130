"""
What resampling does to learning: held-out accuracy of a LINK team of 3 and of 6 agents, trained on stale, fresh, suffix
and speculative rollouts, at equal prompts and at equal decoded tokens; and how optimistic reused rollouts are.

    python benchmarks/reuse_learning.py runs/reuse_learning            # 10 seeds; about an hour on two cores
    python benchmarks/reuse_learning.py runs/reuse_learning --summary  # tables and plot of what is there
    python benchmarks/reuse_learning.py runs/quick --quick             # 2 seeds, 3 agents, 2 stages: a few minutes
    python benchmarks/reuse_learning.py runs/smoke --smoke             # seconds, in one process: says only that it runs

Each cell (team size, arm, seed) writes its own file in the folder and is not run again, so that the whole can be stopped
and gone on with at any time. Within a seed all arms start from the same warmed-up team, and all have the same learning
rate, radius, passes and order of updates (sequential). "Equal tokens" arms have as many prompts per stage as make their
decoded tokens about equal; the table prints what they were.

Optimism, every fifth stage, on the rollouts that an update is made on ("own") against independent fresh rollouts of the
same team for the same prompts ("other"): of the mean return before the update, own - other; and of the surrogate after
it (mean over the agent's tokens of min(r A, clip(r) A), A normalised within each one's own groups), own - other. Fresh
rollouts have no optimism of the first kind, but of the second, as all training data have: compare with "full".

Intervals are Student's 95 % intervals over seeds. "- full" is the paired difference to full, seed by seed.
Prints the tables and one JSON object last.
"""

import argparse
import json
import os
import statistics
import sys
from pathlib import Path

from link_start import save_start
from machine import describe_machine
from quiet import QUIET
from reproduction.plots import name_seeds
from reproduction.statistics import interval
from side_by_side import run_script
from size import add_size


os.environ.setdefault("OMP_NUM_THREADS", "1")  # two cells run side by side
os.environ["CI"] = "1"  # no telemetry
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

MODES = ("stale", "full", "suffix", "speculative")
EQUAL_PROMPTS = 24
# Prompts per stage at about the tokens of full's: n = 3 of 9, n = 6 of 6 prompts
EQUAL_TOKENS = {
    3: {"stale": 27, "full": 9, "suffix": 10, "speculative": 24},
    6: {"stale": 36, "full": 6, "suffix": 8, "speculative": 30},
}
GROUP, STAGES, EVALUATED_EVERY, MEASURED_EVERY, HELD_OUT = 8, 10, 2, 5, 512


def make_trainer(num_agents: int, mode: str, prompts: int, seed: int, stages: int, smoke: bool, folder: Path):
    from transformers.trainer_callback import PrinterCallback

    from trl_teamtr import Agent, TeamTRConfig, TeamTRTrainer
    from trl_teamtr.tasks import link

    group, held_out = (2, 8) if smoke else (GROUP, HELD_OUT)
    train, others = (
        link.make_dataset(num_agents, 50 if smoke else 5000, seed),
        link.make_dataset(num_agents, held_out, 10**6 + seed),
    )
    args = TeamTRConfig(
        str(folder / "trainer"),
        seed=seed,
        num_stages=stages,
        resampling=mode,
        per_device_train_batch_size=group * prompts,
        num_generations=group,
        max_completion_length=4,
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
        eval_steps=EVALUATED_EVERY * num_agents,
        per_device_eval_batch_size=held_out,
        num_generations_eval=1,
        **QUIET,
    )
    team = [Agent(name, str(folder / f"team_{seed}" / name)) for name in link.NAMES[:num_agents]]
    trainer = TeamTRTrainer(team, link.link_reward, args, train_dataset=train, eval_dataset=others)
    trainer.remove_callback(PrinterCallback)
    return trainer


def log_probs(member, batch):
    import torch

    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    return member._get_per_token_logps_and_entropies(member.model, ids, mask, batch["completion_ids"].size(1))[0]


def watch_optimism(trainer, every: int) -> list[dict]:
    """Measure, at each update of every so many stages, own against independent rollouts; fills the list."""
    import torch

    from trl_teamtr.tasks.link import link_reward

    found, pending = [], {}
    num_agents, provide = len(trainer.members), trainer.resampler.rollouts

    def mean_return(rollouts, rows):
        own = [transcript.as_dicts() for transcript in rollouts.transcripts]
        return statistics.mean(link_reward(own, [row["digits"] for row in rows]))

    def rollouts(rows):
        own = provide(rows)
        stage, position = divmod(trainer.state.global_step, num_agents)
        pending.clear()
        if stage % every == every - 1:
            other = trainer.team.collect(rows)
            pending.update(rows=rows, other=other, stage=stage + 1, position=position)
            pending["return"] = mean_return(own, rows) - mean_return(other, rows)
        return own

    def surrogate(member, batch, old) -> float:
        with torch.no_grad():
            ratio = (log_probs(member, batch) - old).exp()
        gain, eps = batch["advantages"][:, None], member.args.epsilon
        clipped = torch.minimum(ratio * gain, ratio.clamp(1 - eps, 1 + eps) * gain)
        mask = batch["completion_mask"] * batch["tool_mask"]
        return ((clipped * mask).sum() / mask.sum()).item()

    def watch(member):
        update = member.update

        def measured(batch, before=None, *due):
            if not pending:
                return update(batch, before, *due)
            logged = {name: list(values) for name, values in trainer._metrics["train"].items()}
            other = member._generate_and_score_completions(pending["rows"], pending["other"])
            trainer._metrics["train"].clear()
            trainer._metrics["train"].update(logged)
            with torch.no_grad():
                old = [log_probs(member, each) for each in (batch, other)]
            report = update(batch, before, *due)
            own, others = (surrogate(member, *pair) for pair in zip((batch, other), old, strict=True))
            found.append(
                {name: pending[name] for name in ("stage", "position", "return")} | {"surrogate": own - others}
            )
            return report

        member.update = measured

    trainer.resampler.rollouts = rollouts
    for member in trainer.members:
        watch(member)
    return found


def run_cell(num_agents: int, mode: str, prompts: int, seed: int, stages: int, smoke: bool, folder: Path):
    """Train one team; write its held-out curve, its tokens and its optimism."""
    trainer = make_trainer(num_agents, mode, prompts, seed, stages, smoke, folder)
    optimism = watch_optimism(trainer, min(MEASURED_EVERY, stages)) if prompts == EQUAL_PROMPTS else []
    trainer.train()
    logs = trainer.state.log_history
    curve = [[log["step"] // num_agents, log["eval_reward"]] for log in logs if "eval_reward" in log]
    updates = [log for log in logs if "rollout/tokens_decoded" in log]
    tokens = sum(log["rollout/tokens_decoded"] for log in updates) / stages
    kl = [
        value for log in updates for name, value in log.items() if name.startswith("agent/") and name.endswith("/kl")
    ]
    result = {"agents": num_agents, "mode": mode, "prompts": prompts, "seed": seed, "curve": curve}
    result |= {"tokens_per_stage": tokens, "kl_mean": statistics.mean(kl), "optimism": optimism}
    path = cell_path(folder, num_agents, mode, prompts, seed)
    path.with_suffix(".part").write_text(json.dumps(result))
    path.with_suffix(".part").rename(path)


def cell_path(folder: Path, num_agents: int, mode: str, prompts: int, seed: int) -> Path:
    return folder / f"n{num_agents}_{mode}_{prompts}_seed{seed}.json"


def list_cells(sizes: list[int], seeds: range, modes: tuple[str, ...]) -> list[tuple[int, str, int, int]]:
    """Seed by seed, so that whatever has been run is balanced."""
    arms = [(n, mode, EQUAL_PROMPTS) for n in sizes for mode in modes]
    arms += [(n, mode, EQUAL_TOKENS[n][mode]) for n in sizes for mode in modes]
    return [(*arm, seed) for seed in seeds for arm in dict.fromkeys(arms)]


def run(cells: list[tuple[int, str, int, int]], stages: int, jobs: int, smoke: bool, folder: Path):
    """Run what is missing, `jobs` processes at a time."""
    waiting = [cell for cell in cells if not cell_path(folder, *cell).exists()]
    command = [str(folder), "--stages", str(stages), *(["--smoke"] if smoke else []), "--cell"]
    here = (lambda arguments: main(make_parser().parse_args(arguments))) if smoke else None
    run_script(__file__, [[*command, *map(str, cell)] for cell in waiting], jobs, folder / "output.txt", here)


# Summary


def show(values: list[float]) -> str:
    """Mean and 95 % interval."""
    mean, low, high = interval(values)
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def final(result: dict) -> float:
    """Mean of the last three evaluations."""
    return statistics.mean(accuracy for _, accuracy in result["curve"][-3:])


def summarize(folder: Path, cells: list[tuple[int, str, int, int]]) -> dict:
    results = [json.loads(path.read_text()) for cell in cells if (path := cell_path(folder, *cell)).exists()]
    found: dict[str, dict] = {}
    for n in sorted({result["agents"] for result in results}):
        for title, prompts in (("prompts", dict.fromkeys(MODES, EQUAL_PROMPTS)), ("tokens", EQUAL_TOKENS[n])):
            arms = {
                mode: {
                    r["seed"]: r for r in results if (r["agents"], r["mode"], r["prompts"]) == (n, mode, prompts[mode])
                }
                for mode in MODES
            }
            found[f"n{n}_equal_{title}"] = print_arms(n, title, prompts, arms)
            if title == "prompts":
                found[f"n{n}_optimism"] = print_optimism(arms)
    plot(folder, results)
    return found


def print_arms(n: int, title: str, prompts: dict[str, int], arms: dict[str, dict[int, dict]]) -> dict:
    print(f"\nn = {n}, equal {title}: held-out accuracy, mean of the last three evaluations")
    print(
        f"{'':<13}{'prompts':>8}{'tokens/stage':>14}{'kl':>7}{'seeds':>7}   accuracy [95 %]           - full, paired"
    )
    table = {}
    for mode, runs in arms.items():
        if not runs:
            continue
        tokens = statistics.mean(result["tokens_per_stage"] for result in runs.values())
        kl = statistics.mean(result["kl_mean"] for result in runs.values())
        paired = [final(runs[seed]) - final(arms["full"][seed]) for seed in runs if seed in arms["full"]]
        accuracies = [final(result) for result in runs.values()]
        print(
            f"{mode:<13}{prompts[mode]:8}{tokens:14.0f}{kl:7.3f}{len(runs):7}   {show(accuracies)}   "
            + (show(paired) if mode != "full" and paired else "")
        )
        table[mode] = {"accuracy": round(statistics.mean(accuracies), 4), "tokens_per_stage": round(tokens)}
    return table


def print_optimism(arms: dict[str, dict[int, dict]]) -> dict:
    print(
        "optimism of the rollouts of an update (mean over seeds), without the first update of a stage, which is fresh"
    )
    table = {}
    for mode, runs in arms.items():
        each = {
            name: [
                statistics.mean(entry[name] for entry in result["optimism"] if entry["position"] > 0)
                for result in runs.values()
            ]
            for name in ("return", "surrogate")
        }
        if runs:
            print(f"{mode:<13}return {show(each['return'])}   surrogate {show(each['surrogate'])}")
            table[mode] = {name: round(statistics.mean(values), 5) for name, values in each.items()}
    return table


def plot(folder: Path, results: list[dict]):
    """Held-out accuracy over stages and over decoded tokens, with 95 % intervals over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    sizes = sorted({result["agents"] for result in results})
    figure, axes = plt.subplots(len(sizes), 3, figsize=(15, 4 * len(sizes)), constrained_layout=True, squeeze=False)
    for n, (stages, tokens, equal) in zip(sizes, axes, strict=True):
        seeds = {result["seed"] for result in results if result["agents"] == n}
        for mode, color in zip(MODES, ("tab:gray", "tab:blue", "tab:green", "tab:red"), strict=True):
            for prompts in {EQUAL_PROMPTS, EQUAL_TOKENS[n][mode]}:
                runs = [r for r in results if (r["agents"], r["mode"], r["prompts"]) == (n, mode, prompts)]
                if not runs:
                    continue
                x = [stage for stage, _ in runs[0]["curve"]]
                values = list(zip(*([accuracy for _, accuracy in run["curve"]] for run in runs), strict=True))
                mean, low, high = zip(*map(interval, values), strict=True)
                cost = statistics.mean(run["tokens_per_stage"] for run in runs)
                drawn = [(stages, x), (tokens, [cost * s for s in x])] if prompts == EQUAL_PROMPTS else []
                drawn += [(equal, x)] if prompts == EQUAL_TOKENS[n][mode] else []
                for axis, places in drawn:
                    axis.plot(places, mean, ".-", color=color, label=f"{mode}, {prompts} prompts per stage")
                    axis.fill_between(places, low, high, color=color, alpha=0.12)
        titles = ((stages, "stage", "equal prompts"), (tokens, "decoded tokens", "the same runs"))
        for axis, label, title in (*titles, (equal, "stage", "equal tokens")):
            axis.set(xlabel=label, ylabel="held-out accuracy", title=f"{n} agents, {name_seeds(seeds)}: {title}")
            axis.legend()
    figure.savefig(folder / "reuse_learning.png", dpi=110)


def main(options):
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    smoke = options.size == "smoke"
    if options.cell:
        n, mode, prompts, seed = options.cell
        return run_cell(int(n), mode, int(prompts), int(seed), options.stages, smoke, folder)
    sizes, seeds, stages = [3, 6], range(options.seeds), options.stages
    if options.size != "full":
        sizes, seeds, stages = [3], range(1 if smoke else 2), 1 if smoke else 2
    cells = list_cells(sizes, seeds, ("full", "speculative") if smoke else MODES)
    if not options.summary:
        for seed in seeds:
            save_start(folder / f"team_{seed}", max(sizes), seed, options.size)
            run([cell for cell in cells if cell[-1] == seed], stages, options.jobs, smoke, folder)
    found = summarize(folder, cells)
    print(f"\n{describe_machine()}, {options.jobs} cells at a time")
    print(json.dumps(found | {"size": options.size, "stages": stages, "seeds": len(seeds)}))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="where the cells' results go")
    add_size(parser)
    parser.add_argument("--summary", action="store_true", help="run nothing")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--stages", type=int, default=STAGES)
    parser.add_argument("--jobs", type=int, default=2, help="cells at a time")
    parser.add_argument("--cell", nargs=4, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main(make_parser().parse_args())
