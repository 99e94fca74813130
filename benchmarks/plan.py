"""
What `trl_teamtr.plan` says of a run, beside what is measured: memory and time of three teams on SmolLM2-135M-Instruct.

    python scripts/prepare_smollm2.py runs/SmolLM2-135M-Instruct
    python benchmarks/plan.py                    # about ten minutes on two cores, and 8 GiB
    python benchmarks/plan.py --quick            # with a tiny model of random weights, a minute
    python benchmarks/plan.py --smoke            # one team, in this process, seconds: says only that it runs

Each team trains two stages in a process of its own: once with PyTorch's profiler, whose account of allocated memory is that of
benchmarks/memory.py, and once for the time of the second stage. The plan is made in the same process before the run, with
the length of the prompt as its tokenizer gives it.

Prints the table and one JSON object last: the ratios of planned to measured.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from link_start import save_stand_in
from machine import describe_machine
from memory import peak_of_tensors
from quiet import QUIET
from size import add_size


os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
os.environ["CI"] = "1"  # no telemetry

TEAMS = ("3 LoRA agents, shared base", "2 full agents", "2 full agents, one frozen")
MESSAGE_LENGTH = 12  # tokens
PROMPT = " ".join(f"{i} apples and {i + 1} pears," for i in range(6)) + " how many fruits?"


def make_team(kind: str, model: str):
    from peft import LoraConfig

    from trl_teamtr import Agent

    if kind == TEAMS[0]:
        return [Agent(f"agent_{i}", model, peft_config=LoraConfig(task_type="CAUSAL_LM", r=8)) for i in range(3)]
    return [Agent("agent_0", model), Agent("agent_1", model, trainable=kind != TEAMS[2])]


def make_args(folder: str, model: str):
    from transformers import AutoConfig

    from trl_teamtr import TeamTRConfig

    return TeamTRConfig(
        folder,
        num_stages=2,
        resampling="full",
        num_generations=4,
        per_device_train_batch_size=4,
        max_completion_length=MESSAGE_LENGTH,
        num_iterations=2,
        # The plan is of messages that are as long as they may be, and of updates that do not stop early
        generation_kwargs={"eos_token_id": AutoConfig.from_pretrained(model).vocab_size - 1},
        trust_region_radius=1e3,
        **QUIET,
    )


def run_cell(kind: str, model: str) -> dict[str, float]:
    from datasets import Dataset
    from torch.profiler import ProfilerActivity, profile
    from transformers import AutoTokenizer

    from trl_teamtr import TeamTRTrainer, plan

    stages = []

    def reward(prompts, completions, **kwargs):
        return [float(len(text) % 7) for text in completions]

    class Trainer(TeamTRTrainer):
        def _run_stage(self, *args, **kwargs):
            start = time.perf_counter()
            super()._run_stage(*args, **kwargs)
            stages.append(time.perf_counter() - start)

    dataset = Dataset.from_dict({"prompt": [PROMPT] * 4})
    with tempfile.TemporaryDirectory() as folder:
        args = make_args(folder, model)
        length = len(AutoTokenizer.from_pretrained(model)(f"{PROMPT}\n\nagent_0:").input_ids)
        planned = plan(make_team(kind, model), args, prompt_length=length, calibrate=True)
        gc.collect()  # what is freed later would be missing from the account
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            Trainer(make_team(kind, model), reward, make_args(folder, model), train_dataset=dataset).train()
        trace = os.path.join(folder, "trace.json")
        profiler.export_chrome_trace(trace)
        stages.clear()
        Trainer(make_team(kind, model), reward, make_args(folder, model), train_dataset=dataset).train()
        return {
            "planned_mib": planned.peak.total / 2**20,
            "measured_mib": peak_of_tensors(trace),
            "planned_seconds": sum(planned.seconds.values()),
            "measured_seconds": stages[1],
        }


def measure(kind: str, model: str) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", __file__, "--cell", kind, "--model", model]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure_all(model: str, size: str):
    print(f"planned and measured ({os.path.basename(model) if size == 'full' else 'tiny model'})")
    print(f"{'team':<30}{'MiB':>10}{'measured':>10}{'ratio':>8}{'s/stage':>10}{'measured':>10}{'ratio':>8}")
    ratios = {}
    for kind in TEAMS[: 1 if size == "smoke" else None]:
        cell = (run_cell if size == "smoke" else measure)(kind, model)
        memory = cell["planned_mib"] / cell["measured_mib"]
        print(f"{kind:<30}{cell['planned_mib']:10.0f}{cell['measured_mib']:10.0f}{memory:8.2f}", end="")
        seconds = cell["planned_seconds"] / cell["measured_seconds"]
        # 0 where the device was too slow to tell within the calibration's budget
        told = f"{cell['planned_seconds']:10.1f}{cell['measured_seconds']:10.1f}{seconds:8.2f}"
        print(told if seconds else f"{'not told':>10}{cell['measured_seconds']:10.1f}{'-':>8}", flush=True)
        ratios[kind] = {"memory": round(memory, 3), "time": round(seconds, 2) or None}
    print(describe_machine())
    print(json.dumps({"size": size, "planned_over_measured": ratios}))


def main(options):
    if options.cell:
        print(json.dumps(run_cell(options.cell, options.model)))
    elif options.size == "full":
        measure_all(options.model, options.size)
    else:
        with tempfile.TemporaryDirectory() as tiny:
            measure_all(save_stand_in(Path(tiny)), options.size)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_size(parser)
    parser.add_argument("--model", default="runs/SmolLM2-135M-Instruct", help="directory of the base model")
    parser.add_argument("--cell", metavar="TEAM", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main(make_parser().parse_args())
