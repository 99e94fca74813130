"""
What resampling costs: decoded tokens and wall time per stage of stale, full, suffix and speculative rollouts.

    python benchmarks/resampling_cost.py             # LINK, n = 2, 3, 4, 6, 8, and long messages; about half an hour
    python benchmarks/resampling_cost.py --quick     # n = 2 and 3, two stages: a few minutes
    python benchmarks/resampling_cost.py --smoke     # seconds, in one process: says only that it runs
    python benchmarks/resampling_cost.py --model runs/SmolLM2-135M-Instruct   # two LoRA agents on reasoning-gym
    python benchmarks/resampling_cost.py --radius 0.25 --learning_rate 2.4e-3 --sizes 3 6   # a part, with larger steps

For each team size and radius one process per mode holds the same team; they take turns, stage by stage, in an order that
is drawn anew each time. The first stage is not counted. Tokens are those that were sampled (`rollout/tokens_decoded`),
relative to stale in the same stages; `kl` is the mean KL of the accepted updates in nats per message, `changed` the mean
share of rollouts that an update's resampling has changed. Learning rates are such that the KL is between 0.3 radii and one.

LINK messages are three tokens long, end included. The long messages are 144 tokens of a model of random weights which
never ends its turn; the reward is the share of one letter. Agents are updated in team order; "suffix" is measured in the
reversed order too, which is best for it.

Prints the tables and one JSON object last: tokens relative to stale (`speculative_tokens_ratio_n3`, at radius 0.01;
`..._long`, and so on), and the exponents in n of the tokens and seconds per stage, fitted by least squares in logarithms.
"""

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from link_start import save_start
from machine import describe_machine
from quiet import QUIET
from reproduction.statistics import slope
from size import add_size


os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
os.environ["CI"] = "1"  # no telemetry
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

MODES = ("stale", "full", "suffix", "suffix reversed", "speculative")
SIZES, RADII = (2, 3, 4, 6, 8), (0.01, 0.25)
SMOKE_MODES = ("stale", "speculative")
LONG = 144  # tokens
LEARNING_RATES = {("link", 0.01): 2e-4, ("link", 0.25): 1.6e-3, ("long", 0.01): 2e-4, ("smollm2", 0.01): 3e-4}
# What a run to see that it runs has instead
SMOKE = {"per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 3, "num_iterations": 2}
PART, PARTS = "\x1e", ("rollouts", "updates", "rest")


def common_arguments(setup: dict) -> dict:
    mode, _, reversed_ = setup["mode"].partition(" ")
    return {
        "resampling": mode,
        "update_order": reversed_ or "sequential",
        "num_stages": setup["stages"],
        "learning_rate": setup.get("learning_rate") or LEARNING_RATES[setup["task"], setup["radius"]],
        "trust_region_radius": setup["radius"],
        "lr_scheduler_type": "constant",
        "adam_beta2": 0.9,
        "kl_coef": 0.03,
        "num_generations": 8,
        "num_iterations": 4,
        "logging_steps": 1,
        **QUIET,
    }


def link_team(setup: dict) -> dict:
    from trl_teamtr import Agent
    from trl_teamtr.tasks import link

    return {
        "model": [Agent(name, f"{setup['folder']}/link/{name}") for name in link.NAMES[: setup["agents"]]],
        "reward_funcs": link.link_reward,
        "args": {"per_device_train_batch_size": 384, "max_completion_length": 4, "kl_estimator": "exact"},
        "train_dataset": link.make_dataset(setup["agents"], 50 if setup["smoke"] else 2000, seed=0),
    }


def long_team(setup: dict) -> dict:
    from datasets import Dataset

    from trl_teamtr import Agent
    from trl_teamtr.tasks import link

    def reward(transcripts, **kwargs):
        texts = ["".join(message["content"] for message in messages) for messages in transcripts]
        return [text.count("A") / len(text) for text in texts]

    tokenizer = link.make_tokenizer()
    names = link.NAMES[: setup["agents"]]
    team = [Agent(name, endless_model(tokenizer, seed), processing_class=tokenizer) for seed, name in enumerate(names)]
    rows = range(50 if setup["smoke"] else 500)
    prompts = [[{"role": "user", "content": "".join(random.Random(i).choices("012345", k=8))}] for i in rows]
    return {
        "model": team,
        "reward_funcs": reward,
        "args": {
            "per_device_train_batch_size": 64,
            "max_completion_length": LONG,
            "kl_estimator": "exact",
            "num_iterations": 2,
        },
        "train_dataset": Dataset.from_dict({"prompt": prompts}),
    }


def endless_model(tokenizer, seed: int):
    """A random model whose logits are spread out, and that never ends its turn."""
    import torch
    from transformers import Qwen3ForCausalLM

    from trl_teamtr.tasks import link

    config = link.make_model(tokenizer, seed).config
    config.max_position_embeddings = 2048
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(10)
        # A direction that every hidden state has, and that speaks against the special tokens
        direction = torch.ones(config.hidden_size) / math.sqrt(config.hidden_size)
        model.model.embed_tokens.weight.add_(0.3 * direction)
        model.lm_head.weight[tokenizer.all_special_ids] = -4 * direction
    return model


def smollm2_team(setup: dict) -> dict:
    from peft import LoraConfig

    from trl_teamtr import Agent
    from trl_teamtr.tasks import reasoning_gym

    prompts = {
        "solver": "You are a calculator. Explain in one sentence, then give the number.",
        "checker": "You are a calculator that checks the solver. Explain in one sentence, then give the number.",
    }
    lora = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}
    team = [
        Agent(name, setup["model"], system_prompt=text, peft_config=LoraConfig(task_type="CAUSAL_LM", **lora))
        for name, text in prompts.items()
    ]
    return {
        "model": team,
        "reward_funcs": reasoning_gym.reasoning_gym_reward,
        "args": {
            "per_device_train_batch_size": 16,
            "max_completion_length": 32,
            "num_generations": 4,
            "num_iterations": 2,
        },
        "train_dataset": reasoning_gym.make_dataset(
            "chain_sum", 500, 0, min_terms=2, max_terms=2, min_digits=1, max_digits=1
        ),
    }


TEAMS = {"link": link_team, "long": long_team, "smollm2": smollm2_team}


# One process per mode


def work(setup: dict):
    """Train, one stage at each line on the standard input; answer each with what the stage cost."""
    train(setup, sys.stdin.readline, lambda stage: print(PART + json.dumps(stage), flush=True))


def train(setup: dict, wait: Callable[[], Any], tell: Callable[[dict], Any]):
    """Train; `wait` before each stage, and `tell` after it what it cost."""
    import transformers
    from transformers import TrainerCallback
    from transformers.trainer_callback import PrinterCallback

    from trl_teamtr import TeamTRConfig, TeamTRTrainer

    seconds, changed = dict.fromkeys(PARTS, 0.0), []

    class Stages(TrainerCallback):
        def wait(self):
            wait()
            seconds.update(dict.fromkeys(PARTS, 0.0))
            changed.clear()
            self.start = time.perf_counter()

        def on_train_begin(self, args, state, control, **kwargs):
            self.wait()

        def on_log(self, args, state, control, logs=None, **kwargs):
            if state.global_step % setup["agents"] or "rollout/tokens_decoded" not in (logs or {}):
                return
            seconds["rest"] = time.perf_counter() - self.start - seconds["rollouts"] - seconds["updates"]
            logs = list(state.log_history[-setup["agents"] :])
            kl = [value for log in logs for name, value in log.items() if name[:6] == "agent/" and name[-3:] == "/kl"]
            stage = {"tokens": sum(log["rollout/tokens_decoded"] for log in logs), "seconds": dict(seconds)}
            stage |= {"scored": sum(log["rollout/tokens_scored"] for log in logs), "kl": kl, "changed": list(changed)}
            stage["messages"] = sum(log["rollout/messages"] for log in logs) / setup["agents"]
            tell(stage)
            self.wait()

    transformers.set_seed(0)
    team = TEAMS[setup["task"]](setup)
    with tempfile.TemporaryDirectory() as folder:
        args = TeamTRConfig(folder, **common_arguments(setup) | team.pop("args") | (SMOKE if setup["smoke"] else {}))
        trainer = TeamTRTrainer(**team, args=args, callbacks=[Stages()])
        trainer.remove_callback(PrinterCallback)
        watch(trainer, seconds, changed)
        trainer.train()


def watch(trainer, seconds: dict[str, float], changed: list[float]):
    """Count up what rollouts and updates take, and note what each resampling has changed."""
    provide, last = trainer.resampler.rollouts, []

    def rollouts(rows):
        start = time.perf_counter()
        found = provide(rows)
        seconds["rollouts"] += time.perf_counter() - start
        said = [str(transcript) for transcript in found.transcripts]
        if trainer.state.global_step % len(trainer.members):
            changed.append(statistics.mean(new != old for new, old in zip(said, last, strict=True)))
        last[:] = said
        return found

    def timed(update):
        def call(batch, before, *due):
            start = time.perf_counter()
            report = update(batch, before, *due)
            seconds["updates"] += time.perf_counter() - start
            return report

        return call

    trainer.resampler.rollouts = rollouts
    for member in trainer.members:
        member.update = timed(member.update)


class Worker:
    """A process that trains one team in one mode, stage by stage."""

    def __init__(self, setup: dict):
        command = [sys.executable, "-W", "ignore", __file__, "--work", json.dumps(setup)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def stage(self) -> dict:
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith(PART):
                return json.loads(line[1:])
        raise SystemExit(f"A worker ended with {self.process.wait()}.")

    def end(self):
        self.process.kill()
        self.process.wait()


def measure(setup: dict, modes: tuple[str, ...], stages: int) -> dict[str, dict]:
    """Sums over the stages but the first, for each mode."""
    if setup["smoke"]:
        here: dict[str, list[dict]] = {mode: [] for mode in modes}
        for mode in modes:
            train(setup | {"mode": mode, "stages": stages + 1}, lambda: None, here[mode].append)
        return {mode: add_up(each[1:]) for mode, each in here.items()}
    workers = {mode: Worker(setup | {"mode": mode, "stages": stages + 2}) for mode in modes}
    found: dict[str, list[dict]] = {mode: [] for mode in modes}
    for _ in range(stages + 1):
        for mode in random.sample(modes, len(modes)):
            found[mode].append(workers[mode].stage())
    for worker in workers.values():
        worker.end()
    return {mode: add_up(each[1:]) for mode, each in found.items()}


def add_up(stages: list[dict]) -> dict:
    mean = {name: statistics.mean(stage[name] for stage in stages) for name in ("tokens", "scored", "messages")}
    mean["seconds"] = {part: statistics.median(stage["seconds"][part] for stage in stages) for part in PARTS}
    for name in ("kl", "changed"):
        mean[name] = statistics.mean(value for stage in stages for value in stage[name])
    return mean


def show(title: str, found: dict[str, dict], radius: float):
    print(f"\n{title}, radius {radius}: per stage")
    columns = ("tokens", "/ stale", "scored", "kl / radius", "changed", "seconds", "/ stale", *PARTS)
    print(f"{'':<16}" + "".join(f"{column:>12}" for column in columns))
    stale, stale_seconds = found["stale"]["tokens"], sum(found["stale"]["seconds"].values())
    for mode, each in found.items():
        total = sum(each["seconds"].values())
        parts = "".join(f"{each['seconds'][part]:12.2f}" for part in PARTS)
        print(
            f"{mode:<16}{each['tokens']:12.0f}{each['tokens'] / stale:12.3f}{each['scored']:12.0f}"
            f"{each['kl'] / radius:12.2f}{each['changed']:12.3f}{total:12.2f}{total / stale_seconds:12.2f}" + parts,
            flush=True,
        )


def ratio(found: dict[str, dict], mode: str) -> float:
    return round(found[mode]["tokens"] / found["stale"]["tokens"], 4)


def measure_link(
    sizes: list[int], radii: list[float], learning_rate: float | None, stages: int, size: str, folder: str
) -> dict:
    save_start(Path(folder) / "link", max(SIZES), 0, size)
    result, modes = {}, SMOKE_MODES if size == "smoke" else MODES
    for radius in radii:
        key = "" if radius == 0.01 else f"_{radius}"
        table = {}
        for n in sizes:
            setup = {"task": "link", "agents": n, "radius": radius, "folder": folder, "learning_rate": learning_rate}
            setup["smoke"] = size == "smoke"
            table[n] = measure(setup, modes, stages)
            show(f"LINK, n = {n}", table[n], radius)
            speculative = table[n]["speculative"]
            result[f"speculative_tokens_ratio_n{n}{key}"] = ratio(table[n], "speculative")
            result |= {f"kl_mean_n{n}{key}": speculative["kl"], f"changed_n{n}{key}": speculative["changed"]}
        for mode in modes:
            tokens = slope(sizes, [table[n][mode]["tokens"] for n in sizes])
            time_ = slope(sizes, [sum(table[n][mode]["seconds"].values()) for n in sizes])
            print(f"{mode:<16} exponent in n at radius {radius}: tokens {tokens:.2f}, seconds {time_:.2f}", end="")
            for part in PARTS[:2]:
                print(f", {part} {slope(sizes, [table[n][mode]['seconds'][part] for n in sizes]):.2f}", end="")
            print(flush=True)
            name = mode.replace(" ", "_")
            result |= {f"{name}_tokens_exponent{key}": tokens, f"{name}_seconds_exponent{key}": time_}
    return result


def measure_long(stages: int, smoke: bool) -> dict:
    setup = {"task": "long", "agents": 3, "radius": 0.01, "smoke": smoke}
    found = measure(setup, ("stale", "full", "speculative"), stages)
    show(f"messages of {LONG} tokens, n = 3", found, 0.01)
    length = found["full"]["tokens"] / 3 / found["full"]["messages"]
    print(f"mean length of a message: {length:.1f} tokens")
    speculative = found["speculative"]
    return {
        "speculative_tokens_ratio_long": ratio(found, "speculative"),
        "mean_length_long": length,
        "kl_mean_long": speculative["kl"],
        "changed_long": speculative["changed"],
    }


def measure_smollm2(model: str, stages: int, smoke: bool) -> dict:
    modes = ("stale", "full", "suffix reversed", "speculative")
    setup = {"task": "smollm2", "agents": 2, "radius": 0.01, "model": model, "smoke": smoke}
    found = measure(setup, modes, stages)
    show("two LoRA agents on one SmolLM2-135M-Instruct, reasoning-gym", found, 0.01)
    total = {mode: sum(each["seconds"].values()) for mode, each in found.items()}
    return {
        "tokens_ratio": {mode: ratio(found, mode) for mode in modes},
        "seconds_ratio": {mode: round(total[mode] / total["stale"], 3) for mode in modes},
        "kl_mean": found["speculative"]["kl"],
        "changed": found["speculative"]["changed"],
    }


def main(options):
    if options.work:
        return work(json.loads(options.work))
    random.seed(0)
    short, smoke = options.size != "full", options.size == "smoke"
    if options.model:
        result = measure_smollm2(options.model, 1 if short else 2, smoke)
    else:
        stages, sizes = (1, options.sizes[:2]) if short else (4, options.sizes)
        radii = [options.radius] if options.radius else list(RADII[: 1 if smoke else None])
        with tempfile.TemporaryDirectory() as folder:
            result = measure_link(sizes, radii, options.learning_rate, stages, options.size, options.team or folder)
        if options.radius is None:
            result |= measure_long(stages, smoke)
    result = {name: round(value, 4) if isinstance(value, float) else value for name, value in result.items()}
    print(f"\n{describe_machine()}")
    print(json.dumps(result | {"size": options.size}))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_size(parser)
    parser.add_argument("--model", help="directory of SmolLM2-135M-Instruct: measure the team on it instead")
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="numbers of agents")
    parser.add_argument("--radius", type=float, choices=RADII, help="this one only, and no long messages")
    parser.add_argument("--learning_rate", type=float, help="of LINK, in place of the script's own")
    parser.add_argument("--team", help="folder in which the warmed-up LINK team is kept, or found")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main(make_parser().parse_args())
