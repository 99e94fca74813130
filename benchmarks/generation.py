"""
Where the time of a team's generation goes, and what could be saved of it.

    python benchmarks/generation.py                                        # a tiny model: a minute
    python benchmarks/generation.py --model runs/SmolLM2-135M-Instruct     # two agents, two rounds: some minutes
    python benchmarks/generation.py --quick
    python benchmarks/generation.py --smoke                                # seconds: says only that it runs

A team of two writes rollouts of two rounds, without training. Of its calls of `generate`, the script tells:

- prefill: the share of the seconds that the first forward pass of each call takes, which reads the contexts;
- padding: the share of the positions of these passes that only fill up shorter contexts;
- read before: the share of the contexts' tokens that the same agent had read or written in an earlier turn of the same
  rollout, so that a cache of keys and values that outlives the call could provide them;
- finished rows: the share of the rows of all decoding steps whose message had ended already;
- in halves: the seconds of the same contexts sorted by length and generated in two batches, relative to one batch, for the
  same number of steps; alternating, median over the calls.

Prints a table, and one JSON object last.
"""

import argparse
import json
import os
import statistics
import tempfile
import time


os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
os.environ["CI"] = "1"  # no telemetry

import torch  # noqa: E402
import transformers  # noqa: E402
from machine import describe_machine  # noqa: E402
from quiet import QUIET  # noqa: E402
from size import add_size  # noqa: E402
from transformers import GenerationConfig  # noqa: E402

from trl_teamtr import Agent, TeamTRConfig, TeamTRTrainer  # noqa: E402
from trl_teamtr.tasks import link, reasoning_gym  # noqa: E402


def make_trainer(model: str | None, smoke: bool, folder: str) -> TeamTRTrainer:
    if model is None:
        tokenizer = link.make_tokenizer()
        team = [Agent(name, link.make_model(tokenizer, i), processing_class=tokenizer) for i, name in enumerate("ab")]
        dataset, reward, length = link.make_dataset(2, 64, 0), link.link_reward, 24
    else:
        say = "You are a calculator. Explain in one sentence, then give the number."
        team = [Agent(name, model, system_prompt=say) for name in ("solver", "checker")]
        dataset, reward, length = (
            reasoning_gym.make_dataset("chain_sum", 64, 0),
            reasoning_gym.reasoning_gym_reward,
            32,
        )
    args = TeamTRConfig(
        folder,
        num_rounds=2,
        max_completion_length=4 if smoke else length,
        per_device_train_batch_size=8,
        temperature=0.8,
        **QUIET,
    )
    return TeamTRTrainer(team, reward, args, train_dataset=dataset)


class Calls:
    """Watches the calls of `generate` of a member."""

    def __init__(self, member):
        self.member, self.found = member, []
        self._generate, self._forward = member.model.generate, member.model.forward
        member.model.generate, member.model.forward = self.generate, self.forward

    def generate(self, input_ids, attention_mask, **kwargs):
        self._first_pass = None
        start = time.perf_counter()
        output = self._generate(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        call = {
            "seconds": time.perf_counter() - start,
            "prefill": self._first_pass,
            "inputs": (input_ids, attention_mask),
        }
        written, rows = output[:, input_ids.size(1) :], len(output)
        ends = torch.isin(written, torch.tensor(self.member.eos_token_ids))
        lengths = torch.where(ends.any(dim=1), ends.int().argmax(dim=1) + 1, written.size(1))
        call |= {"steps": written.size(1), "rows": rows, "lengths": lengths}
        self.found.append(call)
        return output

    def forward(self, *args, **kwargs):
        start = time.perf_counter()
        output = self._forward(*args, **kwargs)
        if self._first_pass is None:
            self._first_pass = time.perf_counter() - start
        return output

    def halves_over_whole(self, call: dict, repeats: int) -> float:
        """Seconds of two batches, sorted by length, over those of one."""
        ids, mask = call["inputs"]
        order = mask.sum(dim=1).argsort()
        parts = []
        for rows in order.chunk(2):
            width = mask[rows].sum(dim=1).max()
            parts.append((ids[rows, -width:], mask[rows, -width:]))
        seconds = {"halves": [], "whole": []}
        for _ in range(repeats):
            for name, batches in (("whole", [(ids, mask)]), ("halves", parts)):
                start = time.perf_counter()
                for contexts, masks in batches:
                    self._generate(contexts, attention_mask=masks, generation_config=self._config(call["steps"]))
                seconds[name].append(time.perf_counter() - start)
        return statistics.median(seconds["halves"]) / statistics.median(seconds["whole"])

    def _config(self, steps: int) -> GenerationConfig:
        return GenerationConfig(
            do_sample=True,
            top_k=0,
            max_new_tokens=steps,
            min_new_tokens=steps,
            eos_token_id=self.member.eos_token_ids,
            pad_token_id=self.member._tokenizer.pad_token_id,
        )


def main(options):
    model, short, smoke = options.model, options.size != "full", options.size == "smoke"
    transformers.set_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(model, smoke, folder)
    rows = [trainer.train_dataset[i // 4] for i in range(8 if model or smoke else 64)]
    trainer.team.collect(rows)  # first calls allocate
    watched = [Calls(member) for member in trainer.members]
    rollouts = [trainer.team.collect(rows) for _ in range(1 if short or model else 5)]
    calls = [call for each in watched for call in each.found]
    read = sum(int(call["inputs"][1].sum()) for call in calls)
    # The context of a later turn begins with all that the agent read and wrote up to its message before
    before = sum(
        sum(view.starts[:-1]) + sum(view.mask[: view.starts[-1] - len(view.prompt_ids)])
        for each in rollouts
        for views in each.views.values()
        for view in views
    )
    row_steps = sum(call["rows"] * call["steps"] for call in calls)
    result = {
        "prefill": sum(call["prefill"] for call in calls) / sum(call["seconds"] for call in calls),
        "padding": 1 - read / sum(call["inputs"][1].numel() for call in calls),
        "read before": before / read,
        "finished rows": 1 - sum(int(call["lengths"].sum()) for call in calls) / row_steps,
        "in halves": statistics.median(
            each.halves_over_whole(call, 1 if short else 3) for each in watched for call in each.found[:4]
        ),
    }
    steps = statistics.mean(call["steps"] for call in calls)
    print(
        f"{len(calls)} calls of generate, {calls[0]['rows']} rows each, {read / len(calls):.0f} tokens read, {steps:.0f} steps"
    )
    for name, value in result.items():
        print(f"  {name:<16}{value:8.3f}")
    print(describe_machine())
    print(json.dumps({name: round(value, 3) for name, value in result.items()} | {"size": options.size}))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_size(parser)
    parser.add_argument("--model", help="directory of SmolLM2-135M-Instruct")
    return parser


if __name__ == "__main__":
    main(make_parser().parse_args())
