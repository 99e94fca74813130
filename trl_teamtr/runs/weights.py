"""Weights of a checkpoint: written, and read back into a model that is there already. All of them, or an error."""

from typing import Any

from peft import PeftModel, get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from trl import GRPOTrainer

from ..agents.gathering import gather_weights


def save_weights(member: GRPOTrainer, folder: str):
    """
    Write the model or the adapter of a member, and its tokenizer, into `folder`. All processes call this together.

    Under ZeRO-3 `Trainer` leaves out the weights of adapters that are not trained, which are all of a frozen member's.
    """
    if is_deepspeed_zero3_enabled() and isinstance(member.model, PeftModel):
        member._save(folder, gather_weights(member.model, member.accelerator))
    else:
        GRPOTrainer.save_model(member, folder, _internal_call=True)  # the lead's own saves the team


def load_weights(model: PreTrainedModel | PeftModel, folder: str):
    """
    Load what `save_pretrained` wrote into `folder`, through the conversions of `from_pretrained`.

    `Trainer` itself reads the file with `strict=False`, so that weights which an architecture saves under other names (the
    experts of a mixture, a renamed head) would keep the values that the model was made with.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]): Of the same architecture. Of an adapter, the base
            is left alone.
        folder (`str`): A model or adapter directory.

    Raises:
        `ValueError`: Naming the weights that are missing, unexpected or of another shape.
    """
    if isinstance(model, PeftModel):
        _load_adapter(model, folder)
        return
    loader: Any = type(model)
    loaded, found = loader.from_pretrained(folder, dtype="auto", output_loading_info=True)
    _refuse("is missing", found["missing_keys"], folder)
    _refuse("does not belong to this model", found["unexpected_keys"], folder)
    _refuse("has another shape", [str(key) for key in found["mismatched_keys"]], folder)
    saved, own = loaded.state_dict(keep_vars=True), model.state_dict(keep_vars=True)
    _refuse("is missing", own.keys() - saved.keys(), folder)
    _refuse("does not belong to this model", saved.keys() - own.keys(), folder)
    if is_deepspeed_zero3_enabled():
        _copy_partitioned(saved, own, folder)
        return
    _refuse("has another shape", [key for key in own if own[key].shape != saved[key].shape], folder)
    model.load_state_dict(saved)


def _copy_partitioned(saved: dict[str, Any], own: dict[str, Any], folder: str):
    """Copy weights that ZeRO-3 has partitioned, of which each is whole for a moment. All processes call this together."""
    from deepspeed.runtime.zero.partition_parameters import GatheredParameters, is_zero_param

    def shapes(weights: dict[str, Any]) -> dict[str, Any]:
        return {key: each.ds_shape if is_zero_param(each) else each.shape for key, each in weights.items()}

    there = shapes(saved)
    _refuse("has another shape", [key for key, shape in shapes(own).items() if shape != there[key]], folder)
    for key in own:
        with GatheredParameters([own[key], saved[key]], modifier_rank=0):
            own[key].detach().copy_(saved[key])


def _load_adapter(model: PeftModel, folder: str):
    adapter = model.active_adapters[0]
    saved, own = load_peft_weights(folder, device="cpu"), get_peft_model_state_dict(model, adapter_name=adapter)
    _refuse("is missing", own.keys() - saved.keys(), folder)
    _refuse("does not belong to this adapter", saved.keys() - own.keys(), folder)
    _refuse("has another shape", [key for key in own if own[key].shape != saved[key].shape], folder)
    set_peft_model_state_dict(model, saved, adapter_name=adapter)


def _refuse(what: str, keys: Any, folder: str):
    names = sorted(keys)
    if names:
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise ValueError(
            f"The weights in {folder!r} cannot be loaded: {what}: {shown}. Resume with the model or adapter that the "
            "checkpoint was saved with."
        )
