"""Stage-0 alignment: the new member is trained on the old one's messages, by TRL's `SFTTrainer`."""

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch.nn import functional
from transformers import EarlyStoppingCallback
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig, SFTTrainer
from trl.trainer.utils import pad

from ..agents.agent import Agent
from ..conversation.view import View
from ..policy.speaker import Speaker
from .alignment_config import AlignmentConfig
from .demonstrations import as_dataset, as_paired_dataset


@dataclass(frozen=True)
class AlignmentCost:
    """
    What an alignment took.

    Args:
        steps (`int`): Optimizer steps.
        tokens (`int`): Tokens that were trained on, contexts included.
        seconds (`float`): Time.
        losses (`list[tuple[int, float]]`): Step and held-out loss, in nats per token, of each measurement.
    """

    steps: int
    tokens: int
    seconds: float
    losses: list[tuple[int, float]]


@dataclass(frozen=True)
class Teacher:
    """
    The old member, for its next-token distributions.

    Args:
        speaker ([`Speaker`]): The old member.
        train, held_out (`list[View]`): Its views of the conversations that the new member trains on, and of the others.
    """

    speaker: Speaker
    train: Sequence[View]
    held_out: Sequence[View]


def align(
    member: Agent,
    speaker: Speaker,
    train: Sequence[View],
    held_out: Sequence[View],
    args: AlignmentConfig,
    teacher: Teacher | None = None,
) -> AlignmentCost:
    """
    Train the model of `member` in place, until it no longer improves on `held_out`; the best weights are kept.

    Args:
        member ([`Agent`]): The new member, with its model and tokenizer.
        speaker ([`Speaker`]): Speaks with the weights of that model, through modules of its own.
        train, held_out (`list[View]`): Its views of the old team's conversations.
        args ([`AlignmentConfig`]): The options.
        teacher ([`Teacher`], *optional*): The old member, for `objective="kl"`.

    Raises:
        `ValueError`: If none of the member's weights can be trained.
    """
    model: Any = member.model
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            f"Agent {member.name!r} cannot be aligned: none of its weights can be trained. Set `peft_config`, load its adapter with "
            "`trainable=True`, or pass `align=False`."
        )
    started, training = time.perf_counter(), model.training
    temperature = speaker.sampling.temperature
    with tempfile.TemporaryDirectory() as folder:
        common: dict[str, Any] = {
            "args": _make_args(folder, len(train), args, paired=teacher is not None),
            "processing_class": member.processing_class,
            "callbacks": [EarlyStoppingCallback(args.early_stopping_patience)],
        }
        trainer: SFTTrainer
        if teacher is None:
            data = as_dataset(train), as_dataset(held_out)
            # TRL's own loss is that of a temperature of 1
            loss: dict[str, Any] = {} if temperature == 1 else {"compute_loss_func": _TemperedLoss(temperature)}
            trainer = SFTTrainer(model, train_dataset=data[0], eval_dataset=data[1], **common, **loss)
        else:
            data = as_paired_dataset(train, teacher.train), as_paired_dataset(held_out, teacher.held_out)
            trainer = DistillationTrainer(model, data, teacher.speaker, temperature, **common)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        logs, steps = trainer.state.log_history, trainer.state.global_step
    model.train(training)
    losses = [(int(log["step"]), log["eval_loss"]) for log in logs if "eval_loss" in log]
    return AlignmentCost(steps, int(trainer.state.num_input_tokens_seen), time.perf_counter() - started, losses)


def _make_args(folder: str, rows: int, args: AlignmentConfig, paired: bool) -> SFTConfig:
    per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps
    steps = math.ceil(args.num_train_epochs * math.ceil(rows / per_step))
    every = min(args.eval_steps, steps)
    kept: dict[str, Any] = {}
    if paired:
        kept = {"dataset_kwargs": {"skip_prepare_dataset": True}, "remove_unused_columns": False}
    return SFTConfig(
        folder,
        learning_rate=args.learning_rate,
        lr_scheduler_type=args.lr_scheduler_type,
        num_train_epochs=args.num_train_epochs,
        per_device_train_batch_size=args.per_device_train_batch_size,
        per_device_eval_batch_size=args.per_device_train_batch_size,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        gradient_checkpointing=args.gradient_checkpointing,
        bf16=args.bf16,
        use_cpu=args.use_cpu,
        seed=args.seed,
        max_length=None,  # a cut conversation would end in no message
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=1,
        save_only_model=True,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        include_num_input_tokens_seen="non_padding",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        **kept,
    )


class _TemperedLoss:
    """Cross-entropy of the labels at the temperature at which the member speaks, in nats per token."""

    def __init__(self, temperature: float):
        self._temperature = temperature

    def __call__(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        logits = outputs.logits[:, :-1].float() / self._temperature
        targets = labels[:, 1:]
        total = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum")
        count = (targets != -100).sum() if num_items_in_batch is None else torch.as_tensor(num_items_in_batch)
        return total / count.clamp(min=1)


class DistillationTrainer(SFTTrainer):
    """
    [`~trl.SFTTrainer`] whose loss is the KL from the old member's next-token distributions to the new one's, over the whole
    vocabulary, at the tokens of the old member's messages.

    The only change w.r.t. [`~trl.SFTTrainer`] is `compute_loss`.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]): The new member's.
        data (`tuple[Dataset, Dataset]`): What [`as_paired_dataset`] returns, for training and for evaluation.
        teacher ([`Speaker`]): The old member.
        temperature (`float`): At which the new member speaks.
        kwargs: Other arguments of [`~trl.SFTTrainer`].
    """

    def __init__(self, model: Any, data: tuple[Dataset, Dataset], teacher: Speaker, temperature: float, **kwargs: Any):
        self._teacher, self._temperature = teacher, temperature
        pad_token_id = kwargs["processing_class"].pad_token_id
        collate = _PairCollator(pad_token_id)
        super().__init__(model, train_dataset=data[0], eval_dataset=data[1], data_collator=collate, **kwargs)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        own, targets = _logits_at(model, inputs["input_ids"], inputs["attention_mask"], inputs["labels"])
        with torch.no_grad():
            ids, mask = inputs["teacher_input_ids"], inputs["teacher_attention_mask"]
            theirs, _ = _logits_at(self._teacher.policy.model, ids, mask, inputs["teacher_labels"])
            log_p = (theirs / self._teacher.sampling.temperature).log_softmax(-1)
        log_q = (own / self._temperature).log_softmax(-1)
        total = functional.kl_div(log_q, log_p, reduction="sum", log_target=True)
        count = len(targets) if num_items_in_batch is None else num_items_in_batch
        loss = total / torch.as_tensor(count).clamp(min=1)
        return (loss, {}) if return_outputs else loss


def _logits_at(
    model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits, float32 of shape `(tokens, vocab)`, that predict the labelled tokens, and these."""
    logits = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits[:, :-1]
    targets = labels[:, 1:]
    return logits[targets != -100].float(), targets[targets != -100]


class _PairCollator:
    """Pads what [`as_paired_dataset`] has, on the right."""

    def __init__(self, pad_token_id: int):
        self._pad_token_id = pad_token_id

    def __call__(self, rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        found = {}
        for side in ("", "teacher_"):
            ids = [torch.tensor(row[f"{side}input_ids"]) for row in rows]
            found[f"{side}input_ids"] = pad(ids, self._pad_token_id, "right")
            found[f"{side}attention_mask"] = pad([torch.ones_like(own) for own in ids], 0, "right")
            found[f"{side}labels"] = pad([torch.tensor(row[f"{side}labels"]) for row in rows], -100, "right")
        return found
