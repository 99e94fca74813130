"""
How far a whole stage is above its limit: the sum of bare `model.generate` and forward-backward for the same tokens.

    python benchmarks/overhead.py            # about ten minutes on two cores
    python benchmarks/overhead.py --quick    # two minutes
    python benchmarks/overhead.py --smoke    # seconds: says only that it runs
    python benchmarks/overhead.py --model runs/SmolLM2-135M-Instruct    # two LoRA agents on one base

After each stage of a team, copies of its models do nothing but the stage's work once more: for every message that was
written, `generate` on the same padded contexts, for as many steps; for every gradient pass, a forward pass to the
log-probabilities of the same padded batch, and a backward pass. The ratio is the median over stages of the stage's time to
that. Not in the limit, and so in the ratio: measuring the KL (a forward pass for k3, two for exact), the trust region's
copies, the optimizer, rewards, rendering, logging, and with speculative rollouts their verification.

"tiny" is LINK's team of three (0.1 M parameters each, 48 prompts x 8, 3-token messages); "small" has 1 M parameters each
and messages of up to 48 tokens (4 prompts x 8). Prints where the time goes, and one JSON object last.
"""

import argparse
import contextlib
import copy
import json
import os
import statistics
import tempfile
import time
from unittest import mock


os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
os.environ["CI"] = "1"  # no telemetry

import torch  # noqa: E402
import transformers  # noqa: E402
from datasets import Dataset  # noqa: E402
from machine import describe_machine  # noqa: E402
from peft import LoraConfig  # noqa: E402
from quiet import QUIET  # noqa: E402
from size import add_size  # noqa: E402
from transformers import GenerationConfig, Qwen3ForCausalLM, TrainerCallback  # noqa: E402
from transformers.trainer_callback import PrinterCallback  # noqa: E402
from trl.trainer.utils import selective_log_softmax  # noqa: E402

from trl_teamtr import Agent, TeamTRConfig, TeamTRTrainer  # noqa: E402
from trl_teamtr.rollouts import drafts  # noqa: E402
from trl_teamtr.tasks import link, reasoning_gym  # noqa: E402


# What a run to see that it runs has instead
SMOKE = {"per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 3, "num_iterations": 2}
PARTS = (
    "generate",
    "turn loop",
    "verification",
    "rewards, batch",
    "forward",
    "backward",
    "KL",
    "optimizer",
    "copies",
    "everything else",
)


class Clock:
    """Seconds for each part; a part within a part counts once."""

    def __init__(self):
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._inner = [0.0]
        self.stopped = False

    @contextlib.contextmanager
    def part(self, name: str):
        start = time.perf_counter()
        self._inner.append(0.0)
        yield
        elapsed = time.perf_counter() - start
        inner = self._inner.pop()
        self._inner[-1] += elapsed
        if not self.stopped:
            self.seconds[name] += elapsed - inner

    def timed(self, function, part: str):
        def call(*args, **kwargs):
            with self.part(part):
                return function(*args, **kwargs)

        return call

    def watch(self, owner, name: str, part: str):
        setattr(owner, name, self.timed(getattr(owner, name), part))


class Recorder:
    """What the bare run needs: the inputs of each `generate`, and the batch and number of passes of each update."""

    def __init__(self, trainer: TeamTRTrainer):
        self.generated, self.passes = [], []
        # Clones made before anything is watched
        self.models = {member.name: copy.deepcopy(member.model) for member in trainer.members}
        for member in trainer.members:
            self._record(member)

    def _record(self, member):
        generate, accumulate = member.model.generate, member._accumulate

        def recorded_generate(input_ids=None, attention_mask=None, **kwargs):
            output = generate(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
            if "output_logits" not in kwargs:  # as the check at the start of training asks for
                self.generated.append((member.name, input_ids, attention_mask, output.size(1) - input_ids.size(1)))
            return output

        def recorded_accumulate(micro_batches):
            self.passes.append((member.name, micro_batches))
            return accumulate(micro_batches)

        member.model.generate, member._accumulate = recorded_generate, recorded_accumulate

    def run_bare(self, temperature: float) -> tuple[float, float]:
        """Seconds of bare generation and of bare forward-backward for what was recorded; forgets it."""
        start = time.perf_counter()
        for name, ids, mask, steps in self.generated:
            config = GenerationConfig(
                do_sample=True,
                top_k=0,
                temperature=temperature,
                max_new_tokens=steps,
                min_new_tokens=steps,
                eos_token_id=self.models[name].generation_config.eos_token_id,
                pad_token_id=0,
            )
            with torch.no_grad():
                self.models[name].eval().generate(input_ids=ids, attention_mask=mask, generation_config=config)
        generation = time.perf_counter() - start
        for name, micro_batches in self.passes:
            for batch in micro_batches:
                ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
                mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
                own = batch["completion_ids"]
                keep = own.size(1) + 1
                logits = (
                    self.models[name].train()(ids, attention_mask=mask, logits_to_keep=keep, use_cache=False).logits
                )
                (selective_log_softmax(logits[:, :-1], own) * batch["tool_mask"]).sum().backward()
            self.models[name].zero_grad()
        self.generated.clear()
        self.passes.clear()
        return generation, time.perf_counter() - start - generation


class Stages(TrainerCallback):
    """Takes the time of each stage, and then of the bare run, with the clock stopped."""

    def __init__(self, num_agents: int, clock: Clock):
        self.num_agents, self.clock, self.recorder = num_agents, clock, None
        self.whole, self.bare = [], []

    def on_train_begin(self, args, state, control, **kwargs):
        self.start = time.perf_counter()

    def on_log(self, args, state, control, **kwargs):
        if state.global_step % self.num_agents or len(self.whole) * self.num_agents == state.global_step:
            return
        self.whole.append(time.perf_counter() - self.start)
        self.clock.stopped = True
        self.bare.append(self.recorder.run_bare(args.temperature))
        self.clock.stopped = False
        if len(self.whole) == 1:  # first calls allocate
            self.clock.seconds = dict.fromkeys(PARTS, 0.0)
        self.start = time.perf_counter()


def watch(trainer: TeamTRTrainer, clock: Clock):
    clock.watch(trainer.resampler, "rollouts", "turn loop")
    for member in trainer.members:
        clock.watch(member.model, "generate", "generate")
        clock.watch(member, "_generate_and_score_completions", "rewards, batch")
        clock.watch(member, "update", "copies")
        clock.watch(member, "_compute_loss", "forward")
        clock.watch(member.accelerator, "backward", "backward")
        clock.watch(member, "measure_kl", "KL")
        clock.watch(member, "_optimizer_step", "optimizer")


def common_arguments(stages: int) -> dict:
    return {
        "num_stages": stages,
        "learning_rate": 2e-4,
        "lr_scheduler_type": "constant",
        "trust_region_radius": 0.2,
        "kl_coef": 0.03,
        "logging_steps": 1,
        **QUIET,
    }


def tiny_team() -> dict:
    tokenizer = link.make_tokenizer()
    names = link.NAMES[:3]
    team = [Agent(name, link.make_model(tokenizer, i), processing_class=tokenizer) for i, name in enumerate(names)]
    args = {"per_device_train_batch_size": 384, "max_completion_length": 3, "num_iterations": 10}
    return {
        "model": team,
        "reward_funcs": link.link_reward,
        "train_dataset": link.make_dataset(3, 2000, 0),
        "args": args | {"num_generations": 8},
    }


def small_team() -> dict:
    tokenizer = link.make_tokenizer()
    config = link.make_model(tokenizer, 0).config
    config.update({"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "head_dim": 32})
    config.update({"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024})
    config.layer_types = None
    config = type(config)(**config.to_dict())
    torch.manual_seed(0)
    team = [Agent(name, Qwen3ForCausalLM(config), processing_class=tokenizer) for name in link.NAMES[:3]]
    args = {"per_device_train_batch_size": 32, "max_completion_length": 48, "num_iterations": 3, "num_generations": 8}
    prompts = [[{"role": "user", "content": f"{i:064b}"}] for i in range(500)]

    def reward(transcripts, **kwargs):
        return [sum(message["content"].count("A") for message in messages) / 48 for messages in transcripts]

    return {
        "model": team,
        "reward_funcs": reward,
        "train_dataset": Dataset.from_dict({"prompt": prompts}),
        "args": args,
    }


def model_team(model: str) -> dict:
    lora = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}
    team = [
        Agent(
            name, model, system_prompt="You are a calculator.", peft_config=LoraConfig(task_type="CAUSAL_LM", **lora)
        )
        for name in ("solver", "checker")
    ]
    args = {"per_device_train_batch_size": 16, "max_completion_length": 24, "num_iterations": 2, "num_generations": 8}
    return {
        "model": team,
        "reward_funcs": reasoning_gym.reasoning_gym_reward,
        "train_dataset": reasoning_gym.make_dataset("chain_sum", 500, 0, min_terms=2, max_terms=2),
        "args": args,
    }


def measure(title: str, team: dict, stages: int, resampling: str, estimator: str, own: dict) -> float:
    """Train for `stages` stages and one before them, with `own` settings; print the table; return the ratio."""
    transformers.set_seed(0)
    clock = Clock()
    callback = Stages(len(team["model"]), clock)
    arguments = common_arguments(stages + 1) | team["args"] | own
    arguments |= {"resampling": resampling, "kl_estimator": estimator}
    if own:
        team["train_dataset"] = team["train_dataset"].take(50)
    with tempfile.TemporaryDirectory() as folder:
        trainer = TeamTRTrainer(**team | {"args": TeamTRConfig(folder, **arguments)}, callbacks=[callback])
        trainer.remove_callback(PrinterCallback)
        callback.recorder = Recorder(trainer)
        watch(trainer, clock)
        with mock.patch.object(drafts, "check_drafts", clock.timed(drafts.check_drafts, "verification")):
            trainer.train()
    whole, bare = callback.whole[1:], callback.bare[1:]
    ratio = statistics.median(stage / sum(parts) for stage, parts in zip(whole, bare, strict=True))
    mean, (generation, training) = statistics.mean(whole), (statistics.mean(part) for part in zip(*bare, strict=True))
    clock.seconds["everything else"] = stages * mean - sum(clock.seconds.values())
    print(f"\n{title}, resampling={resampling!r}, kl_estimator={estimator!r}: {ratio:.3f} times the limit")
    print(f"  ms per stage: {1e3 * mean:.0f}; limit {1e3 * (generation + training):.0f}, of which generate ", end="")
    print(f"{1e3 * generation:.0f}, forward-backward {1e3 * training:.0f}")
    for part, seconds in clock.seconds.items():
        print(f"  {part:<16}{1e3 * seconds / stages:9.0f}{seconds / stages / mean:8.1%}", flush=True)
    return round(ratio, 3)


def main(options):
    stages, own = {"smoke": 1, "quick": 2, "full": 6}[options.size], SMOKE if options.size == "smoke" else {}
    result = {}
    if options.model:
        for resampling in ("full", "speculative"):
            stages = 3 if options.size == "full" else 1
            team = model_team(options.model)
            result[f"model_{resampling}"] = measure("model", team, stages, resampling, "k3", own)
    else:
        for name, make_team in (("tiny", tiny_team), ("small", small_team)):
            for resampling in ("speculative",) if options.size == "smoke" else ("full", "speculative"):
                result[f"{name}_{resampling}"] = measure(name, make_team(), stages, resampling, "k3", own)
        result["tiny_full_exact"] = measure("tiny", tiny_team(), stages, "full", "exact", own)
    print(f"\n{describe_machine()}")
    print(json.dumps({"ratio": result, "size": options.size}))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_size(parser)
    parser.add_argument("--model", help="directory of a model: measure a team of two LoRA agents on it instead")
    return parser


if __name__ == "__main__":
    main(make_parser().parse_args())
