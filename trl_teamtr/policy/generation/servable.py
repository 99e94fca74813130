"""What a server must have to serve an agent, and which adapters none can serve."""

from typing import Any

from peft import PeftModel
from trl.experimental.async_grpo.async_grpo_trainer import validate_lora_for_vllm_sync
from trl.trainer.utils import get_config_model_id

from ...agents.base_model import without_adapters
from ...agents.models import leaves_base_alone
from ..speaker import Speaker


def is_adapter(speaker: Speaker) -> bool:
    """Whether an agent's own weights are an adapter."""
    return isinstance(speaker.policy.model, PeftModel)


def base_of(speaker: Speaker) -> str:
    """The path or id of an agent's model, or of the base of its adapter; empty for one that was loaded from nowhere."""
    model: Any = speaker.policy.model
    base: Any = without_adapters(model)
    return get_config_model_id(base.config) or ""


def is_quantized(speaker: Speaker) -> bool:
    """Whether an agent's model, or the base of its adapter, was loaded with quantized weights."""
    model: Any = speaker.policy.model
    return model.config.to_dict().get("quantization_config") is not None


def rank_of(speaker: Speaker) -> int:
    """
    The rank of an agent's adapter.

    Raises:
        `ValueError`: If a server cannot serve it as it is, on the base as it is.
    """
    model: Any = speaker.policy.model
    try:
        config = validate_lora_for_vllm_sync(model)
    except ValueError as error:
        raise ValueError(
            f"Agent {speaker.name!r} has an adapter that vLLM cannot serve: {error} (An adapter is never merged here: train plain "
            "LoRA, or leave `use_vllm=False`.)"
        ) from error
    own = {name: getattr(config, name) for name in ("rank_pattern", "alpha_pattern") if getattr(config, name)}
    if own:
        raise ValueError(
            f"Agent {speaker.name!r} has an adapter with {', '.join(own)}, but vLLM scales all modules of an adapter alike. "
            "Give all modules one `r` and one `lora_alpha`, or leave `use_vllm=False`."
        )
    if not leaves_base_alone(config):
        raise ValueError(
            f"Agent {speaker.name!r} has an adapter with init_lora_weights={config.init_lora_weights!r}, which rewrites its base: "
            "the server's base is another. Use `True`, `False`, 'gaussian' or 'orthogonal', or leave `use_vllm=False`."
        )
    return config.r
