"""
What a team of one costs beside TRL's own `GRPOTrainer`: wall time per update on the same rollout sizes.

    python benchmarks/team_of_one.py            # about five minutes on two cores
    python benchmarks/team_of_one.py --quick    # under a minute

One process holds both trainers, and one with the trust region. They take turns, one generation batch at a time, in an
order that is drawn anew each round; the ratio is the median over rounds. Every message has the full length
(no end-of-turn token is sampled), so that all do the same work. `num_iterations=2` everywhere: for TRL a batch serves two
optimizer steps, for a team of one it is one update of two inner steps.

Prints where the time goes ("scoring" is a forward pass without gradient: of TRL, for the old log-probabilities; of the
team with a radius, to measure the KL), and one JSON object last: `ratio` (radius None), `ratio_with_radius` (k3, one forward pass
more), and the sizes.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time


os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
os.environ["CI"] = "1"  # no telemetry

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from machine import describe_machine  # noqa: E402
from transformers import Qwen3Config, Qwen3ForCausalLM, TrainerCallback  # noqa: E402
from transformers.trainer_callback import PrinterCallback  # noqa: E402
from trl import GRPOConfig, GRPOTrainer  # noqa: E402

from trl_teamtr import TeamTRConfig, TeamTRTrainer  # noqa: E402
from trl_teamtr.tasks.link import make_tokenizer  # noqa: E402


SIZES = {
    "quick": {"hidden": 128, "rollouts": 32, "length": 16, "rounds": 12},
    "full": {"hidden": 256, "rollouts": 64, "length": 48, "rounds": 30},
}


def reward(completions, **kwargs):
    return [float(completion[0]["content"].count("A")) for completion in completions]


class Turns(TrainerCallback):
    """Hands the processor from trainer to trainer at the end of each generation batch, and takes the time."""

    def __init__(self, steps_per_batch: int):
        self.steps_per_batch, self.seconds, self.start = steps_per_batch, [], None

    def on_train_begin(self, args, state, control, **kwargs):
        self.start = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self.steps_per_batch == 0:
            self.seconds.append(time.perf_counter() - self.start)
            control.should_training_stop = True  # one batch, then it is the next one's turn


def make_model(tokenizer, hidden: int) -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=hidden // 4,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config)


def make_trainer(kind: str, size: dict, folder: str):
    tokenizer = make_tokenizer()
    common = {
        "output_dir": os.path.join(folder, kind),
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_dropout": True,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_strategy": "no",
        "lr_scheduler_type": "constant",
        "learning_rate": 1e-6,  # so that no update is stopped early: all make the same passes
        "num_generations": 8,
        "num_iterations": 2,
        "per_device_train_batch_size": size["rollouts"] // 2,
        "gradient_accumulation_steps": 2,
        "max_completion_length": size["length"],
        # Never sampled, so that every message has the full length
        "generation_kwargs": {"suppress_tokens": [tokenizer.eos_token_id, tokenizer.pad_token_id]},
    }
    prompts = [
        [{"role": "user", "content": "".join(random.Random(i).choices("012345ABCDEF", k=32))}] for i in range(512)
    ]
    dataset = Dataset.from_dict({"prompt": prompts})
    turns = Turns(2 if kind == "grpo" else 1)
    arguments = {"train_dataset": dataset, "processing_class": tokenizer, "callbacks": [turns]}
    model = make_model(tokenizer, size["hidden"])
    if kind == "grpo":
        trainer = GRPOTrainer(model, reward, GRPOConfig(max_steps=10**6, **common), **arguments)
    else:
        radius = {"team": None, "team_with_radius": 0.01}[kind]
        args = TeamTRConfig(
            max_steps=10**6, trust_region_radius=radius, kl_coef=0.0 if radius is None else 0.1, **common
        )
        trainer = TeamTRTrainer(model, reward, args, **arguments)
    trainer.remove_callback(PrinterCallback)
    return trainer, turns


PARTS = ("generation", "scoring", "forward with gradient", "backward")


def time_parts(trainer) -> dict[str, float]:
    """Seconds that `trainer` spends in each of `PARTS`, counted up while it trains."""
    seconds = dict.fromkeys(PARTS, 0.0)

    def watch(owner, name, part):
        method = getattr(owner, name)

        def call(*args, **kwargs):
            start, before = time.perf_counter(), sum(seconds.values())
            result = method(*args, **kwargs)
            # A part within a part counts once
            seconds[part()] += time.perf_counter() - start - (sum(seconds.values()) - before)
            return result

        setattr(owner, name, call)

    def scoring() -> str:
        return "forward with gradient" if torch.is_grad_enabled() else "scoring"

    watch(trainer, "_generate_single_turn", lambda: "generation")
    watch(trainer, "_get_per_token_logps_and_entropies", scoring)
    watch(trainer.accelerator, "backward", lambda: "backward")
    return seconds


def main(quick: bool):
    size = SIZES["quick" if quick else "full"]
    random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        trainers = {kind: make_trainer(kind, size, folder) for kind in ("grpo", "team", "team_with_radius")}
        parts = {kind: time_parts(trainer) for kind, (trainer, _) in trainers.items()}
        for round_ in range(size["rounds"] + 1):
            for kind in random.sample(list(trainers), len(trainers)):
                trainer, turns = trainers[kind]
                trainer.train()
                if round_ == 0:  # first calls allocate and compile
                    turns.seconds.clear()
                    parts[kind].update(dict.fromkeys(PARTS, 0.0))
    print(f"{'ms per generation batch':<24}" + "".join(f"{kind:>18}" for kind in trainers))
    means = {kind: statistics.mean(turns.seconds) for kind, (_, turns) in trainers.items()}
    for part in PARTS:
        print(f"  {part:<22}" + "".join(f"{1e3 * parts[kind][part] / size['rounds']:18.1f}" for kind in trainers))
    rest = [means[kind] - sum(parts[kind].values()) / size["rounds"] for kind in trainers]
    print(f"  {'everything else':<22}" + "".join(f"{1e3 * value:18.1f}" for value in rest))
    print(f"  {'all':<22}" + "".join(f"{1e3 * mean:18.1f}" for mean in means.values()))
    report = trainers["team_with_radius"][0].last_report
    print(f"The last update with a radius made {report.inner_steps} inner steps and {report.backtracks} halvings.")
    print(describe_machine())
    theirs = trainers["grpo"][1].seconds
    ratio, ratio_with_radius = (
        statistics.median(a / b for a, b in zip(trainers[kind][1].seconds, theirs, strict=True))
        for kind in ("team", "team_with_radius")
    )
    result = {"ratio": round(ratio, 3), "ratio_with_radius": round(ratio_with_radius, 3), "quick": quick}
    print(json.dumps(result | size))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    main(parser.parse_args().quick)
