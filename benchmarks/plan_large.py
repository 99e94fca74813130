"""
Plans of runs that need GPUs, made without one: from the shapes of Qwen3-8B and Qwen3-1.7B, of which no weights are needed.

    python benchmarks/plan_large.py > docs/results/plan_large.txt    # a minute
    python benchmarks/plan_large.py --smoke                          # small shapes, seconds: says only that it runs

Three LoRA agents on one 8B base for 20 GiB, the same with contexts of 16,384 tokens for 80 GiB, and three agents of 1.7B, all
weights trained, on eight GPUs of 24 GiB under ZeRO-3. Prints the plans, and one JSON object last: GiB of the device that the
largest phase takes, and whether all fit.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path


os.environ["CI"] = "1"  # no telemetry
ROOT = Path(__file__).resolve().parents[1]
NAMES = ("planner", "solver", "checker")

# Those of Qwen3-8B and Qwen3-1.7B
SHAPES = {
    "8B": {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32},
    "1.7B": {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "tie_word_embeddings": True,
    },
}
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 512,
}


def save_config(folder: str, name: str, smoke: bool) -> str:
    from transformers import Qwen3Config

    common = {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 40960}
    small = {**SMALL, "num_key_value_heads": 2, "head_dim": 16} if smoke else {}
    config = Qwen3Config(**common | SHAPES[name] | small, architectures=["Qwen3ForCausalLM"])
    path = os.path.join(folder, name)
    config.save_pretrained(path)
    return path


def make_plans(folder: str, smoke: bool):
    """The name of each plan, and the plan."""
    from peft import LoraConfig

    from trl_teamtr import Agent, TeamTRConfig, plan

    def make_args(**fields):
        common = {"use_cpu": True, "bf16": True, "gradient_checkpointing": True, "report_to": "none"}
        return TeamTRConfig(folder, num_generations=8, per_device_train_batch_size=2, **common | fields)

    large, small = (save_config(folder, name, smoke) for name in SHAPES)
    lora = [
        Agent(name, large, peft_config=LoraConfig(task_type="CAUSAL_LM", r=16, target_modules="all-linear"))
        for name in NAMES
    ]
    half = {"model_init_kwargs": {"dtype": "bfloat16"}}
    short = make_args(max_completion_length=1000, steps_per_generation=4, **half)
    yield "3 LoRA agents, 8B, 20 GiB", plan(lora, short, device_memory_gib=20)
    long = make_args(max_completion_length=5000, max_context_length=16384, steps_per_generation=4, **half)
    yield "3 LoRA agents, 8B, contexts of 16,384, 80 GiB", plan(lora, long, device_memory_gib=80, prompt_length=1024)
    whole = make_args(max_completion_length=1000, steps_per_generation=4)
    zero3 = str(ROOT / "accelerate_configs" / "zero3.yaml")
    team = [Agent(name, small) for name in NAMES]
    yield "3 agents, 1.7B, ZeRO-3 on 8 GPUs of 24 GiB", plan(team, whole, launch=zero3, device_memory_gib=24)


def main(options):
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, planned in make_plans(folder, options.smoke):
            print(f"# {name}\n\n{planned}\n")
            found[name] = {"gib": round(planned.peak.device / 2**30, 2), "fits": planned.fits}
    print(json.dumps({"size": "smoke" if options.smoke else "full", "plans": found}))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="small shapes: says only that it runs")
    return parser


if __name__ == "__main__":
    main(make_parser().parse_args())
