"""
SmolLM2-135M-Instruct on one core, in seconds per stage: short plain prompts, adapters in the upper layers, messages of four
tokens, and scores in bfloat16, whose noise is far below the radius.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from .smollm2 import MODEL, TASK


LAYERS = list(range(20, 30))  # of 30: gradients do not reach further down
SETTINGS: dict[str, Any] = {
    "max_completion_length": 4,
    "temperature": 0.8,
    "num_iterations": 2,
    "learning_rate": 2e-3,
    "lr_scheduler_type": "constant",
    "trust_region_radius": 0.3,
    "kl_coef": 0.02,
    "scoring_precision": "bfloat16",
    "floor_every": 10_000,
}
RANK = 8
WARM_UP_RATE = 3e-3
GROUP = 8  # rollouts of a prompt
NUMBER_OF_ROWS = 2000  # of which almost all of the 200 sums are
LARGE_VOCABULARY = 10_000


def make_lora(rank: int, smoke: bool):
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=2 * rank,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
        layers_to_transform=None if smoke else LAYERS,
    )


def make_sums(held_out: int, seed: int, parts: int = 1) -> list[Any]:
    """
    Sums and differences of two one-digit numbers, in a few tokens, all of which are distinct: `parts` datasets of about the same
    size, and last the held-out one.
    """
    from trl_teamtr.tasks import reasoning_gym

    rows = reasoning_gym.make_dataset("chain_sum", NUMBER_OF_ROWS, seed, **TASK).map(_shorten)
    places = {prompt: place for place, prompt in enumerate(rows["prompt"])}
    rows = rows.select(sorted(places.values())).shuffle(seed)
    train = rows.select(range(held_out, len(rows)))
    return [*(train.shard(parts, part) for part in range(parts)), rows.select(range(held_out))]


def _shorten(row: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": "Question: " + row["prompt"][-1]["content"].split(": ")[1].removesuffix(" =")}


def save_model(folder: Path, smoke: bool) -> str:
    """The folder of the model in bfloat16, made in `folder`; of a tiny one, for what only has to run."""
    from link_start import save_stand_in
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = folder / "model"
    if smoke:
        return save_stand_in(path)
    if not path.exists():
        part = path.with_name(f"{path.name}.part{os.getpid()}")
        AutoModelForCausalLM.from_pretrained(MODEL, dtype="bfloat16").save_pretrained(part)
        AutoTokenizer.from_pretrained(MODEL).save_pretrained(part)
        part.rename(path)
    return str(path)


def warm_up(
    name: str, system_prompt: str, demonstrations: list[dict], steps: int, seed: int, folder: Path, smoke: bool
):
    """A member that was fine-tuned on `demonstrations`, each of which is seen once: `prompt` and `completion`."""
    from datasets import Dataset
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from trl_teamtr import Agent
    from trl_teamtr.cli.link_team import fit

    path = save_model(folder, smoke)
    tokenizer, base = AutoTokenizer.from_pretrained(path), AutoModelForCausalLM.from_pretrained(path, dtype="auto")
    torch.manual_seed(seed)
    model = get_peft_model(base, make_lora(RANK, smoke))
    fit(model, tokenizer, Dataset.from_list(demonstrations), steps, WARM_UP_RATE, seed)
    return Agent(name, model, system_prompt=system_prompt, processing_class=tokenizer)


@contextlib.contextmanager
def fast_on_cpus() -> Iterator[None]:
    """
    Context without two things that take nine tenths of the time on CPUs. TRL's fused head scores all positions there, and those that
    have labels on GPUs: here too. And PyTorch multiplies a slice of hidden states in bfloat16 with a copy of the weights for each row:
    output embeddings are given contiguous ones.
    """

    def make_contiguous(module: torch.nn.Module, args: tuple) -> tuple | None:
        is_head = isinstance(module, torch.nn.Linear) and module.out_features > LARGE_VOCABULARY
        return (args[0].contiguous(),) if is_head else None

    hook = torch.nn.modules.module.register_module_forward_pre_hook(make_contiguous)
    try:
        with mock.patch("trl.trainer.utils._use_triton", return_value=True):
            yield
    finally:
        hook.remove()


def make_trainer(team: Any, data: tuple[Any, Any], reward: Any, output: Path, smoke: bool, **settings: Any):
    """
    Args:
        team: As in `TeamTRTrainer`.
        data (`tuple`): Rows to train on, and held-out ones.
        reward: Reward of both.
        output (`Path`): Folder of the trainer.
        smoke (`bool`): Whether it only has to run.
        settings: Of `TeamTRConfig`, beside or in place of [`SETTINGS`]; `prompts` is the number of prompts per stage.
    """
    from quiet import QUIET
    from transformers.trainer_callback import PrinterCallback

    from trl_teamtr import TeamTRConfig, TeamTRTrainer

    train, held_out = data
    group = 2 if smoke else GROUP
    prompts = settings.pop("prompts")
    args = TeamTRConfig(
        str(output),
        per_device_train_batch_size=group * prompts,
        num_generations=group,
        model_init_kwargs={"dtype": "bfloat16"},
        logging_steps=1,
        per_device_eval_batch_size=len(held_out),
        num_generations_eval=1,
        **({"eval_strategy": "steps"} | SETTINGS | settings),
        **QUIET,
    )
    trainer = TeamTRTrainer(team, reward, args, train_dataset=train, eval_dataset=held_out)
    trainer.remove_callback(PrinterCallback)
    return trainer
