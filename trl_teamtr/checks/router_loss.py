"""Whether TRL can compute the router loss of a mixture of experts."""

from typing import Any

from torch import nn

from ..agents.agent import Agent


def check_router_loss(model: nn.Module, agent: Agent, is_enabled: bool):
    """
    Raise `ValueError` if the loss of `agent` has TRL's router loss, and the architecture does not name its experts as TRL
    reads them.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]): Its model.
        agent ([`Agent`]): The member.
        is_enabled (`bool`): TRL's `aux_loss_enabled` of its trainer.
    """
    config: Any = model.config
    names = ("num_experts", "num_experts_per_tok")
    # Not from `to_dict`: an architecture may have other names of its own for these (`attribute_map`)
    missing = [name for name in names if not hasattr(config.get_text_config(), name)]
    if agent.trainable and is_enabled and missing:
        raise ValueError(
            f"The model of agent {agent.name!r} ({config.model_type}) is a mixture of experts whose config has no "
            f"{' and no '.join(missing)}, which TRL's router loss needs. Set `router_aux_loss_coef=0.0`, to train without it."
        )
