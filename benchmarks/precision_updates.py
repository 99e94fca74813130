"""
The updates of a run in half precision: whether they stand still, and whether they are inside the region. Part of
benchmarks/precision.py, which prints it.
"""

import statistics
import tempfile
from pathlib import Path

from link_start import save_stand_in
from quiet import QUIET


RADIUS = 0.01
PROMPTS = [
    f"List {i} facts about {thing}, briefly." for i in range(2, 6) for thing in ("rain", "iron", "bees", "time")
]
LORA = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}
RATES = {"LoRA": 1e-5, "full weights": 1e-6}
# As far as a step may go for its KL to be about a radius, so that updates are halved
LARGE_RATES = {"smollm2": 3e-4, "tiny": 1e-2}
# Idle updates: how many of each kind, and the tokens of a message. Updates that are checked: tiny, and of SmolLM2
SIZES = {
    "full": {"idle": (40, 16), "inside": (200, 20)},
    "quick": {"idle": (6, 16), "inside": (200, 2)},
    "smoke": {"idle": (2, 4), "inside": (2, 1)},
}


def reward(completions, **kwargs):
    return [float(len(set(completion[0]["content"]))) for completion in completions]


def train(model: str, adapter: bool, num_updates: int, length: int, watch=None, **fields) -> list[dict]:
    """Train a team of one agent; returns its logs. `watch` is called with its trainer first."""
    import torch
    from accelerate.state import AcceleratorState
    from datasets import Dataset
    from peft import LoraConfig
    from transformers.trainer_callback import PrinterCallback

    from trl_teamtr import Agent, TeamTRConfig, TeamTRTrainer

    AcceleratorState._reset_state()  # accelerate keeps one mixed precision for a process
    torch.manual_seed(0)
    peft_config = LoraConfig(task_type="CAUSAL_LM", **LORA) if adapter else None
    dataset = Dataset.from_dict({"prompt": [[{"role": "user", "content": text}] for text in PROMPTS]})
    with tempfile.TemporaryDirectory() as folder:
        args = TeamTRConfig(
            folder,
            **QUIET
            | {
                "num_stages": num_updates,
                "per_device_train_batch_size": 4,
                "num_generations": 4,
                "num_iterations": 2,
                "max_completion_length": length,
                "trust_region_radius": RADIUS,
                "max_idle_updates": None,
                "lr_scheduler_type": "constant",
                "kl_coef": 0.0,
                "logging_steps": 1,
            }
            | fields,
        )
        trainer = TeamTRTrainer([Agent("agent", model, peft_config=peft_config)], reward, args, train_dataset=dataset)
        trainer.remove_callback(PrinterCallback)
        if watch is not None:
            watch(trainer)
        trainer.train()
        return [log for log in trainer.state.log_history if "agent/agent/idle" in log]


def measure_idle(model: str, size: str) -> dict:
    """Share of idle updates, in float32 and in bfloat16 autocast."""
    count, length = SIZES[size]["idle"]
    print(
        f"\n{count} updates, messages of {length} tokens at most, radius {RADIUS}: share that is idle, and KL of the others"
    )
    shares: dict[str, dict[str, float]] = {}
    for kind, rate in RATES.items():
        shares[kind] = {}
        for training in ("float32", "bfloat16"):
            logs = train(model, kind == "LoRA", count, length, learning_rate=rate, bf16=training == "bfloat16")
            share = statistics.mean(log["agent/agent/idle"] for log in logs)
            halved = statistics.mean(log["agent/agent/backtracks"] > 0 for log in logs)
            kls = [log["agent/agent/kl"] for log in logs if not log["agent/agent/idle"]]
            kl = f"{statistics.median(kls):.2e}" if kls else "-"
            print(
                f"{kind:<14} lr {rate:g}, trained in {training:<10}{share:7.3f}, halved {halved:.3f}, KL {kl}",
                flush=True,
            )
            shares[kind][training] = share
    return {"idle_share": shares, "idle_updates": count}


def measure_inside(model: str, size: str) -> dict:
    """Largest KL of accepted updates, in float64 on the rollouts that they were trained on, over the radius."""
    tiny_count, count = SIZES[size]["inside"]
    print("\nKL of accepted updates over the radius, in float64, trained in bfloat16")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        tiny = save_stand_in(Path(folder))
        cases = {"tiny, bfloat16 weights": (tiny, tiny_count, {"model_init_kwargs": {"dtype": "bfloat16"}})}
        cases |= {"tiny": (tiny, tiny_count, {}), "SmolLM2, LoRA": (model, count, {})}
        for name, (path, updates, fields) in cases.items():
            rate = LARGE_RATES["smollm2" if path == model else "tiny"]
            for estimator in ("k3", "exact"):
                ratios: list[float] = []
                own = {"bf16": True, "kl_estimator": estimator, "learning_rate": rate, **fields}
                watch = Recomputation(estimator, ratios, RADIUS)
                logs = train(path, path == model, updates, 16 if path == model else 4, watch, **own)
                halved = sum(log["agent/agent/backtracks"] > 0 for log in logs)
                outside = sum(ratio > 1 for ratio in ratios)
                key = f"{name}, {estimator}"
                found[key] = {"accepted": len(ratios), "outside": outside, "largest": round(max(ratios), 6)}
                print(f"{key:<32}{found[key]}, {halved} halved", flush=True)
    return {"inside": found}


class Recomputation:
    """
    For each accepted update of a team of one, its KL in float64 over the radius.

    Args:
        estimator (`str`): `"k3"` or `"exact"`.
        ratios (`list[float]`): Where they are put.
        radius (`float`): The radius, in nats per message.
    """

    def __init__(self, estimator: str, ratios: list[float], radius: float):
        self._estimator, self._ratios, self._radius = estimator, ratios, radius

    def __call__(self, trainer):
        update = trainer.update

        def checked(batch, *args):
            before = self._precise_laws(trainer.model, batch)
            report = update(batch, *args)
            if not report.rejected:
                kl = self._kl(before, self._precise_laws(trainer.model, batch), batch)
                self._ratios.append(kl / self._radius)
            return report

        trainer.update = checked

    def _precise_laws(self, model, batch):
        """Log-probabilities of the whole vocabulary where messages are, by a copy of the model in float64."""
        import torch

        from trl_teamtr.agents.model_copies import copy_untouched
        from trl_teamtr.policy.scoring import sequence

        ids, mask, keep = sequence(batch)
        precise = copy_untouched(model).double().eval()
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        with torch.no_grad(), torch.autocast(ids.device.type, enabled=False):
            call = {"attention_mask": mask, "position_ids": positions, "logits_to_keep": keep + 1}
            return precise(ids, **call).logits[:, :-1].log_softmax(dim=-1)

    def _kl(self, old, new, batch) -> float:
        from trl_teamtr.maths.kl import exact_kl, k3_kl
        from trl_teamtr.policy.scoring import message_mask

        if self._estimator == "exact":
            kl = exact_kl(old, new)
        else:
            sampled = batch["sampled_ids"][..., None]
            kl = k3_kl(old.gather(2, sampled).squeeze(2), new.gather(2, sampled).squeeze(2))
        messages = message_mask(batch)
        return ((kl * messages).sum() / batch["num_messages"].sum()).item()
