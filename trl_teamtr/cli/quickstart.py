"""`trl-teamtr quickstart`, and `quickstart.py`: train a team and report the results."""

import importlib.util
import json
import sys
import time
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import transformers
from datasets import disable_progress_bars
from transformers.trainer_callback import PrinterCallback
from trl import ModelConfig, TrlParser

from ..diagnostics.heldout_kl import HeldOutKLCallback
from ..policy.evaluating import evaluating
from ..reports.run_report import make_report
from ..teamtr_config import TeamTRConfig
from .arguments import ExamplesFormatter, TeamScriptArguments, save_tasks
from .train import make_trainer


EXAMPLES = """\
examples:
  trl-teamtr quickstart                # about four minutes on two cores
  trl-teamtr quickstart --seed 1 --output_dir runs/seed1 --report_dir runs/seed1/report
"""


@dataclass
class ReportArguments:
    """
    Arguments of the report.

    Args:
        report_dir (`str`): Where the plot, the log and the transcripts go.
        num_transcripts (`int`): Held-out rollouts to print before and after.
        num_heldout (`int`): Rollouts per update on which the exact held-out KL is measured; 0 for none.
    """

    report_dir: str = field(default="runs/quickstart/report", metadata={"help": "Where the report goes."})
    num_transcripts: int = field(default=1, metadata={"help": "Held-out rollouts to print before and after."})
    num_heldout: int = field(default=256, metadata={"help": "Held-out rollouts per update for the exact KL."})


def sample_transcripts(trainer, count: int) -> list[dict]:
    """Rollouts of the first held-out rows."""
    rows = [trainer.eval_dataset[i] for i in range(count)]
    with evaluating([member.model for member in trainer.members]):
        rollouts = trainer.team.collect(rows)
    prompts = [{"prompt": row["prompt"][-1]["content"], "private": row.get("agent_prompts")} for row in rows]
    return [
        {**prompt, "messages": [f"{m.agent}: {m.text}" for m in transcript.messages]}
        for prompt, transcript in zip(prompts, rollouts.transcripts, strict=True)
    ]


def show(title: str, transcripts: list[dict]):
    print(f"\n{title}")
    for transcript in transcripts:
        private = f"   (private: {transcript['private']})" if transcript["private"] else ""
        print(f"  task: {transcript['prompt']!r}{private}")
        for message in transcript["messages"]:
            print(f"    {message!r}")


def plot(logs: list[dict], names: list[str], path: Path, seed: int):
    """Reward, held-out accuracy, and each agent's KL against its radius, over updates, from the trainer's logs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    for axis, key, style, label in (
        (left, "reward", "-", "reward (training rollouts)"),
        (left, "eval_reward", "o-", "accuracy (held-out prompts)"),
        *((right, f"agent/{name}/kl", ".-", name) for name in names),
        *((right, f"agent/{name}/radius", "k--", None if i else "radius δ") for i, name in enumerate(names)),
    ):
        points = [(log["step"], log[key]) for log in logs if key in log]
        axis.plot(*zip(*points, strict=True), style, label=label)
    left.set(xlabel="update", ylabel="mean return", title=f"Return, seed {seed} (n = 1)")
    left.legend()
    title = f"Accepted updates and the radius, seed {seed} (n = 1)"
    right.set(xlabel="update", ylabel="KL(before ‖ after), nats per message", title=title)
    right.set_ylim(bottom=0)
    right.legend(framealpha=0.4)
    figure.savefig(path, dpi=110)


def summarize(trainer, logs: list[dict], monitor) -> dict:
    """The figures of a run, from the logs (one per update) and the held-out monitor."""
    updates = [(name, log) for log in logs for name in trainer.team.names if f"agent/{name}/kl" in log]
    accepted = [log[f"agent/{name}/kl"] for name, log in updates if log[f"agent/{name}/rejected"] == 0]
    rewards = [log["reward"] for log in logs if "reward" in log]
    evaluations = [log["eval_reward"] for log in logs if "eval_reward" in log]
    three_stages = 3 * len(trainer.trained_members)
    return {
        "accuracy_before": round(evaluations[0], 4),
        "accuracy_after": round(evaluations[-1], 4),
        "reward_first_3_stages": round(sum(rewards[:three_stages]) / three_stages, 4),
        "reward_last_3_stages": round(sum(rewards[-three_stages:]) / three_stages, 4),
        "updates": len(updates),
        "rejected": len(updates) - len(accepted),
        "backtracked": sum(log[f"agent/{name}/backtracks"] > 0 for name, log in updates),
        "out_of_region": sum(kl > trainer.radius for kl in accepted) / max(len(accepted), 1),
        "out_of_region_heldout": round(monitor.out_of_region_rate, 4) if monitor else None,
        "kl_mean": round(sum(accepted) / max(len(accepted), 1), 5),
        "radius": trainer.radius,
    }


def main(report_args, script_args, training_args, model_args):
    start = time.time()
    disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    report_dir = Path(report_args.report_dir)
    report_dir.mkdir(parents=True, exist_ok=True)

    print("Making the team ...", flush=True)
    trainer = make_trainer(script_args, training_args, model_args)
    save_tasks(script_args, training_args)
    trainer.remove_callback(PrinterCallback)
    print(f"Team: {', '.join(trainer.team.names)}. Made in {time.time() - start:.0f} s.", flush=True)

    def accuracy() -> float:
        return trainer.evaluate()["eval_reward"]

    before, accuracy_before = sample_transcripts(trainer, report_args.num_transcripts), accuracy()
    show(f"Before: held-out accuracy {accuracy_before:.3f}", before)

    monitor = None
    if report_args.num_heldout:
        monitor = HeldOutKLCallback(trainer, trainer.eval_dataset, report_args.num_heldout)
        trainer.add_callback(monitor)
    print(flush=True)
    train_start = time.time()
    trainer.train()
    train_seconds = time.time() - train_start
    trainer.save_model()

    accuracy_after = accuracy()
    after = sample_transcripts(trainer, report_args.num_transcripts)
    show(f"After {trainer.state.global_step} updates: held-out accuracy {accuracy_after:.3f}", after)

    logs = [{"eval_reward": accuracy_before, "step": 0}, *trainer.state.log_history]  # `train` started a new history
    plot(logs, [member.name for member in trainer.trained_members], report_dir / "training.png", training_args.seed)
    result = summarize(trainer, logs, monitor) | {
        "seed": training_args.seed,
        "train_seconds": round(train_seconds, 1),
        "seconds": round(time.time() - start, 1),
    }
    with open(report_dir / "log.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(log) + "\n" for log in logs)
    (report_dir / "transcripts.json").write_text(json.dumps({"before": before, "after": after}, indent=2) + "\n")
    (report_dir / "result.json").write_text(json.dumps(result) + "\n")
    print(f"\nPlot, log and transcripts: {report_dir}. Team: {training_args.output_dir}.")
    trainer.end()
    print(f"The whole run on one page: {make_report(training_args.output_dir)}.")
    print(json.dumps(result))


def parse(default_config: Path, arguments: list[str] | None = None, prog: str | None = None):
    """
    The four configs, from `arguments` (those of the script if not given) and a YAML file: `default_config`, unless another
    one is given.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if "--config" not in arguments:
        arguments += ["--config", str(default_config)]
    configs: list[Any] = [ReportArguments, TeamScriptArguments, TeamTRConfig, ModelConfig]
    parser = TrlParser(configs, prog=prog, epilog=EXAMPLES, formatter_class=ExamplesFormatter)
    return parser.parse_args_and_config(arguments)


def run(arguments: list[str]):
    """Run the command `trl-teamtr quickstart`."""
    if importlib.util.find_spec("matplotlib") is None:
        sys.exit('error: the quickstart draws a plot: pip install "trl-teamtr[quickstart]"')
    with resources.as_file(resources.files(__package__).joinpath("quickstart.yaml")) as config:
        configs = parse(config, arguments, prog="trl-teamtr quickstart")
    main(*configs)
