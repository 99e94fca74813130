"""Scoring an agent's messages: log-probabilities and KLs of its views, in chunks that fit into memory."""

from typing import TYPE_CHECKING, Any

import torch
from trl.models.utils import disable_gradient_checkpointing

from .trust_region import exact_kl


if TYPE_CHECKING:
    from .agent_trainer import AgentTrainer
    from .snapshot import Snapshot


# Most logits of one policy that the exact KL holds at a time: 256 MiB in float32.
LOGITS_PER_CHUNK = 2**26


def loss_mask(inputs: dict) -> torch.Tensor:
    """1 on the tokens of the agent's own messages; shape `(rows, completion length)`."""
    return inputs["completion_mask"] * inputs["tool_mask"]


def sequence(inputs: dict) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Ids and attention mask of whole views, and the length of their completions."""
    input_ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    attention_mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    return input_ids, attention_mask, inputs["completion_ids"].size(1)


@torch.no_grad()
def token_logps(agent: "AgentTrainer", batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """
    Log-probabilities of the tokens of whole views under the present weights, at the agent's temperature, in passes of
    `per_device_train_batch_size` rows.

    Returns:
        `torch.Tensor` of shape `(rows, completion length)`, in nats; to be masked with [`loss_mask`].
    """
    rows = agent.args.per_device_train_batch_size
    with disable_gradient_checkpointing(agent.model, agent.args.gradient_checkpointing_kwargs):
        logps = agent._get_per_token_logps_and_entropies(agent.model_wrapped, *sequence(batch), batch_size=rows)[0]
    agent._last_logps = None
    return logps


def rows_per_chunk(agent: "AgentTrainer", length: int, max_logits: int) -> int:
    """How many rows of `length` positions have at most `max_logits` logits; the same on every process."""
    longest = agent.accelerator.gather(torch.tensor([length], device=agent.args.device)).max().item()
    return max(1, max_logits // (longest * agent.model.config.get_text_config().vocab_size))


def compute_logits(agent: "AgentTrainer", call: dict[str, Any]) -> torch.Tensor:
    """Logits of a forward pass with the arguments `call`, but for the last position; not over the temperature yet."""
    with agent.accelerator.autocast():
        return agent.model_wrapped(**call).logits[:, :-1]


@torch.no_grad()
def exact_token_kl(agent: "AgentTrainer", inputs: dict, snapshot: "Snapshot") -> torch.Tensor:
    """
    KL(π_cur ‖ π_new) over the full vocabulary at each position, in chunks of rows whose logits fit into
    `LOGITS_PER_CHUNK` for each of the two policies.

    Returns:
        `torch.Tensor` of shape `(rows, completion length)`, in nats; to be masked with [`loss_mask`].
    """
    input_ids, attention_mask, keep = sequence(inputs)
    size, chunks = rows_per_chunk(agent, keep + 1, LOGITS_PER_CHUNK), []
    for ids, mask in zip(input_ids.split(size), attention_mask.split(size), strict=True):
        call = {"input_ids": ids, "attention_mask": mask, "logits_to_keep": keep + 1, "use_cache": False}
        new = compute_logits(agent, call)
        with snapshot.current_policy():
            chunks.append(exact_kl(compute_logits(agent, call), new, agent.temperature))
    return torch.cat(chunks)
