"""Supervised fine-tuning of the tiny models that benchmarks of learning start from."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from quiet import QUIET


def fit_base(model, tokenizer, demonstrations, steps: int, batch_size: int):
    """
    Fine-tune a model with random weights on demonstrations without mistakes, in place.

    Args:
        model ([`~transformers.PreTrainedModel`]): The model.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): Its tokenizer.
        demonstrations ([`~datasets.Dataset`]): As [`~trl.SFTTrainer`] takes them.
        steps (`int`): Number of optimizer steps.
        batch_size (`int`): Demonstrations per step.
    """
    from transformers.trainer_callback import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    args = SFTConfig(
        tempfile.gettempdir(),  # nothing is saved there
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        learning_rate=4e-3,
        lr_scheduler_type="cosine",
        warmup_steps=steps // 20,
        weight_decay=0.1,
        adam_beta2=0.98,
        logging_strategy="no",
        seed=0,
        **QUIET,
    )
    trainer = SFTTrainer(model, args, train_dataset=demonstrations, processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def write_whole(path: Path, write: Callable[[Path], None]):
    """Let `write` make the folder `path`, unless it is there; a folder that is there is whole."""
    if path.exists():
        return
    part = path.with_name(f"{path.name}.part{os.getpid()}")
    write(part)
    part.rename(path)
