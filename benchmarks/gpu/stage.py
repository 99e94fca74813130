"""What a stage of three LoRA agents takes on the device, and a team of one beside TRL's `GRPOTrainer`."""

import contextlib
import io
import json
import tempfile
import time
from pathlib import Path

from gpu.models import find_device, make_model, make_prompts, make_tokenizer, reward


SIZES = {
    False: {"shape": "1.7B", "rollouts": 32, "prompt": 64, "length": 256, "stages": 2},
    True: {"shape": "smoke", "rollouts": 4, "prompt": 4, "length": 4, "stages": 2},
}
GROUP, AGENTS, PASSES = 8, 3, 2


def measure(model: str | None, smoke: bool, folder: Path) -> dict:
    from gpu import check

    size = SIZES[smoke]
    base, tokenizer = make_model(size["shape"], "bfloat16"), make_tokenizer(make_model("smoke").config.vocab_size)
    if not smoke:
        tokenizer = make_tokenizer(base.config.vocab_size)
    found: dict = {"sizes": size | {"agents": AGENTS, "passes": PASSES}, "bare": time_bare(base, size)}
    for tf32 in (False, True) if find_device().type == "cuda" else (False,):
        for resampling in ("full", "speculative"):
            name = f"{resampling}, scored in {'TF32' if tf32 else 'float32'}"
            found[name] = time_stage(base, tokenizer, size, resampling, tf32)
            check.write(folder, "stage", found)  # kept if the time runs out
    del base
    found["team of one"] = compare_with_grpo(smoke)
    return found


def synchronized() -> float:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def time_bare(model, size: dict) -> dict[str, float]:
    """Seconds of `generate`, and of forward and backward passes, of what one update of a team of three needs."""
    import torch
    from peft import LoraConfig, get_peft_model

    from trl_teamtr.agents.model_copies import clone_sharing_weights

    device, rows, length = find_device(), size["rollouts"], size["length"]
    wrapped = get_peft_model(clone_sharing_weights(model), LoraConfig(**lora()))
    found = {}
    start = synchronized()
    for turn in range(AGENTS):
        ids = torch.randint(50, (rows, size["prompt"] + turn * length), device=device)
        with torch.no_grad():
            call = {"max_new_tokens": length, "min_new_tokens": length, "do_sample": True, "top_k": 0}
            wrapped.generate(input_ids=ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **call)
    found["generate"] = synchronized() - start
    wrapped.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    wrapped.enable_input_require_grads()
    wrapped.train()
    ids = torch.randint(50, (rows, size["prompt"] + AGENTS * length), device=device)
    start = synchronized()
    for part in list(ids.split(GROUP)) * PASSES:
        logits = wrapped(input_ids=part, use_cache=False, logits_to_keep=length + 1).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), part[:, -length:].flatten())
        loss.backward()
    found["forward and backward"] = synchronized() - start
    return {name: round(seconds, 3) for name, seconds in found.items()}


def lora() -> dict:
    return {"task_type": "CAUSAL_LM", "r": 16, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}


def time_stage(base, tokenizer, size: dict, resampling: str, tf32: bool) -> dict:
    """Seconds of the second stage by part, its tokens, and peak memory."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from resampling_cost import watch

    from trl_teamtr import Agent, TeamTRConfig, TeamTRTrainer

    team = [
        Agent(f"agent_{i}", base, processing_class=tokenizer, peft_config=LoraConfig(**lora())) for i in range(AGENTS)
    ]
    seconds, changed = {"rollouts": 0.0, "updates": 0.0}, []
    with tempfile.TemporaryDirectory() as folder:
        args = TeamTRConfig(
            folder,
            use_cpu=not torch.cuda.is_available(),
            bf16=True,
            tf32=tf32 if torch.cuda.is_available() else None,
            resampling=resampling,
            num_stages=size["stages"],
            num_generations=min(GROUP, size["rollouts"]),
            per_device_train_batch_size=min(GROUP, size["rollouts"]),
            steps_per_generation=max(1, size["rollouts"] // GROUP),
            max_completion_length=size["length"],
            num_iterations=PASSES,
            learning_rate=1e-5,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_steps=1,
        )
        dataset = Dataset.from_dict({"prompt": make_prompts(64, size["prompt"])})
        trainer = TeamTRTrainer(team, reward, args, train_dataset=dataset)
        watch(trainer, seconds, changed)
        run_stage, stages = trainer._run_stage, []

        def timed(*arguments, **kwargs):
            seconds.update(rollouts=0.0, updates=0.0)
            start = synchronized()
            run_stage(*arguments, **kwargs)
            stages.append({"all": synchronized() - start, **seconds})

        trainer._run_stage = timed
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
        logs = trainer.state.log_history[-AGENTS - 1 : -1]
    tokens = sum(log["rollout/tokens_decoded"] for log in logs)
    found = {name: round(value, 3) for name, value in stages[-1].items()}
    kls = {name: value for log in logs for name, value in log.items() if name.endswith(("/kl", "/kl_floor", "/idle"))}
    return {
        "seconds": found,
        "tokens decoded": tokens,
        "tokens per second of rollouts": round(tokens / found["rollouts"], 1),
        "share of rollouts that changed": changed[-1] if changed else None,
        "peak GiB": round(torch.cuda.max_memory_allocated() / 2**30, 2) if torch.cuda.is_available() else None,
        "kl": kls,
    }


def compare_with_grpo(smoke: bool) -> dict:
    """What benchmarks/team_of_one.py prints."""
    import team_of_one

    table = io.StringIO()
    with contextlib.redirect_stdout(table):
        team_of_one.measure("smoke" if smoke else "gpu")
    lines = table.getvalue().splitlines()
    return {**json.loads(lines[-1]), "table": lines[:-1]}
