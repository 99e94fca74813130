"""
What the rollouts of a stage of three agents take with and without resampling, in bfloat16 autocast with verification in
float32. Part of benchmarks/precision.py, which prints it.
"""

import tempfile
import time

from precision_updates import LORA, reward
from quiet import QUIET


# Rollouts, and tokens of a message
SIZES = {"full": (8, 128), "quick": (8, 128), "smoke": (4, 4)}
# Of each update, in nats per message: half of the default radius, and about that of LoRA at a learning rate of 1e-5
KLS = (0.005, 3e-5)
AGENTS = 3


def measure_seconds(model: str, size: str) -> dict:
    """Seconds of the rollouts relative to those of `"stale"`, which makes them once."""
    rollouts, length = SIZES[size]
    print(f"\nrollouts of a stage: {AGENTS} LoRA agents, {rollouts} rollouts, messages of {length} tokens")
    columns = ("seconds", "/ stale", "verifying", "decoded", "scored", "KL")
    print(f"{'resampling':<14}" + "".join(f"{column:>11}" for column in columns), flush=True)
    stale, found = 0.0, dict[str, dict[str, float]]()
    for mode, kl in (("stale", KLS[0]), *(("speculative", kl) for kl in KLS), ("full", KLS[0])):
        seconds, verifying, decoded, scored, kls = run_stage(model, mode, kl, size)
        stale = stale or seconds
        print(f"{mode:<14}{seconds:11.1f}{seconds / stale:11.2f}{verifying:11.1f}", end="")
        print(f"{decoded:11.0f}{scored:11.0f}{max(kls):11.1e}", flush=True)
        found.setdefault(f"{mode}_seconds_ratio", {})[str(kl)] = round(seconds / stale, 3)
    return found


def run_stage(model: str, mode: str, kl: float, size: str) -> tuple[float, float, float, float, list[float]]:
    """
    Seconds of the rollouts of a stage, those of verification among them, tokens decoded and scored, and the KL of each
    update. An update moves the adapter at random, which takes no time, by a KL of about `kl`: what is trained makes no
    difference to the rollouts' cost.
    """
    import torch
    from accelerate.state import AcceleratorState
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.trainer_callback import PrinterCallback

    from trl_teamtr import Agent, TeamTRConfig, TeamTRTrainer
    from trl_teamtr.rollouts import drafts

    AcceleratorState._reset_state()  # accelerate keeps one mixed precision for a process
    torch.manual_seed(0)
    count, length = SIZES[size]
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(len(tokenizer) - 1)  # so rare that no message ends early
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    base.generation_config.eos_token_id = tokenizer.eos_token_id
    team = [
        Agent(f"agent_{i}", base, processing_class=tokenizer, peft_config=LoraConfig(task_type="CAUSAL_LM", **LORA))
        for i in range(AGENTS)
    ]
    prompts = [[{"role": "user", "content": f"List {i} facts about the oceans."}] for i in range(2, 34)]
    fields = {"num_stages": 1, "per_device_train_batch_size": count, "num_generations": 4, "logging_steps": 1}
    fields |= {"resampling": mode, "max_completion_length": length, **QUIET, "bf16": True}

    with tempfile.TemporaryDirectory() as folder:
        args = TeamTRConfig(folder, **fields)
        trainer = TeamTRTrainer(team, reward, args, train_dataset=Dataset.from_dict({"prompt": prompts}))
        trainer.remove_callback(PrinterCallback)
        spent, kls = {"rollouts": 0.0, "verification": 0.0}, list[float]()

        def timed(call, part):
            def wrapped(*args, **kwargs):
                start = time.perf_counter()
                found = call(*args, **kwargs)
                spent[part] += time.perf_counter() - start
                return found

            return wrapped

        trainer.resampler.rollouts = timed(trainer.resampler.rollouts, "rollouts")
        check_drafts = drafts.check_drafts
        drafts.check_drafts = timed(check_drafts, "verification")
        for member in trainer.members:
            member.update = Move(member, kl, kls)
        trainer.train()
        drafts.check_drafts = check_drafts
        logs = [log for log in trainer.state.log_history if "rollout/tokens_decoded" in log]
    totals = [sum(log[f"rollout/tokens_{what}"] for log in logs) for what in ("decoded", "scored")]
    return *spent.values(), *totals, kls


class Move:
    """
    In place of an update: moves the adapter of a member at random.

    Args:
        member: The trainer of an agent with an adapter.
        kl (`float`): By about how much, in nats per message.
        kls (`list[float]`): Where the KLs go, as measured on its rollouts.
    """

    def __init__(self, member, kl: float, kls: list[float]):
        self._member, self._due, self._kls = member, kl, kls

    def __call__(self, batch, before, floor_is_due):
        import torch

        from trl_teamtr.trust_region.policy_kl import token_log_ratios
        from trl_teamtr.trust_region.update import UpdateReport

        old = batch["scored_logps"] = self._member.speaker.token_logps(batch)
        weights = [weight for name, weight in self._member.model.named_parameters() if "lora_B" in name]
        directions = [torch.randn_like(weight) for weight in weights]
        scale, kl = 1e-3, 0.0
        for _ in range(6):
            with torch.no_grad():
                for weight, direction in zip(weights, directions, strict=True):
                    weight.copy_(scale * direction)  # it was 0
            kl = self._kl(batch)
            if abs(kl / self._due - 1) < 0.2:
                break
            scale *= min(10.0, max(0.1, (self._due / max(kl, 1e-12)) ** 0.5))
        self._kls.append(kl)
        found = {"num_messages": len(old), "num_tokens": old.numel(), "log_ratios": token_log_ratios([batch])}
        return UpdateReport(inner_steps=1, kl=kl, **found)

    def _kl(self, batch) -> float:
        from trl_teamtr.maths.kl import k3_kl
        from trl_teamtr.policy.scoring import message_mask

        batch["new_logps"] = self._member.speaker.token_logps(batch)
        kl = k3_kl(batch["scored_logps"], batch["new_logps"]) * message_mask(batch)
        return (kl.sum() / batch["num_messages"].sum()).item()
