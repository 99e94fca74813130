"""What a batch of rollouts cost, and how long an agent's messages were, under TRL's names where it has one."""

from typing import TYPE_CHECKING

import torch

from .rollout import Rollouts


if TYPE_CHECKING:
    from .agent_trainer import AgentTrainer


def log_rollouts(agent: "AgentTrainer", rollouts: Rollouts, own: list[tuple[int, int]], mode: str):
    """
    Log `rollouts`, summed over all processes.

    Args:
        agent (`AgentTrainer`): Whose update or evaluation they are for.
        rollouts (`Rollouts`): Of this process.
        own (`list[tuple[int, int]]`): For each of the agent's views, the number of its own tokens and messages.
        mode (`str`): `"train"` or `"eval"`.
    """
    messages = [message for transcript in rollouts.transcripts for message in transcript.messages]
    counts = {
        "messages": len(messages),
        "tokens": sum(len(message.ids) for message in messages),
        "cut": rollouts.num_cut,
        "full": len(rollouts.full),
        "read": sum(len(view.prompt_ids) for view in rollouts.views[agent.name]),
        "unfinished": sum(not message.finished for message in messages if message.agent == agent.name),
        "decoded": rollouts.tokens_decoded,
        "scored": rollouts.tokens_scored,
        "kept": rollouts.tokens_kept,
        "own_tokens": sum(tokens for tokens, _ in own),
        "own_messages": sum(number for _, number in own),
    }
    total = agent.accelerator.reduce(torch.tensor(list(counts.values()), device=agent.args.device), reduction="sum")
    counts = dict(zip(counts, total.tolist(), strict=True))
    if mode == "train":
        agent.state.num_input_tokens_seen += counts["read"] + counts["tokens"]
    metrics = agent._metrics[mode]
    metrics["num_tokens"] = [agent.state.num_input_tokens_seen]
    metrics["rollout/messages"].append(counts["messages"])
    metrics["rollout/tokens_decoded"].append(counts["decoded"])
    metrics["rollout/tokens_scored"].append(counts["scored"])
    metrics["rollout/reused_fraction"].append(counts["kept"] / max(counts["tokens"], 1))
    metrics["rollout/messages_cut"].append(counts["cut"])
    metrics["rollout/ended_for_length"].append(counts["full"])
    metrics["completions/mean_length"].append(counts["own_tokens"] / max(counts["own_messages"], 1))
    metrics["completions/clipped_ratio"].append(counts["unfinished"] / max(counts["own_messages"], 1))
