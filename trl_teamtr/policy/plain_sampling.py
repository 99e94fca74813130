"""Removes settings of a model that would make it sample from a distribution other than the scored one."""

import warnings
from typing import Any

from peft import PeftModel
from torch import nn
from transformers import GenerationConfig, PreTrainedModel


# Fields of a generation config that do not change the distribution, or that TRL always sets
_HARMLESS = {
    *("transformers_version", "_from_model_config", "bos_token_id", "eos_token_id", "pad_token_id"),
    *("decoder_start_token_id", "do_sample", "temperature", "top_p", "top_k", "repetition_penalty"),
    *("max_length", "max_new_tokens", "use_cache", "cache_implementation", "cache_config", "return_dict_in_generate"),
    *("output_attentions", "output_hidden_states", "output_scores", "output_logits", "compile_config"),
    *("disable_compile", "trust_remote_code", "chat_format", "num_return_sequences", "early_stopping"),
}


def drop_sampling_defaults(model: PreTrainedModel | PeftModel, given: GenerationConfig, name: str):
    """
    Unset, with a warning, what the generation config of `model` would add to `given` and what changes the distribution
    of messages (`min_p`, `no_repeat_ngram_size`, `suppress_tokens`, ...): log-probabilities do not include it.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]): The model of agent `name`. Its
            `generation_config` is modified.
        given ([`~transformers.GenerationConfig`]): Passed to `generate`; takes precedence over the model's own.
        name (`str`): The agent's name, for the warning.
    """
    own: Any = model.generation_config
    plain, passed = GenerationConfig().to_dict(), given.to_dict()
    dropped = {
        key: value
        for key, value in own.to_diff_dict().items()
        if key not in _HARMLESS and key in plain and passed.get(key) is None
    }
    if dropped:
        for key in dropped:
            setattr(own, key, plain[key])
        found = ", ".join(f"{key}={value!r}" for key, value in dropped.items())
        warnings.warn(
            f"The generation config of the model of agent {name!r} sets {found}. It is ignored, since "
            "log-probabilities and KLs are those of the plain policy. Pass it in `generation_kwargs` to use it anyway.",
            stacklevel=5,
        )


def silence_dropout(model: nn.Module):
    """
    Set to 0 every dropout rate that a module of `model` stores as a number, as attention does. TRL's `disable_dropout`
    covers modules of type `Dropout` only, and with any dropout the KL of two equal policies is not 0.
    """
    for module in model.modules():
        for attribute, value in vars(module).items():
            if isinstance(value, float) and "drop" in attribute:
                setattr(module, attribute, 0.0)
