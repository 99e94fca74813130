"""
Hashes of the weights, the logs and the transcripts of six short runs, by which two versions of the code are compared.

    python benchmarks/fingerprints.py                     # a minute on two cores
    python benchmarks/fingerprints.py --smoke             # seconds: says only that it runs
    PYTHONPATH=path/to/another/checkout python benchmarks/fingerprints.py --only full suffix

A change that should not change behaviour leaves every hash as it is, on the same machine with the same versions. The
logs are hashed without timings, the transcripts as the reward function gets them, in training and in evaluation.
Prints one line per run, and one JSON object last.
"""

import argparse
import hashlib
import json
import os
import tempfile


os.environ["OMP_NUM_THREADS"] = "1"  # sums in one order, whatever the machine
os.environ["CI"] = "1"  # no telemetry

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from machine import describe_machine  # noqa: E402
from peft import LoraConfig  # noqa: E402
from quiet import QUIET  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, set_seed  # noqa: E402
from transformers.trainer_callback import PrinterCallback  # noqa: E402

from trl_teamtr import Agent, TeamTRConfig, TeamTRTrainer
from trl_teamtr.tasks import link


TIMINGS = ("runtime", "per_second", "seconds", "step_time", "total_flos")


def make_agents(count: int, tokenizer, **fields) -> list[Agent]:
    return [
        Agent(link.NAMES[i], link.make_model(tokenizer, seed=i), processing_class=tokenizer, **fields)
        for i in range(count)
    ]


def make_heterogeneous_team(tokenizer) -> list[Agent]:
    """Another family, another size, and an agent that is not trained."""
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    first, second = make_agents(2, tokenizer)
    second.trainable = False
    third = Agent("c", LlamaForCausalLM(config), processing_class=tokenizer, generation_kwargs={"temperature": 0.9})
    return [first, second, third]


def make_shared_team(tokenizer) -> list[Agent]:
    """Adapters on one base in memory."""
    base, peft = (
        link.make_model(tokenizer, seed=0),
        LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    return [Agent(name, base, processing_class=tokenizer, peft_config=peft) for name in link.NAMES[:3]]


# What each run sets beside the settings that all share
RUNS = {
    "full": {"resampling": "full", "radius_schedule": "horizon", "num_rounds": 2},
    "speculative": {"resampling": "speculative", "num_rounds": 2},
    "suffix": {"resampling": "suffix", "num_rounds": 2, "router": "random"},
    "heterogeneous": {"kl_estimator": "exact", "beta": 0.0},
    "lora": {"update_order": "random", "log_occupancy": True, "diagnostics_every": 1},
    "importance": {"resampling": "importance", "importance_clip": 2.0},
}
TEAMS = {"heterogeneous": make_heterogeneous_team, "lora": make_shared_team}


class Hashes:
    """Hashes of a run, one for each of its kinds of output."""

    def __init__(self):
        self._digests = {}

    def add(self, kind: str, data: bytes):
        self._digests.setdefault(kind, hashlib.sha256()).update(data)

    def as_dict(self) -> dict[str, str]:
        return {kind: digest.hexdigest()[:16] for kind, digest in self._digests.items()}


def run(name: str, stages: int, folder: str) -> dict[str, str]:
    """Train and evaluate once; the hashes of what came of it."""
    set_seed(0)
    tokenizer, hashes = link.make_tokenizer(), Hashes()

    def reward(transcripts, digits, **kwargs):
        """Different for most rollouts of random models, and dependent on every message."""
        hashes.add("transcripts", json.dumps(transcripts).encode())
        read = link.link_reward(transcripts, digits)
        texts = ["".join(message["content"] for message in messages) for messages in transcripts]
        letters = [sum(text.count(letter) for letter in "ABC0123") for text in texts]
        return [score + count / 20 for score, count in zip(read, letters, strict=True)]

    args = TeamTRConfig(
        os.path.join(folder, name),
        num_stages=stages,
        num_generations=4,
        per_device_train_batch_size=16,
        steps_per_generation=2,
        per_device_eval_batch_size=16,
        max_completion_length=5,
        learning_rate=3e-3,
        lr_scheduler_type="linear",
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=3,
        **RUNS[name],
        **QUIET,
    )
    team = TEAMS.get(name, lambda tokenizer: make_agents(3, tokenizer))(tokenizer)
    rows: Dataset = link.make_dataset(3, 64, seed=1)
    trainer = TeamTRTrainer(team, reward, args, train_dataset=rows, eval_dataset=rows.take(8))
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    for member in trainer.members:
        for key, tensor in sorted(member.model.state_dict().items()):
            hashes.add("weights", key.encode() + tensor.contiguous().numpy().tobytes())
    for log in trainer.state.log_history:
        kept = {key: value for key, value in log.items() if not any(part in key for part in TIMINGS)}
        hashes.add("logs", json.dumps(kept, sort_keys=True).encode())
    return hashes.as_dict()


def main(options):
    stages = 1 if options.smoke else 3
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for name in options.only:
            found[name] = run(name, stages, folder)
            print(
                f"{name:<14}" + "  ".join(f"{kind} {value}" for kind, value in sorted(found[name].items())), flush=True
            )
    print(describe_machine())
    print(json.dumps(found, sort_keys=True))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--smoke", action="store_true", help="one stage each: other hashes; says only that they run")
    return parser


if __name__ == "__main__":
    main(make_parser().parse_args())
