"""An agent's language model: one object to call, with or without DDP or DeepSpeed."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from trl.models.utils import disable_gradient_checkpointing, unwrap_model_for_generation
from trl.trainer.utils import add_fused_lm_head

from ..agents.base_model import without_adapters
from .positions import count_positions_from_mask
from .precision import AUTOCAST, computing_in, in_low_precision, leave_precision_to_the_call


class Policy:
    """
    The model of an agent, and its wrapper.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]): The model, with TRL's fused head
            ([`add_scoring_head`]) if its messages are to be scored. From now on it counts positions from the mask
            ([`count_positions_from_mask`]).
        accelerator ([`~accelerate.Accelerator`]): Of the processes that call it together.
        gradient_checkpointing_kwargs (`dict`, *optional*): For re-enabling gradient checkpointing after a call without
            gradient.
        gather_for_generation (`bool`): Under ZeRO-3, whether to gather all weights for generation.
        scoring_precision (`str`): One of `PRECISIONS`: that of log-probabilities and logits.
        speaking_precision (`str`, *optional*): One of `PRECISIONS`: that of generation. Defaults to that of training.

    Attributes:
        module ([`~torch.nn.Module`]): What is called: the model, or the DDP module or DeepSpeed engine around it.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        accelerator: Accelerator,
        gradient_checkpointing_kwargs: dict[str, Any] | None = None,
        gather_for_generation: bool = True,
        scoring_precision: str = "float32",
        speaking_precision: str | None = None,
    ):
        count_positions_from_mask(model)
        self.model = model
        self.accelerator = accelerator
        self.scoring_precision = scoring_precision
        self._speaking_precision = speaking_precision
        self.wrap(model)
        self._gradient_checkpointing_kwargs = gradient_checkpointing_kwargs
        self._gather_for_generation = gather_for_generation

    def wrap(self, module: nn.Module):
        """From now on call `module`, which accelerate or DeepSpeed has made of the model."""
        self.module = module
        leave_precision_to_the_call(self.model)
        if module is not self.model and is_deepspeed_zero3_enabled():
            _announce_head(self.model)

    @property
    def scores_as_it_trains(self) -> bool:
        """Whether a scoring pass and a training pass compute in the same precision, which is float32."""
        return self.scoring_precision == "float32" and not in_low_precision(self.model, self.accelerator)

    @property
    def speaks_in_low_precision(self) -> bool:
        """Whether messages are sampled in less than float32."""
        if self._speaking_precision is None:
            return in_low_precision(self.model, self.accelerator)
        return self._speaking_precision != "float32"

    @property
    def speaking_dtype(self) -> torch.dtype:
        """That in which messages are sampled: of the autocast, or without one of the weights."""
        if self._speaking_precision is not None:
            return getattr(torch, self._speaking_precision)
        own = next(weight.dtype for weight in self.model.parameters() if weight.is_floating_point())
        return AUTOCAST.get(self.accelerator.mixed_precision) or own

    @property
    def vocab_size(self) -> int:
        """Number of logits at each position."""
        return self.model.config.get_text_config().vocab_size

    @contextlib.contextmanager
    def generating(self, generation_kwargs: dict[str, Any]) -> Iterator[Any]:
        """
        Context with the unwrapped model, ready for `generate`; `generation_kwargs` override the model's own generation
        config. All processes enter together.
        """
        with (
            unwrap_model_for_generation(
                self.module,
                self.accelerator,
                gather_deepspeed3_params=self._gather_for_generation,
                generation_kwargs=generation_kwargs,
                gradient_checkpointing_kwargs=self._gradient_checkpointing_kwargs,
            ) as model,
            torch.no_grad(),
            self._computing_in(self._speaking_precision),
        ):
            yield model

    @contextlib.contextmanager
    def _scoring(self, as_trained: bool = False) -> Iterator[None]:
        """Context of forward passes without a gradient, in the scoring precision or in that of training."""
        model: Any = self.model  # TRL annotates `PreTrainedModel` only
        precision = None if as_trained else self.scoring_precision
        with (
            disable_gradient_checkpointing(model, self._gradient_checkpointing_kwargs),
            self._computing_in(precision),
        ):
            yield

    def _computing_in(self, precision: str | None) -> contextlib.AbstractContextManager[None]:
        """Context of forward passes in `precision`, or without one in that of training."""
        if precision is None:
            return self.accelerator.autocast()
        return computing_in(precision, self.model, self.accelerator)

    def logits(self, call: dict[str, Any]) -> torch.Tensor:
        """Logits of a forward pass with the arguments `call`, without the last position; before the temperature."""
        with self._scoring():
            return self.module(**call).logits[:, :-1]

    @torch.no_grad()
    def token_logps(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        sampled_ids: torch.Tensor,
        batch_size: int | None = None,
        as_trained: bool = False,
        position_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Log-probabilities of tokens at the temperature of the fused head, in the scoring precision.

        Args:
            input_ids, attention_mask (`torch.Tensor` of shape `(rows, length)`, int64): The sequences, as they are read.
            sampled_ids (`torch.Tensor` of shape `(rows, keep)`, int64): What was sampled at their last positions.
            batch_size (`int`, *optional*): Rows per forward pass; all of them if not given.
            as_trained (`bool`): Whether to score in the precision of training, as TRL does.
            position_ids (`torch.Tensor` of the shape of `input_ids`, int64, *optional*): With all rows at a time, the
                positions; counted from the mask if not given.

        Returns:
            `torch.Tensor` of shape `(rows, keep)`, in nats.
        """
        size, keep, found = batch_size or len(input_ids), sampled_ids.size(1), []
        more = {} if position_ids is None else {"position_ids": position_ids}
        with self._scoring(as_trained):
            parts = (tensor.split(size) for tensor in (input_ids, attention_mask, sampled_ids))
            for ids, mask, sampled in zip(*parts, strict=True):
                labels = torch.full_like(ids, -100)
                labels[:, -keep:] = sampled.masked_fill(mask[:, -keep:] == 0, -100)
                output = self.module(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True, **more)
                found.append(output.log_probs[:, -keep:])
        return torch.cat(found)


def add_scoring_head(model: PreTrainedModel | PeftModel, temperature: float):
    """Add the fused head that [`~Policy.token_logps`] needs, if no [`~trl.GRPOTrainer`] has added it."""
    base: Any = without_adapters(model)
    add_fused_lm_head(base, temperature=temperature)


def _announce_head(model: PreTrainedModel | PeftModel):
    """
    Let DeepSpeed gather the weight of the head in each forward pass of the model, as TRL's fused head needs it. DeepSpeed would notice
    by itself in a pass in which the weight is not there by chance, and then stop at the difference from the passes before.
    """
    from deepspeed.runtime.zero.partition_parameters import register_external_parameter

    head = model.get_output_embeddings()
    for parameter in [] if head is None else head.parameters():
        register_external_parameter(without_adapters(model), parameter)
