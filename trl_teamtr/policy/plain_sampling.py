"""What a model brings along that would let it sample from another law than the one that its messages are scored by."""

import warnings

from torch import nn
from transformers import GenerationConfig


# Of a model's generation config, what changes no law, or what TRL always sets itself
_HARMLESS = {
    *("transformers_version", "_from_model_config", "bos_token_id", "eos_token_id", "pad_token_id"),
    *("decoder_start_token_id", "do_sample", "temperature", "top_p", "top_k", "repetition_penalty"),
    *("max_length", "max_new_tokens", "use_cache", "cache_implementation", "cache_config", "return_dict_in_generate"),
    *("output_attentions", "output_hidden_states", "output_scores", "output_logits", "compile_config"),
    *("disable_compile", "trust_remote_code", "chat_format", "num_return_sequences", "early_stopping"),
}


def drop_sampling_defaults(model: nn.Module, given: GenerationConfig, name: str):
    """
    Unset, with a warning, what the generation config of `model` would add to `given` and what changes the law that
    messages are sampled from (`min_p`, `no_repeat_ngram_size`, `suppress_tokens`, ...): nothing scores that law.

    Args:
        model ([`~torch.nn.Module`]): The model of agent `name`. Its `generation_config` is changed.
        given ([`~transformers.GenerationConfig`]): What is passed to `generate`, and goes before the model's own.
        name (`str`): What to call the agent in the warning.
    """
    own, plain, passed = model.generation_config, GenerationConfig().to_dict(), given.to_dict()
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
            f"The generation config of the model of agent {name!r} sets {found}. It is left out, since log-probabilities "
            "and KLs are those of the plain policy. Pass it in `generation_kwargs` to sample with it all the same.",
            stacklevel=5,
        )


def silence_dropout(model: nn.Module):
    """
    Set to 0 every dropout rate that a module of `model` keeps as a number, as attention does. `disable_dropout` of TRL
    reaches modules of type `Dropout` only, and with any dropout the KL of two equal policies is not 0.
    """
    for module in model.modules():
        for attribute, value in vars(module).items():
            if isinstance(value, float) and "drop" in attribute:
                setattr(module, attribute, 0.0)
