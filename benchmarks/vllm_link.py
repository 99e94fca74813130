"""
Whether a team learns the same on a vLLM server as with transformers, on LINK.

    TEAM_VLLM_PYTHON=.venv-vllm/bin/python python benchmarks/vllm_link.py            # a real server: half an hour
    TEAM_VLLM_PYTHON=.venv-vllm/bin/python python benchmarks/vllm_link.py --quick    # one seed
    python benchmarks/vllm_link.py --smoke                                           # a fake one: says only that it runs

`make test-vllm` makes the environment of the server, which runs on the CPU of this machine. Three LoRA agents on one base, which
is warmed up to write one dialect and to read another most of the time, are trained from the same seeds with transformers and on
the server. The heads of the base have 32 dimensions, where vLLM's attention for the CPU begins. The script prints, over seeds with
Student's 95 % intervals, the held-out accuracy before and after the training and its difference from that of transformers; and,
for the first seed with full resampling beside the default, speculative, the seconds of a stage and the share of them in which the
team generates and verifies its rollouts. With one thread on a CPU these seconds say nothing of a GPU.

Prints a table, and one JSON object last.
"""

import argparse
import contextlib
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["CI"] = "1"  # no telemetry
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fake_vllm import serving  # noqa: E402
from machine import describe_machine  # noqa: E402
from peft import LoraConfig  # noqa: E402
from quiet import QUIET  # noqa: E402
from real_vllm import PYTHON, RealServer, free_url, real_serving, write_team  # noqa: E402
from reproduction.statistics import interval  # noqa: E402
from size import add_size  # noqa: E402
from transformers import set_seed  # noqa: E402
from transformers.trainer_callback import PrinterCallback  # noqa: E402

from trl_teamtr import Agent, TeamTRConfig, TeamTRTrainer  # noqa: E402
from trl_teamtr.cli.link_team import fit, make_demonstrations  # noqa: E402
from trl_teamtr.tasks import link  # noqa: E402


NAMES = "abc"
PEFT = {
    "r": 8,
    "lora_alpha": 16,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}
PLACES, RESAMPLINGS = ("transformers", "vLLM"), ("speculative", "full")
# Seeds, stages, prompts of a stage, and held-out prompts
SIZES = {"full": (5, 10, 16, 256), "quick": (2, 4, 16, 256), "smoke": (1, 1, 1, 2)}


def save_base(folder: Path, smoke: bool) -> str:
    """The noisy speaker of LINK that all agents begin as."""
    tokenizer = link.make_tokenizer()
    base = link.make_model(tokenizer, 0, head_dim=32)
    for steps, rate, noisy in () if smoke else ((350, 3e-3, False), (120, 1.5e-3, True)):
        fit(base, tokenizer, make_demonstrations(len(NAMES), steps * 64, steps, noisy), steps, rate, 0)
    for part in (base, tokenizer):
        part.save_pretrained(folder)
    return str(folder)


@contextlib.contextmanager
def server_for(base: str, folder: Path, smoke: bool) -> Iterator[str]:
    """The URL of a server."""
    if smoke:
        with serving(base, config={"model_config": {"max_model_len": 256}}) as server:
            yield server.url
        return
    if PYTHON is None:
        raise SystemExit(
            "Set TEAM_VLLM_PYTHON to a Python that has vLLM (`make test-vllm` makes one), or pass --smoke."
        )
    url = free_url()
    team = write_team(folder / "team.yaml", [{"name": name, "model": base, "peft": PEFT} for name in NAMES], url)
    with real_serving(RealServer(team, url, folder / "server.log")):
        yield url


def train(base: str, url: str, place: str, resampling: str, seed: int, size: str, folder: Path) -> dict[str, float]:
    """One run: its accuracies, and its seconds."""
    _, stages, prompts, held_out = SIZES[size]
    served = {"use_vllm": True, "vllm_mode": "server", "vllm_importance_sampling_correction": False}
    served |= {"vllm_server_base_url": url, "vllm_max_logp_difference": 1e-3, "vllm_server_timeout": 600.0}
    set_seed(seed)  # of the adapters
    args = TeamTRConfig(
        str(folder / f"{place}_{resampling}_{seed}"),
        seed=seed,
        num_stages=stages,
        resampling=resampling,
        num_generations=8,
        per_device_train_batch_size=8 * prompts,
        per_device_eval_batch_size=held_out,
        num_generations_eval=1,
        max_completion_length=4,
        num_iterations=4,
        learning_rate=5e-3,
        lr_scheduler_type="constant",
        adam_beta2=0.9,
        trust_region_radius=0.2,
        kl_estimator="exact",
        kl_coef=0.03,
        **(served if place == "vLLM" else {}),
        **QUIET,
    )
    trainer = TeamTRTrainer(
        [Agent(name, base, peft_config=LoraConfig(task_type="CAUSAL_LM", **PEFT)) for name in NAMES],
        link.link_reward,
        args,
        train_dataset=link.make_dataset(len(NAMES), 2000, seed),
        eval_dataset=link.make_dataset(len(NAMES), held_out, 10**6 + seed),
    )
    trainer.remove_callback(PrinterCallback)
    seconds, collect = [], trainer.resampler.rollouts

    def rollouts(*arguments, **keywords):
        start = time.perf_counter()
        found = collect(*arguments, **keywords)
        seconds.append(time.perf_counter() - start)
        return found

    trainer.resampler.rollouts = rollouts
    # All begin with adapters that add nothing
    before = trainer.evaluate()["eval_rewards/link_reward/mean"] if place == "transformers" else math.nan
    start = time.perf_counter()
    trainer.train()
    whole = time.perf_counter() - start
    after = trainer.evaluate()["eval_rewards/link_reward/mean"]
    trainer.team.close()
    return {"before": before, "after": after, "stage": whole / stages, "rollouts": sum(seconds) / whole}


def main(options):
    count, stages, prompts, _ = SIZES[options.size]
    runs: dict[tuple[str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = save_base(folder / "base", options.size == "smoke")
        with server_for(base, folder, options.size == "smoke") as url:
            for seed in range(count):
                for resampling in RESAMPLINGS if seed == 0 else RESAMPLINGS[:1]:
                    for place in PLACES:
                        found = train(base, url, place, resampling, seed, options.size, folder)
                        runs.setdefault((place, resampling), []).append(found)
                        print(place, resampling, f"seed {seed}", found, file=sys.stderr, flush=True)
    print(
        f"{count} seeds, {stages} stages of {len(NAMES)} updates, {8 * prompts} rollouts per update: held-out accuracy"
    )
    plain, served = (runs[place, RESAMPLINGS[0]] for place in PLACES)
    ours, theirs = ([run["after"] for run in part] for part in (plain, served))
    columns = {"before": [run["before"] for run in plain], "after, transformers": ours, "after, vLLM": theirs}
    columns["vLLM minus transformers"] = [b - a for a, b in zip(ours, theirs, strict=True)]
    result = {name: [round(value, 4) for value in interval(values)] for name, values in columns.items()}
    for name, (mean, low, high) in result.items():
        print(f"  {name:<26}{mean:+.3f} [{low:+.3f}, {high:+.3f}]   by seed: {[round(x, 3) for x in columns[name]]}")
    print("Seconds of a stage of the first seed, and the share of rollouts in them")
    for (place, resampling), found in runs.items():
        print(f"  {place + ', ' + resampling:<26}{found[0]['stage']:8.2f}{found[0]['rollouts']:8.0%}")
        result[f"{place}, {resampling}: s/stage"] = [round(found[0]["stage"], 2)]
    print(describe_machine())
    print(json.dumps(result | {"size": options.size}).replace("NaN", "null"))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_size(parser)
    return parser


if __name__ == "__main__":
    main(make_parser().parse_args())
