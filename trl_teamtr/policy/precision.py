"""The precision of forward passes: the user's mixed precision for training, others for scoring and for speaking."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from peft import PeftModel
from peft.helpers import disable_input_dtype_casting
from torch import nn
from transformers import PreTrainedModel

from ..agents.base_model import without_adapters


# The dtype of the autocast of each mixed precision
AUTOCAST = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_LOW = (torch.float16, torch.bfloat16)


def leave_precision_to_the_call(model: Any):
    """
    Let a forward pass of a model that accelerate has prepared run in the precision of its caller. accelerate wraps
    `forward` in the mixed precision, which a context around the call cannot turn off.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]): As the trainer knows it, without DDP.
    """
    # `extract_model_from_parallel(keep_fp32_wrapper=False)` would remove TRL's fused head as well
    original = vars(model).pop("_original_forward", None)
    if original is not None:
        model.forward = original


def in_low_precision(model: nn.Module, accelerator: Accelerator) -> bool:
    """Whether a training pass of `model` computes in less than float32."""
    return accelerator.mixed_precision != "no" or _has_low(model)


def computes_in_tf32(device: torch.device) -> bool:
    """Whether products of float32 matrices are TF32 on `device`: with `TrainingArguments.tf32`, or PyTorch's own switches."""
    return device.type == "cuda" and torch.backends.cuda.matmul.fp32_precision == "tf32"


@contextlib.contextmanager
def computing_in(precision: str, model: PreTrainedModel | PeftModel, accelerator: Accelerator) -> Iterator[None]:
    """
    Context in which forward passes of `model`, without gradient, compute in `precision`: those that score or speak.

    Args:
        precision (`str`): One of `PRECISIONS`. In `"float32"` low-precision weights are widened.
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]): The model, without DDP or DeepSpeed's engine.
        accelerator ([`~accelerate.Accelerator`]): That of the model.
    """
    device = accelerator.device.type
    if precision == "float32":
        with torch.autocast(device, enabled=False), _widened(model) if _has_low(model) else contextlib.nullcontext():
            yield
    else:
        with torch.autocast(device, getattr(torch, precision)):
            yield


@contextlib.contextmanager
def _widened(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """
    Context in which `model` computes with its low-precision weights widened to float32, one block of layers at a time: some
    modules read the weights of those within them without calling them.
    """
    whole: nn.Module = without_adapters(model)
    head: Any = model.get_output_embeddings()
    of_head = set() if head is None else set(head.modules())
    blocks = {block for each in model.modules() if isinstance(each, nn.ModuleList) for block in each}
    parts = [(module, module in blocks) for module in model.modules() if module not in of_head and module is not whole]
    with contextlib.ExitStack() as stack:
        # An adapter would round its input to the precision of weights that are not widened yet, or under ZeRO-3 not there
        stack.enter_context(disable_input_dtype_casting(model))
        # TRL's fused head reads the weight of the head without calling it, in a forward pass of the whole model
        _widen_around(stack, whole, lambda: [*_low(whole, recurse=False), *([] if head is None else _low(head, True))])
        for module, is_block in parts:
            if _low(module, is_block):
                _widen_around(stack, module, partial(_low, module, is_block))
        yield


def _widen_around(stack: contextlib.ExitStack, module: nn.Module, low: Callable[[], list[nn.Parameter]]):
    """Let the weights that `low` returns be wide in each forward pass of `module`, until `stack` ends."""
    held: list[tuple[nn.Parameter, torch.Tensor]] = []

    def widen(module: nn.Module, args: tuple) -> tuple:
        held.extend(_widen(low()))
        return tuple(arg.float() if isinstance(arg, torch.Tensor) and arg.dtype in _LOW else arg for arg in args)

    stack.callback(module.register_forward_pre_hook(widen).remove)
    # First of all hooks: under ZeRO-3 a later one partitions the weights again
    restore = module.register_forward_hook(lambda *_: _restore(held), prepend=True, always_call=True)
    stack.callback(restore.remove)


def _has_low(model: nn.Module) -> bool:
    return any(parameter.dtype in _LOW for parameter in model.parameters())


def _low(module: nn.Module, recurse: bool) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters(recurse) if parameter.dtype in _LOW]


def _widen(low: list[nn.Parameter]) -> list[tuple[nn.Parameter, torch.Tensor]]:
    # Under ZeRO-3 the weights of modules within are not there yet: their own hooks widen them
    held = [(parameter, parameter.data) for parameter in low if parameter.numel() > 0]
    for parameter, data in held:
        parameter.data = data.float()
    return held


def _restore(held: list[tuple[nn.Parameter, torch.Tensor]]):
    for parameter, data in held:
        parameter.data = data
    held.clear()
