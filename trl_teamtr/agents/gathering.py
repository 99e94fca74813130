"""Weights that ZeRO-3 has partitioned, brought together on one process to be saved."""

import torch
from accelerate import Accelerator
from peft import PeftModel, get_peft_model_state_dict
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled


def gather_weights(model: PreTrainedModel | PeftModel, accelerator: Accelerator) -> dict[str, torch.Tensor] | None:
    """
    What `save_pretrained` takes as `state_dict` where ZeRO-3 has partitioned `model` as it was loaded. DeepSpeed's own function
    does this for a model in an engine, and leaves out the weights of adapters that are not trained.

    A weight is whole on the device only while it is copied, so that this needs the device memory of the largest one.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]): The model. It is left as it is.
        accelerator ([`~accelerate.Accelerator`]): All processes call this together.

    Returns:
        `dict[str, torch.Tensor]`, *optional*: On the main process, the weights in CPU memory; of an adapter those that PEFT saves.
            `None` on the others, and without ZeRO-3, where `save_pretrained` finds them itself.
    """
    if not is_deepspeed_zero3_enabled():
        return None
    from deepspeed.runtime.zero.partition_parameters import GatheredParameters, is_zero_param

    state = model.state_dict(keep_vars=True)
    if isinstance(model, PeftModel):  # without its base
        saved = {id(weight) for weight in get_peft_model_state_dict(model, state_dict=state).values()}
        state = {name: weight for name, weight in state.items() if id(weight) in saved or not is_zero_param(weight)}
    copies = dict[int, torch.Tensor]()  # one of weights with two names, which are saved under one
    for weight in {id(weight): weight for weight in state.values()}.values():
        with GatheredParameters(weight):
            if accelerator.is_main_process:
                copies[id(weight)] = weight.detach().to("cpu", copy=is_zero_param(weight))
    return {name: copies[id(weight)] for name, weight in state.items()} if accelerator.is_main_process else None
