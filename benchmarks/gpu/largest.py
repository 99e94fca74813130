"""The largest batch of three LoRA agents on one base of 8B that fits into 80 GB, and what the plan says of it."""

import gc
import os
import tempfile
import time
from pathlib import Path

from gpu.models import make_model, make_prompts, make_tokenizer, reward


MEMORY = 80e9  # bytes
SIZES = {False: ("8B", (4096, 16384), 128, (2, 4, 8, 16)), True: ("smoke", (64,), 8, (2,))}
AGENTS = 3


def measure(model: str | None, smoke: bool, folder: Path) -> dict:
    import torch
    from gpu import check

    shape, contexts, length, batches = SIZES[smoke]
    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, MEMORY / total))
    base = make_model(shape, "bfloat16")
    tokenizer = make_tokenizer(base.config.vocab_size)
    found: dict = {"bytes allowed": MEMORY, "tokens of a message": length, "contexts": {}}
    for context in reversed(contexts):  # the longest first: it is the one that is asked for
        tried: dict[str, dict] = {}
        found["contexts"][str(context)] = tried
        for batch in batches:
            tried[str(batch)] = try_batch(base, tokenizer, context, length, batch)
            check.write(folder, "largest", found)  # kept if the time runs out
            if not tried[str(batch)]["fits"]:
                break
    return found


def try_batch(base, tokenizer, context: int, length: int, batch: int) -> dict:
    """Whether the last agent of a team, which reads all others, can be updated on `batch` rollouts; and the plan's peak."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig

    from trl_teamtr import Agent, TeamTRConfig, TeamTRTrainer, plan

    lora = {"task_type": "CAUSAL_LM", "r": 16, "target_modules": "all-linear"}
    prompt = context - AGENTS * length - 8
    with tempfile.TemporaryDirectory() as folder:
        args = TeamTRConfig(
            os.path.join(folder, "run"),
            use_cpu=not torch.cuda.is_available(),
            bf16=True,
            tf32=True if torch.cuda.is_available() else None,
            max_steps=1,
            update_order="reversed",
            num_generations=2,
            per_device_train_batch_size=batch,
            max_completion_length=length,
            max_context_length=context,
            num_iterations=2,
            learning_rate=1e-5,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        shapes = os.path.join(folder, "shapes")
        base.config.save_pretrained(shapes)
        lean = [Agent(f"agent_{i}", shapes, peft_config=LoraConfig(**lora)) for i in range(AGENTS)]
        args_of_plan = {"prompt_length": prompt, "device_memory_gib": MEMORY / 2**30}
        planned = plan(lean, args, **args_of_plan)
        team = [
            Agent(f"agent_{i}", base, processing_class=tokenizer, peft_config=LoraConfig(**lora))
            for i in range(AGENTS)
        ]
        trainer = None
        start = time.perf_counter()
        try:
            dataset = Dataset.from_dict({"prompt": make_prompts(batch, prompt)})
            trainer = TeamTRTrainer(team, reward, args, train_dataset=dataset)
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            trainer.train()
            fits = True
        except torch.OutOfMemoryError:
            fits = False
        found = {"fits": fits, "seconds": round(time.perf_counter() - start, 1)}
        del trainer, team
        gc.collect()
        if torch.cuda.is_available():
            found["peak GiB"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
            torch.cuda.empty_cache()
        return found | {"planned GiB": round(planned.peak.device / 2**30, 2), "planned to fit": planned.fits}
