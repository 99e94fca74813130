"""
SmolLM2-135M-Instruct on one core, in seconds per stage: short plain prompts, adapters in the upper layers, messages of four
tokens, and scores in bfloat16, whose noise is far below the radius.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

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
GROUP = 8  # rollouts of a prompt


def make_lora(rank: int, smoke: bool):
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=2 * rank,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
        layers_to_transform=None if smoke else LAYERS,
    )


def make_sums(size: int, held_out: int, seed: int):
    """Sums of two one-digit numbers, in a few tokens: rows to train on, and held-out ones."""
    from trl_teamtr.tasks import reasoning_gym
    from trl_teamtr.tasks.loading import hold_out

    rows = reasoning_gym.make_dataset("chain_sum", size + held_out, seed, **TASK)
    train, others = hold_out(rows, held_out, seed)
    return train.map(_shorten), others.map(_shorten)


def _shorten(row: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": "Question: " + row["prompt"][-1]["content"].split(": ")[1].removesuffix(" =")}


def save_model(folder: Path, smoke: bool) -> str:
    """The folder of the model; of a tiny one, made in `folder`, for what only has to run."""
    from link_start import save_stand_in

    return save_stand_in(folder / "model") if smoke else MODEL


def make_head_fast(models: list[Any]):
    """
    Let the output embeddings read hidden states that are contiguous: on CPUs PyTorch multiplies slices of bfloat16 row by row,
    with a copy of the weights for each.
    """
    for model in models:
        model.get_output_embeddings().register_forward_pre_hook(lambda module, args: (args[0].contiguous(),))


@contextlib.contextmanager
def compact_scoring() -> Iterator[None]:
    """
    Context in which TRL's fused head scores only the positions that have labels, as it does on GPUs. On CPUs it scores
    all of them, which takes four fifths of an update here.
    """
    with mock.patch("trl.trainer.utils._use_triton", return_value=True):
        yield


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
        eval_strategy="steps",
        per_device_eval_batch_size=len(held_out),
        num_generations_eval=1,
        **(SETTINGS | settings),
        **QUIET,
    )
    trainer = TeamTRTrainer(team, reward, args, train_dataset=train, eval_dataset=held_out)
    make_head_fast([member.model for member in trainer.members])
    trainer.remove_callback(PrinterCallback)
    return trainer
