"""The positions of tokens in padded rows, which must not depend on the padding."""

import inspect
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from ..agents.base_model import without_adapters


def count_positions_from_mask(model: PreTrainedModel | PeftModel):
    """
    From now on, let forward passes of `model` on padded rows count positions from the first real token of each row, as
    `generate` does. TRL's scoring passes ids and mask only, and then most architectures count from the first column: with
    learned positions, or a scaling that depends on the length, a row's log-probabilities would depend on its padding.

    Models that take no `position_ids` are left as they are: [`check_padding`] measures whether padding changes them.
    """
    if takes_positions(model):
        model.register_forward_pre_hook(_add_positions, with_kwargs=True)


def takes_positions(model: PreTrainedModel | PeftModel) -> bool:
    """Whether a forward pass of `model` takes `position_ids`."""
    base: Any = without_adapters(model)
    return "position_ids" in inspect.signature(base.forward).parameters


def positions_of(attention_mask: torch.Tensor) -> torch.Tensor:
    """
    The number of real tokens before each real one; 0 for padding.

    Args:
        attention_mask (`torch.Tensor` of shape `(rows, length)`, int64): 1 for real tokens.

    Returns:
        `torch.Tensor` of that shape, int64.
    """
    return (attention_mask.cumsum(dim=-1) - 1).masked_fill(attention_mask == 0, 0)


def _add_positions(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    ids, mask = kwargs.get("input_ids"), kwargs.get("attention_mask")
    # A mask that is longer than the ids belongs to the rest of a row after a cache
    if ids is None or mask is None or mask.shape != ids.shape or kwargs.get("position_ids") is not None:
        return args, kwargs
    return args, {**kwargs, "position_ids": positions_of(mask.long())}
