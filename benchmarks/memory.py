"""
Peak memory of a team in training, for 1, 2, 3, 5 and 8 agents on SmolLM2-135M-Instruct: all weights trained, LoRA on a
base for each agent, LoRA on one shared base.

    python scripts/prepare_smollm2.py runs/SmolLM2-135M-Instruct
    python benchmarks/memory.py                  # about half an hour on two cores, and 18 GiB
    python benchmarks/memory.py --quick          # 1 and 2 agents with a tiny model of random weights, two minutes
    python benchmarks/memory.py --smoke          # one agent, in this process, seconds: says only that it runs

Each cell is a process of its own that trains one stage, so that every agent has its moments, and reports the most MiB
that PyTorch had allocated at one time (its profiler's account; on a GPU this would be `max_memory_allocated`). It does not
count the libraries, nor what the C library keeps of freed memory, which the resident set of a process on a CPU shows too.
On a machine without a GPU the moments of idle agents, which leave the device, have nowhere else to go: what grows with
full agents here are weights and moments, on a GPU weights alone.

Each agent reads the messages before its own, so that contexts, and with them activations, grow with the team. That is not
what the agents themselves take: `max_context_length` keeps all contexts about as long as that of a single agent ("context").

Prints the table and one JSON object last: `shared_8_over_1`, the ratio of 8 LoRA agents on the shared base to one.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from link_start import save_stand_in
from machine import describe_machine
from quiet import QUIET
from size import add_size


os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
os.environ["CI"] = "1"  # no telemetry

COUNTS = (1, 2, 3, 5, 8)
KINDS = ("full", "lora", "lora on a shared base")
MESSAGE_LENGTH, MARGIN = 4, 16  # tokens; the margin has room for one message of a teammate
PROMPT = " ".join(f"{i} apples and {i + 1} pears," for i in range(10)) + " how many fruits?"


def peak_of_tensors(trace: str) -> float:
    """Most bytes that PyTorch had allocated at one time, in MiB."""
    with open(trace, encoding="utf-8") as file:
        events = [event for event in json.load(file)["traceEvents"] if event["name"] == "[memory]"]
    events.sort(key=lambda event: event["ts"])
    # Not the events' own totals: those do not count what threads of their own allocated, such as the weights
    return max(itertools.accumulate(event["args"]["Bytes"] for event in events)) / 2**20


def run_cell(kind: str, count: int, model: str) -> dict[str, float]:
    """Trains one stage; returns its peak and the longest context."""
    from datasets import Dataset
    from peft import LoraConfig
    from torch.profiler import ProfilerActivity, profile
    from transformers import AutoTokenizer

    from trl_teamtr import Agent, TeamTRConfig, TeamTRTrainer

    contexts = []

    def reward(prompts, completions, **kwargs):
        return [float(len(text) % 7) for text in completions]

    class Trainer(TeamTRTrainer):
        def _generate_and_score_completions(self, inputs, rollouts=None):
            contexts.extend(len(view.context) for views in rollouts.views.values() for view in views)
            return super()._generate_and_score_completions(inputs, rollouts)

    lora = None if kind == "full" else LoraConfig(task_type="CAUSAL_LM", r=8)
    team = [Agent(f"agent_{i + 1}", model, peft_config=lora) for i in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        args = TeamTRConfig(
            folder,
            num_stages=1,
            resampling="full",
            num_generations=4,
            per_device_train_batch_size=4,
            max_completion_length=MESSAGE_LENGTH,
            max_context_length=len(AutoTokenizer.from_pretrained(model)(PROMPT).input_ids) + MARGIN,
            num_iterations=2,
            share_base_model=kind == KINDS[2],
            **QUIET,
        )
        dataset = Dataset.from_dict({"prompt": [PROMPT, PROMPT]})
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            Trainer(team, reward, args, train_dataset=dataset).train()
        trace = os.path.join(folder, "trace.json")
        profiler.export_chrome_trace(trace)
        return {"peak": peak_of_tensors(trace), "context": max(contexts)}


def measure(kind: str, count: int, model: str) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", __file__, "--cell", kind, str(count), "--model", model]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure_all(model: str, counts: tuple[int, ...], size: str):
    title = os.path.basename(model) if size == "full" else "tiny model"
    print(f"peak MiB of one stage ({title})")
    print(f"{'agents':<24}" + "".join(f"{count:>10}" for count in counts))
    cells = {}
    for kind in KINDS:
        cells[kind] = [(run_cell if size == "smoke" else measure)(kind, count, model) for count in counts]
        peaks = [cell["peak"] for cell in cells[kind]]
        print(f"{kind:<24}" + "".join(f"{peak:10.0f}" for peak in peaks))
        print(f"{'  over one agent':<24}" + "".join(f"{peak / peaks[0]:10.2f}" for peak in peaks))
        print(f"{'  context, tokens':<24}" + "".join(f"{cell['context']:10}" for cell in cells[kind]), flush=True)
    print(describe_machine())
    shared = [cell["peak"] for cell in cells[KINDS[2]]]
    print(json.dumps({f"shared_{counts[-1]}_over_1": round(shared[-1] / shared[0], 3), "size": size, "cells": cells}))


def main(options):
    if options.cell:
        print(json.dumps(run_cell(options.cell[0], int(options.cell[1]), options.model)))
    elif options.size == "full":
        measure_all(options.model, COUNTS, options.size)
    else:
        with tempfile.TemporaryDirectory() as tiny:
            measure_all(save_stand_in(Path(tiny)), COUNTS[: 2 if options.size == "quick" else 1], options.size)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_size(parser)
    parser.add_argument("--model", default="runs/SmolLM2-135M-Instruct", help="directory of the base model")
    parser.add_argument("--cell", nargs=2, metavar=("KIND", "COUNT"), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main(make_parser().parse_args())
